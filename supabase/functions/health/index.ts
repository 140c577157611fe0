/** Whether the process lives, and whether it can work. */
import { defineApi } from '../_shared/http/api.ts'
import { routes } from './routes.ts'

export default defineApi({
  name: 'health',
  title: 'Health',
  description: 'For load balancers and people: alive, and ready.',
  routes,
})

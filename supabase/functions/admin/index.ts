/** For the people who run the project: what was changed, by whom. */
import { defineApi } from '../_shared/http/api.ts'
import { routes } from './routes.ts'

export default defineApi({
  name: 'admin',
  title: 'Admin',
  description: 'For admins alone: app_metadata.role is "admin" in their access token.',
  routes,
})

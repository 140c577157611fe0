/** Orders of the sample shop: place, list, read, cancel, remove. */
import { defineApi } from '../_shared/http/api.ts'
import { routes } from './routes.ts'

export default defineApi({
  name: 'orders',
  title: 'Orders',
  description: 'A signed-in customer places orders and sees their own.',
  routes,
})

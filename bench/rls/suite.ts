/** What row level security costs on a million orders: reading one's own, and being refused what is somebody else's. */
import type { Suite } from '../support/suite.ts'
import { millionOrders } from './millionOrders.ts'

export const suite: Suite = {
  packages: ['postgres'],
  postgres: true,
  measures: [millionOrders],
}

/** What a request costs: over HTTP, at cold start, and in round trips to PostgreSQL. */
import type { Suite } from '../support/suite.ts'
import { coldStart } from './coldStart.ts'
import { noopRoute } from './noopRoute.ts'
import { roundTrips } from './roundTrips.ts'

export const suite: Suite = {
  packages: ['hono', 'zod', 'postgres', 'jose', 'autocannon'],
  measures: [noopRoute, coldStart, roundTrips],
}

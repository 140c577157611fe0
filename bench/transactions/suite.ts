/** What a transaction costs: in round trips, and in time behind a network. */
import type { Suite } from '../support/suite.ts'
import { latency } from './latency.ts'
import { roundTrips } from './roundTrips.ts'

export const suite: Suite = {
  packages: ['postgres', '@supabase/server', 'pg'],
  postgres: true,
  measures: [roundTrips, latency],
}

/** What a hit costs, how often a stampede loads, and the trips of the shared tier. */
import type { Suite } from '../support/suite.ts'
import { hits } from './hits.ts'
import { roundTrips } from './roundTrips.ts'
import { stampede } from './stampede.ts'

export const suite: Suite = {
  packages: ['lru-cache', 'postgres'],
  postgres: true,
  measures: [hits, stampede, roundTrips],
}

/** What it costs to do something once: beside the usual way by hand, and in round trips. */
import type { Suite } from '../support/suite.ts'
import { replay } from './replay.ts'
import { roundTrips } from './roundTrips.ts'
import { write } from './write.ts'

export const suite: Suite = {
  packages: ['postgres'],
  postgres: true,
  measures: [write, replay, roundTrips],
}

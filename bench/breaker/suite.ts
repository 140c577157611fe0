/** What a circuit breaker costs: while all is well, with its timeout and bulkhead, and while it refuses. */
import type { Suite } from '../support/suite.ts'
import { closed, guarded } from './closed.ts'
import { refused } from './refused.ts'

export const suite: Suite = {
  packages: ['cockatiel', 'opossum'],
  postgres: true,
  measures: [closed, guarded, refused],
}

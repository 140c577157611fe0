/** What trying again costs where nothing has to be tried again. */
import type { Suite } from '../support/suite.ts'
import { immediateSuccess } from './immediateSuccess.ts'

export const suite: Suite = {
  packages: ['p-retry', 'cockatiel'],
  measures: [immediateSuccess],
}

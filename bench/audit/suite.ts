/** What the audit trail costs those who write, beside supa_audit where a checkout of it is given. */
import type { Suite } from '../support/suite.ts'
import { bulk } from './bulk.ts'
import { bytes } from './bytes.ts'
import { single } from './single.ts'
import { throughput } from './throughput.ts'
import { upkeep } from './upkeep.ts'

export const suite: Suite = {
  packages: ['postgres'],
  postgres: true,
  measures: [single, bulk, bytes, throughput, upkeep],
}

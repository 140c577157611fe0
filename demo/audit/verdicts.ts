/** What was promised, and whether it was seen. */
import { isDeepStrictEqual } from 'node:util'
import type { Screen } from '../support/screen.ts'
import type { Answer } from './people.ts'
import type { Refusal, Seal, Verified } from './tampering.ts'
import type { Change } from './trail.ts'

export interface Observed {
  /** Of the order's row, before anybody tampered. */
  history: readonly Change[]
  /** The row itself. */
  order: Record<string, unknown>
  answers: Record<'placed' | 'refused' | 'cancelled', Answer>
  /** Changes that came with the refused request. */
  refusedChanges: number
  before: Verified
  /** The change that was tampered with, and the seal that covers it. */
  target: number
  covering: Seal | undefined
  service: Refusal | undefined
  owner: Refusal | undefined
  altered: number
  after: Verified
  tookMs: number
}

/** Who must have done what, in order: operation, e-mail, role, function. */
const deeds = [
  ['INSERT', 'ada@example.com', 'authenticated', 'orders'],
  ['UPDATE', null, 'postgres', null],
  ['UPDATE', 'admin@example.com', 'service_role', null],
  ['UPDATE', 'ada@example.com', 'authenticated', 'orders'],
]

export function judge(screen: Screen, observed: Observed): void {
  const { history, order, answers, before, after, covering } = observed
  screen.section('What was seen')

  const found = history.map((each) => [each.operation, each.email, each.role, each.functionName])
  screen.verdict(
    isDeepStrictEqual(found, deeds),
    `All ${deeds.length} changes are there: by Ada, as postgres (nobody signed in), by the admin, by Ada`,
    { found },
  )

  const requests = [history.at(0)?.requestId, history.at(-1)?.requestId]
  screen.verdict(
    isDeepStrictEqual(requests, [answers.placed.requestId, answers.cancelled.requestId]),
    "Ada's two requests stand in the trail under the ids that her client was told",
    { requests },
  )

  const replayed = Object.assign({}, ...history.map((change) => change.new))
  const columns = Object.keys(order).length
  screen.verdict(
    isDeepStrictEqual(replayed, order),
    `Replayed from its INSERT, the history gives the order as it is, in all ${columns} columns`,
    { replayed, order },
  )

  screen.verdict(
    answers.refused.status === 404 && observed.refusedChanges === 0,
    `Grace was refused (${answers.refused.status}), and left ${observed.refusedChanges} changes: nothing had changed`,
    { refusedChanges: observed.refusedChanges },
  )

  screen.verdict(
    before.intact && before.unsealed === 0,
    `Untouched, the trail was intact, and all of its ${before.changes} changes were sealed`,
    { verified: before },
  )

  const codes = [observed.service, observed.owner].map((refusal) => refusal?.code ?? 'not refused')
  screen.verdict(
    isDeepStrictEqual(codes, ['42501', 'HF451']),
    `service_role may not write to the trail (${codes[0]}), and its owner only adds to it (${codes[1]})`,
    { codes },
  )

  screen.verdict(
    observed.altered === 1 && !after.intact && after.changeId === observed.target &&
      after.seal === covering?.number && after.month === covering?.month,
    after.intact ? 'The superuser was not found out' : (
      `The superuser was found out in ${observed.tookMs.toFixed(0)} ms: change ${after.changeId}, ` +
      `seal ${after.seal} of ${after.month}`
    ),
    { verified: after, covering },
  )
  screen.note(
    'Whoever makes all hashes anew as well is found by one that was kept elsewhere: audit.verify(p_head => …)',
  )
}

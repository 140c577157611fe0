/**
 * What became of a commit that was not answered. The server is asked until it knows: committed and rolled back are
 * its word, unknown is said only when it cannot be asked.
 */
import { pause, within } from './pause.ts'
import type { Db } from './client.ts'
import { sql } from './sql.ts'
import type { TransactionFacts } from './transactionBooks.ts'

export type CommitOutcome = 'committed' | 'rolled_back' | 'unknown'

export interface UnansweredCommit {
  id: string
  /** Absent where no books are kept: then `xid` alone tells. */
  facts?: TransactionFacts
  /** The server's id of it; absent when the opening was not answered either. */
  xid?: string
}

/** How long the server is asked. A restart after a crash takes a second or two. */
const askForMs = 5_000
/** From then on a session that still holds the transaction, and only waits for its client, is ended. */
const patienceMs = 1_000
/** How long one question may take. */
const answerWithinMs = 2_000

/** Takes up to seven seconds. Never rejects. */
export async function resolveCommit(db: Db, commit: UnansweredCommit): Promise<CommitOutcome> {
  const startedAt = performance.now()
  for (let delayMs = 10;; delayMs = Math.min(delayMs * 2, 500)) {
    const elapsedMs = performance.now() - startedAt
    const answer = await ask(db, commit, elapsedMs >= patienceMs).catch(() => 'in_progress' as const)
    if (answer !== 'in_progress') return answer
    if (performance.now() - startedAt + delayMs > askForMs) return 'unknown'
    await pause(delayMs)
  }
}

/** A transaction of its own, since its answer may bind, and so that a question nobody answers can be given up. */
async function ask(
  db: Db,
  { id, facts, xid }: UnansweredCommit,
  endHolder: boolean,
): Promise<CommitOutcome | 'in_progress'> {
  const outcome = sql`holdfast.resolve_transaction(${id}, ${facts}, ${xid}, ${endHolder}) as outcome`
  const question = db.begin({ service: 'resolving a commit' }, {
    timeoutMs: answerWithinMs,
    opening: [outcome],
  })
  const answered = await within(question.commit({ last: sql`select 1` }).then(() => true), answerWithinMs)
  if (answered !== undefined) return question.openingRow?.outcome as CommitOutcome | 'in_progress'
  question.abandon()
  return 'in_progress'
}

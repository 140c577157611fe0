/** PostgreSQL is killed in the middle of a load: the trail and the tables lose the same, and nothing that was committed. */
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { type Load, startLoad } from '../support/auditLoad.ts'
import { createLoadTables } from '../support/auditLoadTables.ts'
import { type AuditFindings, reckonAudit } from '../support/auditReckoning.ts'
import { openSql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'
import { brief, none } from './support/brief.ts'
import { type OwnPostgres, ownPostgres } from './support/ownPostgres.ts'
import { stormSeed } from './support/random.ts'

const seed = stormSeed()
const clients = 16

let before: Load
let after: Load
let reckoning: { findings: AuditFindings; counts: Record<string, number> }
const report = () =>
  JSON.stringify({ seed, before: before.counts, after: after?.counts, ...reckoning?.counts })

beforeAll(async () => {
  const postgres = await ownPostgres('audit')
  const admin = openSql(postgres.adminUrl)
  await admin`alter database postgres set lock_timeout = '2s'`
  await createLoadTables(openSql(postgres.url), admin)
  before = startLoad({
    url: postgres.url,
    seed,
    clients,
    transactions: 1e6,
    maxMs: 30_000,
    survives: isConnectionLoss,
  })
  await waitFor(() => (before.counts.committed ?? 0) >= 200, {
    what: 'the load to be one',
    timeoutMs: 20_000,
  })
  await kill(postgres)
  // Ends what is left of it, and recovers.
  await postgres.crash()
  before.abandon()
  await before.done
  after = startLoad({
    url: postgres.url,
    seed: seed + 1,
    clients: 8,
    clientsBefore: clients,
    transactions: 10,
    maxMs: 10_000,
    reshapes: false,
  })
  await after.done
  reckoning = await reckonAudit(openSql(postgres.adminUrl), [...before.book, ...after.book])
}, 120_000)

test('clients were cut off in the middle of transactions, and went on afterwards', () => {
  const outcomes = before.book.map(({ outcome }) => outcome)
  expect(outcomes.filter((outcome) => outcome === 'unknown').length, report()).toBeGreaterThanOrEqual(
    clients / 2,
  )
  expect(after.counts.committed, report()).toBeGreaterThanOrEqual(20)
})

test.each(
  [
    ['every change that survived is in the trail', 'missing'],
    ['the trail has no change that did not survive', 'invented'],
    ['what was committed before the crash is in the trail', 'miscounted'],
    ['nothing of a transaction that was rolled back is in the trail', 'ghosts'],
    ['each change follows from those before it', 'order'],
    ['the tables can be rebuilt from the trail alone', 'rebuilt'],
    ['there is no gap', 'gaps'],
  ] as const,
)('%s', (_, list) => {
  expect(brief(reckoning.findings[list]), report()).toEqual(none)
})

/** The server itself, without a word: no process of it can finish anything. */
async function kill(postgres: OwnPostgres): Promise<void> {
  const admin = openSql(postgres.adminUrl)
  const [row] = await admin`show data_directory`
  await admin.end()
  const [pid] = (await Deno.readTextFile(join(row!.data_directory, 'postmaster.pid'))).split('\n')
  Deno.kill(Number(pid), 'SIGKILL')
}

function isConnectionLoss(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^(CONN|ECONN|57P0|EPIPE)/.test(String(error.code))
}

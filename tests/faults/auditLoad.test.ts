/**
 * 32 clients write at random, with everything that SQL has for it, while tables change their shape below them. The
 * audit trail has every change that was committed and nothing else, and the tables can be rebuilt from it.
 *
 * `HOLDFAST_STORM_SEED=1 npm test -- faults/auditLoad` repeats the choices of the load whose report says `seed: 1`.
 */
import { beforeAll, expect, test } from 'vitest'
import { type Load, startLoad } from '../support/auditLoad.ts'
import { createLoadTables } from '../support/auditLoadTables.ts'
import { type AuditFindings, reckonAudit } from '../support/auditReckoning.ts'
import { freshDatabase } from '../support/database.ts'
import { openSql } from '../support/sql.ts'
import { brief, none } from './support/brief.ts'
import { stormSeed } from './support/random.ts'

const seed = stormSeed()
const fewest = { transactions: 500, changes: 4_000 }

let load: Load
let reckoning: { findings: AuditFindings; counts: Record<string, number> }
const report = () => JSON.stringify({ seed, ...load.counts, ...reckoning?.counts })

beforeAll(async () => {
  const database = await freshDatabase()
  const admin = openSql(database.adminUrl)
  // Deadlocks are part of it; waiting a second for each would make it a calm.
  await admin.unsafe(`alter database ${database.name} set deadlock_timeout = '50ms'`)
  await admin.unsafe(`alter database ${database.name} set lock_timeout = '2s'`)
  const owner = openSql(database.url)
  await createLoadTables(owner, admin)
  load = startLoad({ url: database.url, seed, clients: 32, transactions: 60, maxMs: 30_000 })
  await load.done
  reckoning = await reckonAudit(admin, load.book)
}, 90_000)

test('the load was one', () => {
  const { counts } = load
  expect(reckoning.counts.transactions, report()).toBeGreaterThan(fewest.transactions)
  expect(reckoning.counts.noted, report()).toBeGreaterThan(fewest.changes)
  for (const what of ['rolled back', 'savepoints gone back to', 'copy', 'upsert', 'merge', 'rotate keys']) {
    expect(counts[what], `${what} of ${report()}`).toBeGreaterThanOrEqual(10)
  }
  expect(counts['changes of shape'], report()).toBeGreaterThanOrEqual(8)
  expect(counts['partition attached'], report()).toBe(1)
  expect(counts['error 40P01'], report()).toBeGreaterThan(0)
  for (const what of ['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'DDL']) {
    expect(reckoning.counts[what], `${what} of ${report()}`).toBeGreaterThan(0)
  }
})

test.each(
  [
    ['every change is in the trail, with its old and new values', 'missing'],
    ['the trail has no change that was not made', 'invented'],
    ['the trail has as many rows as the statements of each transaction counted', 'miscounted'],
    ['nothing of a transaction that was rolled back is in the trail', 'ghosts'],
    ['each change has the role and the user who made it', 'actors'],
    ['each change has the key of its row', 'keys'],
    ['each change follows from those before it', 'order'],
    ['the tables can be rebuilt from the trail alone', 'rebuilt'],
    ['there is no gap', 'gaps'],
  ] as const,
)('%s', (_, list) => {
  expect(brief(reckoning.findings[list]), report()).toEqual(none)
})

/** PostgreSQL crashes and recovers: what was counted is forgotten, as documented, and what was decided is not. */
import { beforeAll, expect, test } from 'vitest'
import { createDb, type Db, sql } from '../../supabase/functions/_shared/db/client.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import { createCircuitBreakers } from '../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { createRateLimiter } from '../../supabase/functions/_shared/resilience/rateLimit.ts'
import { PostgresBreakerStore } from '../../supabase/functions/_shared/resilience/stores/postgresBreakers.ts'
import { PostgresRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/postgresRateLimits.ts'
import { closeAfterFile } from '../support/leftovers.ts'
import { waitFor } from '../support/wait.ts'
import { type OwnPostgres, ownPostgres } from './support/ownPostgres.ts'

let postgres: OwnPostgres
let db: Db

beforeAll(async () => {
  postgres = await ownPostgres('guards')
  db = createDb({ url: postgres.url, max: 2 })
  closeAfterFile({ name: 'the connections of the guards', close: () => db.close() })
}, 60_000)

test('after a crash limits count anew, and what was open is still open', async () => {
  const quiet = createLogger({ write() {} })
  const limiter = createRateLimiter({
    name: 'crash',
    policy: '10/d',
    store: new PostgresRateLimitStore(db),
    denyCacheMs: 0,
    onUnavailable: 'closed',
    log: quiet,
  })
  const admittedOf20 = async () => {
    const decisions = await Promise.all(Array.from({ length: 20 }, () => limiter.consume('somebody')))
    expect(decisions.map(({ decidedBy }) => decidedBy)).toEqual(Array(20).fill('store'))
    return decisions.filter(({ allowed }) => allowed).length
  }
  // Each an isolate of its own: what one knows of a breaker it knows from the database.
  const isolate = () => createCircuitBreakers({ store: new PostgresBreakerStore(db), log: quiet })
  const before = isolate()
  const failing = before.get('crash', { failureThreshold: 2, cooldownMs: 60_000 })
  const fail = () => failing.execute(() => Promise.reject(new Error('on purpose')))
  await expect(fail()).rejects.toThrow('on purpose')
  await expect(fail()).rejects.toThrow('on purpose')
  await waitFor(async () => (await stateOf('crash')) === 'open', { what: 'the breaker to be open for all' })
  expect(await admittedOf20()).toBe(10)

  await postgres.crash()

  await waitFor(async () => (await limiter.consume('another')).decidedBy === 'store', {
    what: 'the limiter to reach PostgreSQL again',
  })
  expect(await admittedOf20()).toBe(10)
  const after = isolate()
  const calling = after.get('crash', { failureThreshold: 2, cooldownMs: 60_000 }).execute(() => 'called')
  await expect(calling).rejects.toMatchObject({ code: 'CIRCUIT_OPEN' })
  await Promise.all([before.close(), after.close()])
}, 30_000)

async function stateOf(name: string): Promise<unknown> {
  const [row] = await db.owner.query(sql`select state from holdfast.circuit_breakers where name = ${name}`)
  return row?.state
}

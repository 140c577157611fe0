/** One limit, many connections: what is admitted in all, and that nobody waits for anybody for ever. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import { PostgresRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/postgresRateLimits.ts'
import type {
  Algorithm,
  RateLimitQuestion,
  RateLimitWindow,
} from '../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'

const hour = 3_600_000
const algorithms: Algorithm[] = ['gcra', 'fixed', 'sliding']

function windowOf(algorithm: Algorithm, quota = 100): RateLimitWindow {
  return { name: `${algorithm}-${quota}`, algorithm, quota, windowMs: hour, burst: quota }
}

/** Calls from all stores at once, each waiting for its answer before its next; gives how many were admitted. */
async function hammer(
  stores: PostgresRateLimitStore[],
  question: RateLimitQuestion,
  calls: number,
): Promise<number> {
  const admitted = await Promise.all(stores.flatMap((store) =>
    [1, 2].map(async () => {
      let admitted = 0
      for (let call = 0; call < calls; call++) admitted += (await store.decide([question]))[0]!.admitted
      return admitted
    })
  ))
  return admitted.reduce((sum, n) => sum + n)
}

onEachPostgres('a limit that many connections ask for', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let dbs: Db[]
  let stores: PostgresRateLimitStore[]

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    dbs = Array.from({ length: 8 }, (_, i) => createDb({ url: database.url, max: 1, prepare: i % 2 === 0 }))
    stores = dbs.map((db) => new PostgresRateLimitStore(db))
  })

  afterAll(async () => {
    await Promise.all(dbs.map((db) => db.close()))
  })

  test.each(algorithms)('admits exactly its quota (%s)', async (algorithm) => {
    const question = {
      key: `quota|${algorithm}`,
      windows: [windowOf(algorithm)],
      cost: 1,
      count: 1,
      blockMs: 0,
    }
    expect(await hammer(stores, question, 20)).toBe(100)
  })

  test('admits exactly what its strictest window admits, and takes nothing else from the others', async () => {
    const windows = [windowOf('gcra', 500), windowOf('sliding', 60), windowOf('fixed', 300)]
    const question = { key: 'several', windows, cost: 3, count: 1, blockMs: 0 }
    expect(await hammer(stores, question, 10)).toBe(20)
    const [answer] = await stores[0]!.decide([{ ...question, count: 0 }])
    expect(answer!.windows.map(({ remaining }) => remaining)).toEqual([440, 0, 240])
  })

  test('counts anew when the table is truncated in between, and refuses nobody for it', async () => {
    const question = { key: 'truncated', windows: [windowOf('gcra')], cost: 1, count: 1, blockMs: 0 }
    expect(await hammer(stores, question, 15)).toBe(100)
    const [hammered] = await Promise.all([hammer(stores, question, 40), admin`truncate holdfast.rate_limits`])
    expect(hammered).toBe(100)
  })

  test('is never waited for in a circle, whatever keys are asked for together', async () => {
    const names = Array.from({ length: 30 }, (_, i) => `circle|${i}`)
    const mixed = [[windowOf('gcra', 1_000_000)], [windowOf('gcra', 40)], [
      windowOf('fixed', 500),
      windowOf('gcra'),
    ]]
    const purge = { over: false }
    const purging = (async () => {
      while (!purge.over) {
        await admin`update holdfast.rate_limits set forget_at = 1 where key = ${names[
          Math.floor(Math.random() * 30)
        ]!}`
        await admin`select holdfast.purge_rate_limits()`
      }
    })()
    const asks = stores.flatMap((store, nth) =>
      [0, 1].map(async () => {
        for (let round = 0; round < 25; round++) {
          const questions = names.toSorted(() => Math.random() - 0.5).slice(0, 15).map((key) => ({
            key,
            windows: mixed[Number(key.slice(7)) % 3]!,
            cost: 1,
            count: 1 + nth % 3,
            blockMs: 0,
          }))
          expect(await store.decide(questions)).toHaveLength(15)
        }
      })
    )
    const outcomes = await Promise.allSettled(asks)
    purge.over = true
    await purging
    expect(outcomes.filter(({ status }) => status === 'rejected')).toEqual([])
  })
})

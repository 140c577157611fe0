/** Eight processes take what they can get of one limit, with clocks that are a minute off. */
import { beforeAll, describe, expect, test } from 'vitest'
import { type FreshDatabase, freshDatabase } from '../support/database.ts'
import { closeAfterFile } from '../support/leftovers.ts'
import { startRedis } from '../support/redis.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'
import { hammer, type Hammering } from './support/limitProcess.ts'
import type { LimitTask } from './support/limitClient.ts'
import { quota } from './support/limitWork.ts'

const clockSkews = [60_000, -60_000, 0, 60_000, -60_000, 0, 60_000, -60_000]
const algorithms = ['gcra', 'fixed', 'sliding'] as const

/** All processes at one key of their own. */
function tasksOf(task: Pick<LimitTask, 'store' | 'url' | 'algorithm'> & Partial<LimitTask>): LimitTask[] {
  const key = crypto.randomUUID()
  return clockSkews.map((clockSkewMs) => ({ key, workers: 4, clockSkewMs, ...task }))
}

/** Hammers until each process has been refused many times, and says how many calls were admitted in the end. */
async function exhaust(hammering: Hammering): Promise<number> {
  await waitFor(() => hammering.admitted() >= quota, { what: 'the limit to be used up', timeoutMs: 15_000 })
    .catch(() => {})
  await hammering.goOn(60)
  await hammering.stop()
  return hammering.admitted()
}

describe('on PostgreSQL', () => {
  let database: FreshDatabase
  let admin: Sql

  beforeAll(async () => {
    database = await freshDatabase()
    admin = openSql(database.adminUrl)
  })

  test.each(algorithms)('of %s exactly 100 are admitted', async (algorithm) => {
    const hammering = await hammer(tasksOf({ store: 'postgres', url: database.url, algorithm }))
    expect(await exhaust(hammering)).toBe(quota)
    expect(hammering.tallies().filter(({ admitted }) => admitted > 0).length).toBeGreaterThan(1)
  }, 60_000)

  test('a table that is emptied half-way begins to count anew: at most 100 more', async () => {
    const hammering = await hammer(tasksOf({ store: 'postgres', url: database.url, algorithm: 'gcra' }))
    await waitFor(() => hammering.admitted() >= quota / 3, { what: 'a third of the limit to be used up' })
    await admin`truncate holdfast.rate_limits`
    const admitted = await exhaust(hammering)
    expect(admitted).toBeGreaterThan(quota)
    expect(admitted).toBeLessThanOrEqual(2 * quota)
  }, 60_000)

  test('tokens that are leased in advance are never more than there are', async () => {
    const lease = { tokens: 7, maxAgeMs: 10_000 }
    const hammering = await hammer(
      tasksOf({ store: 'postgres', url: database.url, algorithm: 'gcra', lease }),
    )
    expect(await exhaust(hammering)).toBe(quota)
  }, 60_000)
})

// Started here, since whether there is one decides what is described.
const redis = await startRedis()
if (redis !== undefined) closeAfterFile({ name: 'Redis', close: redis.stop })

describe.skipIf(redis === undefined)('on Redis (skipped where it is not installed, nor can it be)', () => {
  test.each(algorithms)('of %s exactly 100 are admitted', async (algorithm) => {
    const hammering = await hammer(tasksOf({ store: 'redis', url: redis!.url, algorithm }))
    expect(await exhaust(hammering)).toBe(quota)
    expect(hammering.tallies().filter(({ admitted }) => admitted > 0).length).toBeGreaterThan(1)
  }, 60_000)
})

/** Rate limits through a pooler in transaction mode, where connections change hands after each statement. */
import { afterAll, describe, expect, test } from 'vitest'
import { createDb } from '../../supabase/functions/_shared/db/client.ts'
import { PostgresRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/postgresRateLimits.ts'
import { freshDatabase } from '../support/database.ts'
import { startPooler } from '../support/pooler.ts'
import { algorithms, describeRateLimitStore, limitQuestion, limitWindow } from '../support/rateLimitStore.ts'

// Started here, since whether there is one decides what is described.
const database = await freshDatabase()
const pooler = await startPooler(database.url, 3)

describe.skipIf(pooler === undefined)(
  'PostgresRateLimitStore through PgBouncer (skipped where it is not installed, nor can it be)',
  () => {
    const dbs = Array.from({ length: 6 }, () => createDb({ url: pooler?.url ?? database.url, max: 2 }))
    const stores = dbs.map((db) => new PostgresRateLimitStore(db))

    afterAll(async () => {
      await Promise.all(dbs.map((db) => db.close()))
      await pooler!.close()
    })

    describeRateLimitStore(() => ({ store: stores[0]!, other: stores[1]! }))

    test.each(algorithms)('many isolates share its connections, and one limit (%s)', async (algorithm) => {
      const question = limitQuestion({ windows: [limitWindow({ algorithm, quota: 100 })], cost: 2 })
      const admitted = await Promise.all(stores.map(async (store) => {
        let admitted = 0
        for (let call = 0; call < 20; call++) admitted += (await store.decide([question]))[0]!.admitted
        return admitted
      }))
      expect(admitted.reduce((sum, n) => sum + n)).toBe(50)
    })
  },
)

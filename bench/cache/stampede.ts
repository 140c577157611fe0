/** A thousand who ask for the same value at the same time: how often it is loaded, in one isolate and in eight. */
import { LRUCache } from 'lru-cache'
import { createCache } from '../../supabase/functions/_shared/resilience/cache.ts'
import { createDb } from '../../supabase/functions/_shared/db/client.ts'
import { PostgresCacheStore } from '../../supabase/functions/_shared/resilience/stores/postgresCache.ts'
import { startDatabase } from '../support/database.ts'
import type { Bench, Measure } from '../support/suite.ts'

const name = 'stampede'
const callers = 1_000
const isolates = 8
const loadMs = 50

export const stampede: Measure = {
  name,
  async run(bench) {
    const { report } = bench
    const loads = {
      cache: await count((load) => {
        const cache = createCache<unknown>({ name: 'bench' })
        return () => cache.get('hot', load)
      }),
      'lru-cache fetch': await count((load) => {
        const lru = new LRUCache<string, object>({ max: 10, fetchMethod: load })
        return () => lru.fetch('hot')
      }),
    }
    for (const [subject, value] of Object.entries(loads)) {
      report.figure({ measure: name, subject, value, unit: 'loads' })
    }
    report.verdict({ measure: name, against: 'one load', ratio: loads.cache, aim: '<=1' })

    const measure = `${name}, ${isolates} isolates`
    const value = await countShared(bench)
    report.figure({ measure, subject: 'cache, shared tier', value, unit: 'loads' })
    report.verdict({ measure, against: 'one load', ratio: value, aim: '<=1' })
  },
}

async function count(open: (load: () => Promise<object>) => () => Promise<unknown>): Promise<number> {
  let loads = 0
  const get = open(async () => {
    loads++
    await new Promise((resolve) => setTimeout(resolve, loadMs))
    return {}
  })
  await Promise.all(Array.from({ length: callers }, get))
  return loads
}

/** Each isolate with a database client and a memory of its own. */
async function countShared(bench: Bench): Promise<number> {
  const database = await startDatabase(bench)
  return await count((load) => {
    const caches = Array.from({ length: isolates }, () => {
      const db = bench.resources.adopt(
        createDb({ url: database.url(), max: 1, connectTimeoutMs: 5_000 }),
        (db) => db.close(),
      )
      return createCache<unknown>({
        name: 'bench',
        shared: new PostgresCacheStore(db),
        sharedTimeoutMs: 10_000,
      })
    })
    let next = 0
    return () => caches[next++ % isolates]!.get('hot', load)
  })
}

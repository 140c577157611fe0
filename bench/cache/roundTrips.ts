/** The shared tier in round trips, counted on the wire: what a caller waits for, and what follows behind the answer. */
import { createDb } from '../../supabase/functions/_shared/db/client.ts'
import { type Cache, createCache } from '../../supabase/functions/_shared/resilience/cache.ts'
import { PostgresCacheStore } from '../../supabase/functions/_shared/resilience/stores/postgresCache.ts'
import { startWireProxy } from '../../tests/support/wireProxy.ts'
import { startDatabase } from '../support/database.ts'
import type { Measure } from '../support/suite.ts'

const name = 'round trips'
const keys = Array.from({ length: 100 }, (_, i) => `key ${i}`)

export const roundTrips: Measure = {
  name,
  async run(bench) {
    const { report, resources } = bench
    const database = await startDatabase(bench)
    const proxy = resources.adopt(startWireProxy({ target: database.url() }), (proxy) => proxy.close())
    const db = resources.adopt(createDb({ url: proxy.url }), (db) => db.close())
    await db.ping()
    /** A new isolate: nothing in memory. */
    const open = () => createCache<unknown>({ name: 'bench', shared: new PostgresCacheStore(db) })
    const trips = async (work: () => Promise<unknown>) => (await proxy.measure(work)).counts.roundTrips
    const tell = (subject: string, value: number, aim: number) => {
      const measure = `${name}, ${subject}`
      report.figure({ measure, subject: 'cache', value, unit: 'round trips' })
      report.verdict({ measure, against: 'count', ratio: value, aim: `<=${aim}` })
    }

    const first = open()
    // With the write that nobody waits for: `close` does.
    tell('cold', await trips(() => first.get('a', load).then(() => first.close())), 2)
    tell('warm in the shared tier', await trips(() => open().get('a', load)), 1)
    const local = open()
    await local.get('a', load)
    tell('warm in memory', await trips(() => local.get('a', load)), 0)
    const filling = open()
    await getAll(filling)
    await filling.close()
    tell('a hundred keys at once, warm in the shared tier', await trips(() => getAll(open())), 2)
    tell('invalidation', await trips(() => local.invalidate(keys)), 1)
  },
}

const load = () => ({ name: 'rope' })

async function getAll(cache: Cache<unknown>): Promise<void> {
  await Promise.all(keys.map((key) => cache.get(key, load)))
}

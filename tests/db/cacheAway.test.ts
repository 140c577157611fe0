/** resilience/cache.ts over a PostgreSQL that is lost, silent and back: no get is lost. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Cache, createCache } from '../../supabase/functions/_shared/resilience/cache.ts'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import { PostgresCacheStore } from '../../supabase/functions/_shared/resilience/stores/postgresCache.ts'
import { memoryLog } from '../support/caches.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { startPooler } from '../support/pooler.ts'
import { waitFor } from '../support/wait.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

onEachPostgres('a cache over PostgreSQL', (pg) => {
  let database: FreshDatabase
  let proxy: WireProxy
  let db: Db
  let otherDb: Db

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    proxy = startWireProxy({ target: database.url })
    db = createDb({ url: proxy.url, max: 2 })
    otherDb = createDb({ url: database.url, max: 2 })
  })

  afterAll(async () => {
    await Promise.all([db.close(), otherDb.close()])
    await proxy.close()
  })

  function setUp(name: string) {
    const { log, lines } = memoryLog()
    const options = { name, sharedTimeoutMs: 500, localTtlMs: 50, log }
    const here = createCache<number>({ ...options, shared: new PostgresCacheStore(db) })
    const there = createCache<number>({ ...options, shared: new PostgresCacheStore(otherDb) })
    let loads = 0
    const get = (cache: Cache<number>, key: string) => cache.get(key, () => ++loads, { tags: ['all'] })
    const levels = () => lines().map(({ level }) => level)
    let asked = 0
    const isBack = () =>
      waitFor(async () => {
        await get(here, `asked ${asked++}`)
        return levels().at(-1) === 'info'
      }, { what: 'the cache to find PostgreSQL again', timeoutMs: 10_000 })
    return { here, there, get, levels, isBack, loads: () => loads }
  }

  test('that is cut and refused answers every get, and shares again when it is back', async () => {
    const { here, there, get, levels, isBack } = setUp('cut')
    const first = await get(there, 'known')
    await there.close()
    expect(await get(here, 'known')).toBe(first)

    proxy.refuse(true)
    proxy.cut()
    const gets = await Promise.all(Array.from({ length: 50 }, (_, i) => get(here, `key ${i}`)))
    expect(new Set(gets).size).toBe(50)
    expect(await get(here, 'known')).toBe(first)
    expect(levels()).toEqual(['warn'])

    proxy.refuse(false)
    await isBack()
    const value = await get(here, 'loaded here')
    await here.close()
    expect(await get(there, 'loaded here')).toBe(value)
    expect(levels()).toEqual(['warn', 'info'])
    await Promise.all([here.close(), there.close()])
  })

  test('that swallows everything is waited for once, for half a second', async () => {
    const { here, get, levels, isBack } = setUp('frozen')
    await get(here, 'before')
    await here.close()
    proxy.freeze()
    const startedAt = performance.now()
    for (let i = 0; i < 20; i++) await get(here, `key ${i}`)
    const tookMs = performance.now() - startedAt
    proxy.thaw()
    expect(tookMs).toBeGreaterThan(490)
    expect(tookMs).toBeLessThan(1_500)
    expect(levels()).toEqual(['warn'])
    await isBack()
    await here.close()
  })

  test('that is away during an invalidation hears of it when it is back', async () => {
    const { here, there, get, levels, loads } = setUp('unheard')
    await get(there, 'a')
    await there.close()
    const old = await get(here, 'a')
    proxy.refuse(true)
    proxy.cut()
    expect(await here.invalidateTags('all')).toBe(false)
    expect(await get(here, 'a')).toBeGreaterThan(old)
    expect(await get(there, 'a')).toBe(old)
    proxy.refuse(false)
    await waitFor(() => levels().at(-1) === 'info', {
      what: 'the invalidation to be heard',
      timeoutMs: 10_000,
    })
    const before = loads()
    await waitFor(async () => await get(there, 'a') > before, { what: 'the other isolate to load anew' })
    await Promise.all([here.close(), there.close()])
  })

  test('lets others see an invalidation within localTtlMs and a trip, after each of a hundred changes', async () => {
    const { here, there } = setUp('changes')
    let truth = 0
    for (let change = 0; change < 100; change++) {
      const load = () => truth
      await Promise.all([here.get('a', load), there.get('a', load)])
      truth++
      await here.invalidate('a')
      const heardAt = performance.now()
      expect(await here.get('a', load)).toBe(truth)
      if (change % 10 > 0) continue
      while (await there.get('a', load) !== truth) {
        expect(performance.now() - heardAt).toBeLessThan(50 + 200)
      }
    }
    await Promise.all([here.close(), there.close()])
  })

  test('loads once for eight isolates, also through a pooler in transaction mode', async (context) => {
    const pooler = await startPooler(database.url, 2)
    if (pooler === undefined) return context.skip('PgBouncer is not installed')
    const dbs = Array.from({ length: 8 }, () => createDb({ url: pooler.url, max: 1 }))
    let loads = 0
    const caches = dbs.map((db) =>
      createCache<number>({ name: 'pooled', shared: new PostgresCacheStore(db), sharedTimeoutMs: 10_000 })
    )
    const values = await Promise.all(
      Array.from({ length: 400 }, (_, i) =>
        caches[i % 8]!.get('hot', async () => {
          await new Promise((resolve) => setTimeout(resolve, 30))
          return ++loads
        })),
    )
    expect(new Set(values)).toEqual(new Set([1]))
    await Promise.all(caches.map((cache) => cache.close()))
    await Promise.all(dbs.map((db) => db.close()))
    await pooler.close()
  })
})

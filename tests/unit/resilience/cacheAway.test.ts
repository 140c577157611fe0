/** resilience/cache.ts while its shared tier is away. */
import { describe, expect, test } from 'vitest'
import { counters } from '../../../supabase/functions/_shared/observability/metrics.ts'
import { type CacheOptions, createCache } from '../../../supabase/functions/_shared/resilience/cache.ts'
import { MemoryCacheStore } from '../../../supabase/functions/_shared/resilience/stores/memoryCache.ts'
import { FaultyStore, memoryLog, Source } from '../../support/caches.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

function setUp(options: Partial<CacheOptions<unknown>> = {}) {
  const timers = new FakeTimers()
  const source = new Source()
  const memory = new MemoryCacheStore({ timers })
  const { log, lines } = memoryLog()
  /** Each isolate has a way of its own to the store. */
  const open = () => {
    const store = new FaultyStore(memory)
    const cache = createCache<unknown>({
      name: 'away',
      ttlMs: 60_000,
      earlyRefresh: 0,
      shared: store,
      timers,
      log,
      ...options,
    })
    return { store, cache, get: (key = 'a', ...tags: string[]) => cache.get(key, source.load, { tags }) }
  }
  return { timers, source, lines, open, pass: (ms: number) => timers.advance(ms) }
}

const broken = new Error('connection refused')

describe('a shared tier that fails', () => {
  test('is gone on without: every get is answered, and it is said once for each outage', async () => {
    const { source, lines, open, pass } = setUp()
    const { store, cache, get } = open()
    const before = counters()['cache_shared_away_total{cache="away"}'] ?? 0
    store.failure = broken
    for (let i = 0; i < 20; i++) {
      expect(await get(`key ${i}`)).toBe('first')
      await pass(100)
    }
    expect(cache.stats()).toMatchObject({ loads: 20, failures: 0 })
    expect(source.loads).toBe(20)
    expect(lines()).toMatchObject([{ level: 'warn', message: /away/, cache: 'away' }].map((line) => ({
      ...line,
      message: expect.stringMatching(line.message),
    })))
    expect(counters()['cache_shared_away_total{cache="away"}']).toBe(before + 1)

    store.failure = undefined
    await pass(1_000)
    await get('it is looked for')
    await pass(0)
    expect(lines().map(({ level }) => level)).toEqual(['warn', 'info'])
    store.calls.length = 0
    await get('it is back')
    expect(store.calls).toEqual(['read', 'write'])

    store.failure = broken
    await get('the next outage')
    expect(lines().map(({ level }) => level)).toEqual(['warn', 'info', 'warn'])
  })

  test('is looked for once a second, behind the back of those who ask', async () => {
    const { open, pass } = setUp()
    const { store, get } = open()
    store.failure = broken
    await get('first')
    store.calls.length = 0
    for (let i = 0; i < 50; i++) {
      await get(`key ${i}`)
      await pass(100)
    }
    expect(store.calls).toEqual(Array(4).fill('read'))
  })

  test('leaves copies in memory to the end of their time, though not asked after', async () => {
    const { source, open, pass } = setUp({ localTtlMs: 1_000 })
    const { store, get } = open()
    await get()
    store.failure = broken
    await pass(59_999)
    expect(await get()).toBe('first')
    expect(source.loads).toBe(1)
  })

  test('does not bring back what it said was gone', async () => {
    const { source, open, pass } = setUp({ localTtlMs: 1_000 })
    const { store, get } = open()
    await get()
    await open().cache.invalidate('a')
    await pass(1_000)
    source.failure = new Error('broken')
    await expect(get()).rejects.toThrow('broken')
    store.failure = broken
    await expect(get()).rejects.toThrow('broken')
  })

  test('after the answer leaves the answer as it is', async () => {
    const { open } = setUp()
    const { store, cache, get } = open()
    const getting = get()
    store.calls.push = (...calls) => {
      if (calls.includes('write')) store.failure = broken
      return Array.prototype.push.apply(store.calls, calls)
    }
    expect(await getting).toBe('first')
    await cache.close()
    expect(await get()).toBe('first')
  })
})

describe('a shared tier that does not answer', () => {
  test('is waited for once, for sharedTimeoutMs', async () => {
    const { timers, source, open } = setUp({ sharedTimeoutMs: 300 })
    const { store, get } = open()
    store.gate = new Promise(() => {})
    const startedAt = timers.now()
    expect(await timers.settle(get('a'))).toBe('first')
    expect(timers.now() - startedAt).toBe(300)
    expect(await get('b')).toBe('first')
    expect(timers.now() - startedAt).toBe(300)
    expect(source.loads).toBe(2)
  })

  test('and gives a lease too late gets it back', async () => {
    const { timers, open, pass } = setUp({ sharedTimeoutMs: 300 })
    const { store, get } = open()
    const { promise, resolve } = Promise.withResolvers<void>()
    store.gate = promise
    await timers.settle(get())
    resolve()
    await pass(0)
    expect(store.calls).toContain('release')
    const other = open()
    await other.get()
    expect(other.cache.stats().loads).toBe(1)
  })
})

describe('an invalidation while the shared tier is away', () => {
  test('holds here at once, is told as false, and is heard there before anything is read again', async () => {
    const { source, open, pass } = setUp({ localTtlMs: 1_000 })
    const [here, there] = [open(), open()]
    await here.get('a')
    await here.get('b', 'red')
    source.value = 'second'
    here.store.failure = broken
    expect(await here.cache.invalidate('a')).toBe(false)
    expect(await here.cache.invalidateTags('red')).toBe(false)
    expect(await here.get('a')).toBe('second')
    expect(await there.get('a'), 'nobody has told it').toBe('first')
    here.store.failure = undefined
    await pass(2_000)
    expect(await there.get('a')).toBe('second')
    expect(await there.get('b', 'red')).toBe('second')
    expect(await here.get('b', 'red')).toBe('second')
  })

  test('reaches it without any further get, also after a long outage', async () => {
    const { source, open, pass, timers } = setUp()
    const [here, there] = [open(), open()]
    await here.get()
    source.value = 'second'
    here.store.failure = broken
    await here.cache.invalidate('a')
    await pass(30_000)
    here.store.failure = undefined
    await pass(1_500)
    expect(await there.get()).toBe('second')
    await pass(0)
    expect(timers.pending, 'nothing is looked for any more').toBe(0)
  })

  test('of more keys than are remembered becomes one of everything', async () => {
    const { source, open, pass } = setUp()
    const [here, there] = [open(), open()]
    await here.get('untouched')
    here.store.failure = broken
    await here.cache.invalidate(Array.from({ length: 1_001 }, (_, i) => `key ${i}`))
    here.store.failure = undefined
    await pass(1_500)
    source.value = 'second'
    expect(await there.get('untouched')).toBe('second')
    expect(here.store.calls.filter((call) => call === 'clear')).toHaveLength(1)
  })

  test('is given up with the cache: close() leaves no timer', async () => {
    const { open, timers } = setUp()
    const { store, cache } = open()
    store.failure = broken
    await cache.clear()
    expect(timers.pending).toBe(1)
    await cache.close()
    expect(timers.pending).toBe(0)
  })
})

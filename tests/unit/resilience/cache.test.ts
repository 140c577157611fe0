/** resilience/cache.ts in one isolate: hits, joined loads, failures, that there is none, versions, callers who leave. */
import { describe, expect, test } from 'vitest'
import { counters } from '../../../supabase/functions/_shared/observability/metrics.ts'
import { type CacheOptions, createCache } from '../../../supabase/functions/_shared/resilience/cache.ts'
import { Source } from '../../support/caches.ts'
import { countListeners, FakeTimers } from '../../support/fakeTimers.ts'

function setUp(options: Partial<CacheOptions<unknown>> = {}) {
  const timers = new FakeTimers()
  const source = new Source()
  const cache = createCache<unknown>({ name: 'things', ttlMs: 1_000, earlyRefresh: 0, timers, ...options })
  return { timers, source, cache, get: (key = 'a') => cache.get(key, source.load) }
}

describe('get()', () => {
  test('loads once and serves it for its time to live', async () => {
    const { timers, source, get } = setUp()
    expect(await get()).toBe('first')
    source.value = 'second'
    timers.jump(999)
    expect(await get()).toBe('first')
    expect(source.loads).toBe(1)
    timers.jump(1)
    expect(await get()).toBe('second')
    expect(source.loads).toBe(2)
  })

  test('keeps keys apart, the empty one and names of object members too', async () => {
    const { source, cache } = setUp()
    for (const key of ['a', '', '__proto__', 'constructor', 'A']) {
      source.value = `of ${key}`
      expect(await cache.get(key, source.load)).toBe(`of ${key}`)
    }
    expect(await cache.get('__proto__', source.load)).toBe('of __proto__')
    expect(source.loads).toBe(5)
  })

  test('takes a load that answers at once, or throws', async () => {
    const { cache } = setUp()
    expect(await cache.get('a', () => 1)).toBe(1)
    const failing = () => {
      throw new Error('broken')
    }
    await expect(cache.get('b', failing)).rejects.toThrow('broken')
  })

  test('takes the time to live of the call', async () => {
    const { timers, source, cache } = setUp()
    await cache.get('a', source.load, { ttlMs: 5_000 })
    timers.jump(4_999)
    await cache.get('a', source.load)
    expect(source.loads).toBe(1)
    timers.jump(1)
    await cache.get('a', source.load)
    expect(source.loads).toBe(2)
  })

  test.each([
    [{ key: 1 }, TypeError],
    [{ options: { ttlMs: 0 } }, RangeError],
    [{ options: { ttlMs: NaN } }, RangeError],
    [{ options: { tags: 'red' } }, TypeError],
    [{ options: { tags: [1] } }, TypeError],
  ])('rejects %j and loads nothing', async ({ key = 'a', options = {} }: Record<string, unknown>, error) => {
    const { source, cache } = setUp()
    await expect(cache.get(key as string, source.load, options as { ttlMs: number })).rejects.toThrow(error)
    expect(source.loads).toBe(0)
  })
})

describe('a load', () => {
  test('is one for a thousand who ask at the same time', async () => {
    const { source, cache, get } = setUp()
    source.hold()
    const gets = Array.from({ length: 1_000 }, () => get())
    source.open()
    expect(new Set(await Promise.all(gets))).toEqual(new Set(['first']))
    expect(source.loads).toBe(1)
    expect(cache.stats()).toMatchObject({ loads: 1, joined: 999, hits: 0, hitRate: 0 })
  })

  test('that fails fails all who wait for it, and is not kept', async () => {
    const { source, cache, get } = setUp()
    source.failure = new Error('broken')
    source.hold()
    const gets = Array.from({ length: 10 }, () => get())
    source.open()
    const results = await Promise.allSettled(gets)
    expect(results.map((result) => result.status === 'rejected' && result.reason)).toEqual(
      Array(10).fill(source.failure),
    )
    source.failure = undefined
    expect(await get()).toBe('first')
    expect(source.loads).toBe(2)
    expect(cache.stats()).toMatchObject({ failures: 10, loads: 1 })
  })

  test('that takes too long is given up, its signal aborted, and the next may try', async () => {
    const { timers, cache, get } = setUp({ loadTimeoutMs: 5_000 })
    let signal: AbortSignal | undefined
    const stuck = cache.get('a', (given) => {
      signal = given
      return new Promise(() => {})
    })
    const joined = get()
    const results = Promise.allSettled([stuck, joined])
    await timers.advance(5_000)
    expect(await results).toMatchObject(
      Array(2).fill({ status: 'rejected', reason: { code: 'UPSTREAM_TIMEOUT' } }),
    )
    expect(signal!.aborted).toBe(true)
    expect(await get()).toBe('first')
    expect(timers.pending).toBe(0)
  })

  test('of a key may ask for other keys', async () => {
    const { source, cache } = setUp()
    expect(await cache.get('a', async () => `${await cache.get('b', source.load)}!`)).toBe('first!')
  })
})

describe('a caller who leaves', () => {
  test('ends its own waiting alone, at once, with its reason', async () => {
    const { source, cache, get } = setUp()
    source.hold()
    const controller = new AbortController()
    const leaving = cache.get('a', source.load, { signal: controller.signal })
    const staying = get()
    controller.abort(new Error('gone'))
    await expect(leaving).rejects.toThrow('gone')
    source.open()
    expect(await staying).toBe('first')
    expect(source.loads).toBe(1)
  })

  test('has had no listener left where it did not leave', async () => {
    const { source, cache } = setUp()
    const { signal } = new AbortController()
    const listeners = countListeners(signal)
    await cache.get('a', source.load, { signal })
    source.failure = new Error('broken')
    await expect(cache.get('b', source.load, { signal })).rejects.toThrow('broken')
    expect(listeners()).toBe(0)
  })

  test('leaves a load that is kept, though nobody else waits for it', async () => {
    const { source, cache, get } = setUp()
    source.hold()
    const controller = new AbortController()
    const leaving = cache.get('a', source.load, { signal: controller.signal })
    await Promise.resolve()
    controller.abort()
    await expect(leaving).rejects.toMatchObject({ name: 'AbortError' })
    source.open()
    expect(await get()).toBe('first')
    expect(source.loads).toBe(1)
  })

  test('leaves nothing behind when the load then fails', async () => {
    const { source, cache, get } = setUp()
    source.failure = new Error('broken')
    source.hold()
    const controller = new AbortController()
    const leaving = cache.get('a', source.load, { signal: controller.signal })
    controller.abort()
    await expect(leaving).rejects.toMatchObject({ name: 'AbortError' })
    source.open()
    source.failure = undefined
    await expect.poll(() => get().catch(() => 'failed')).toBe('first')
  })

  test('had better not ask: neither a hit nor a load for it', async () => {
    const { source, cache, get } = setUp()
    const signal = AbortSignal.abort(new Error('gone'))
    await expect(cache.get('a', source.load, { signal })).rejects.toThrow('gone')
    expect(source.loads).toBe(0)
    await get()
    await expect(cache.get('a', source.load, { signal })).rejects.toThrow('gone')
  })
})

describe('that there is none', () => {
  test.each([[null], [undefined]])('is remembered, as %j, for its own time', async (none) => {
    const { timers, source, get } = setUp({ ttlMs: 60_000 })
    source.value = none
    expect(await get()).toBe(none)
    source.value = 'now there is one'
    timers.jump(4_999)
    expect(await get()).toBe(none)
    expect(source.loads).toBe(1)
    timers.jump(1)
    expect(await get()).toBe('now there is one')
  })

  test('is never remembered longer than what there is, and not at all where the option says 0', async () => {
    const short = setUp({ ttlMs: 100 })
    short.source.value = null
    await short.get()
    short.timers.jump(100)
    await short.get()
    expect(short.source.loads).toBe(2)

    const never = setUp({ negativeTtlMs: 0 })
    never.source.value = null
    await never.get()
    await never.get()
    expect(never.source.loads).toBe(2)
  })

  test.each([[0], [''], [false], [NaN]])('is not what %j says', async (value) => {
    const { timers, source, get } = setUp({ ttlMs: 60_000, negativeTtlMs: 1 })
    source.value = value
    await get()
    timers.jump(50_000)
    expect(await get()).toBe(value)
    expect(source.loads).toBe(1)
  })

  test('is not served behind its time', async () => {
    const { timers, source, get } = setUp({ staleMs: 60_000, staleIfErrorMs: 60_000, negativeTtlMs: 500 })
    source.value = null
    await get()
    timers.jump(500)
    source.failure = new Error('broken')
    await expect(get()).rejects.toThrow('broken')
  })
})

describe('a version', () => {
  test('that changes drops everything at once', async () => {
    let version = 'v1'
    const { source, cache, get } = setUp({ version: () => version })
    await get('a')
    await get('b')
    version = 'v2'
    source.value = 'second'
    expect(await get('a')).toBe('second')
    expect(await get('b')).toBe('second')
    expect(await get('a')).toBe('second')
    expect(source.loads).toBe(4)
    expect(cache.stats().entries).toBe(2)
  })

  test('of the call comes before that of the cache', async () => {
    const { source, cache } = setUp({ version: () => 'v1' })
    const get = (version?: string) => cache.get('a', source.load, { version })
    await get()
    await get('v1')
    expect(source.loads).toBe(1)
    await get('v2')
    expect(source.loads).toBe(2)
    await get('v2')
    expect(source.loads).toBe(2)
  })

  test('that changes during a load leaves its value to those who waited, and to nobody else', async () => {
    let version = 'v1'
    const { source, get } = setUp({ version: () => version })
    source.hold()
    const before = get()
    await Promise.resolve()
    version = 'v2'
    source.value = 'second'
    const after = get()
    source.open()
    expect(await Promise.all([before, after])).toEqual(['first', 'second'])
    expect(await get()).toBe('second')
    expect(source.loads).toBe(2)
  })

  test('is not replaced by a slower load of the one before', async () => {
    const { source, cache } = setUp()
    source.hold()
    const slow = cache.get('a', source.load, { version: 'v1' })
    const get = () => cache.get('a', () => 'second', { version: 'v2' })
    expect(await get()).toBe('second')
    source.open()
    expect(await slow).toBe('first')
    await get()
    expect(cache.stats()).toMatchObject({ loads: 2, hits: 1 })
  })

  test('that is known later drops what was loaded before', async () => {
    const versions: (string | undefined)[] = [undefined, undefined, 'v1']
    const { source, get } = setUp({ version: () => versions.shift() })
    await get()
    await get()
    expect(source.loads).toBe(1)
    await get()
    expect(source.loads).toBe(2)
  })

  test('that cannot be told rejects the get', async () => {
    const { get } = setUp({
      version: () => {
        throw new Error('no schema')
      },
    })
    await expect(get()).rejects.toThrow('no schema')
  })
})

test('stats() and the metrics count how each get was answered', async () => {
  const { timers, source, cache, get } = setUp({ name: 'counted', staleMs: 1_000, staleIfErrorMs: 5_000 })
  expect(cache.stats().hitRate).toBe(0)
  await get()
  await get()
  await get()
  timers.jump(1_500)
  await get()
  await cache.close()
  await get()
  timers.jump(3_000)
  source.failure = new Error('broken')
  await get()
  expect(cache.stats()).toEqual({
    hits: 2,
    staleHits: 1,
    sharedHits: 0,
    joined: 0,
    loads: 2,
    staleOnError: 1,
    failures: 0,
    refreshes: 1,
    refreshFailures: 0,
    evictions: 0,
    entries: 1,
    bytes: 0,
    hitRate: 4 / 6,
  })
  expect(counters()).toMatchObject({
    'cache_gets_total{cache="counted",outcome="hit"}': 2,
    'cache_gets_total{cache="counted",outcome="stale"}': 1,
    'cache_gets_total{cache="counted",outcome="loaded"}': 2,
    'cache_gets_total{cache="counted",outcome="stale_on_error"}': 1,
    'cache_refreshes_total{cache="counted"}': 1,
  })
})

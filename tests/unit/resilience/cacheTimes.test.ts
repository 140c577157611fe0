/** resilience/cache.ts: what is served behind its time, and what is loaded before it. */
import { describe, expect, test } from 'vitest'
import { type CacheOptions, createCache } from '../../../supabase/functions/_shared/resilience/cache.ts'
import { Source } from '../../support/caches.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

function setUp(options: Partial<CacheOptions<unknown>> = {}) {
  const timers = new FakeTimers()
  const source = new Source()
  const cache = createCache<unknown>({ name: 'things', ttlMs: 1_000, earlyRefresh: 0, timers, ...options })
  /** Time passes, with what is due and what runs in the background. */
  const pass = (ms: number) => timers.advance(ms)
  return { timers, source, cache, pass, get: (key = 'a') => cache.get(key, source.load) }
}

describe('stale-while-revalidate', () => {
  test('serves the old value at once, loads the new one in the background, once, and serves that next', async () => {
    const { source, cache, pass, get } = setUp({ staleMs: 500 })
    await get()
    await pass(1_000)
    source.value = 'second'
    source.hold()
    expect(await Promise.all([get(), get(), get()])).toEqual(['first', 'first', 'first'])
    source.open()
    await pass(0)
    expect(await get()).toBe('second')
    expect(source.loads).toBe(2)
    expect(cache.stats()).toMatchObject({ staleHits: 3, refreshes: 1, loads: 1, hits: 1 })
  })

  test('ends with its time: then every caller waits', async () => {
    const { source, pass, get } = setUp({ staleMs: 500 })
    await get()
    source.value = 'second'
    await pass(1_499)
    source.hold()
    expect(await get()).toBe('first')
    await pass(1)
    const late = get()
    source.open()
    expect(await late).toBe('second')
    expect(source.loads).toBe(2)
  })

  test('tries again after a second when loading in the background fails, not with every get', async () => {
    const { source, cache, pass, get } = setUp({ staleMs: 10_000 })
    await get()
    await pass(1_000)
    source.failure = new Error('broken')
    for (let i = 0; i < 20; i++) {
      expect(await get()).toBe('first')
      await pass(100)
    }
    expect(source.loads).toBe(3)
    expect(cache.stats()).toMatchObject({ refreshes: 2, refreshFailures: 2, staleHits: 20 })
  })
})

describe('stale-if-error', () => {
  test('serves the old value when loading fails, for its time, and asks again after a second', async () => {
    const { source, cache, pass, get } = setUp({ staleIfErrorMs: 5_000 })
    await get()
    await pass(1_000)
    source.failure = new Error('broken')
    expect(await get()).toBe('first')
    for (let i = 0; i < 10; i++) {
      await pass(100)
      expect(await get()).toBe('first')
    }
    expect(source.loads).toBe(3)
    await pass(3_900)
    expect(await get()).toBe('first')
    await pass(100)
    await expect(get()).rejects.toThrow('broken')
    expect(cache.stats()).toMatchObject({ staleOnError: 12, failures: 1 })
  })

  test('waits for the load while it may succeed', async () => {
    const { source, pass, get } = setUp({ staleIfErrorMs: 5_000 })
    await get()
    await pass(1_000)
    source.value = 'second'
    expect(await get()).toBe('second')
  })

  test('serves those who joined as well', async () => {
    const { source, pass, get } = setUp({ staleIfErrorMs: 5_000 })
    await get()
    await pass(1_000)
    source.failure = new Error('broken')
    source.hold()
    const gets = [get(), get()]
    source.open()
    expect(await Promise.all(gets)).toEqual(['first', 'first'])
  })

  test('serves nothing that was invalidated while it was loaded', async () => {
    const { source, cache, pass, get } = setUp({ staleIfErrorMs: 5_000 })
    await get()
    await pass(1_000)
    source.failure = new Error('broken')
    source.hold()
    const waiting = get()
    await pass(0)
    await cache.invalidate('a')
    source.open()
    await expect(waiting).rejects.toThrow('broken')
  })

  test('serves no value of another version', async () => {
    let version = 'v1'
    const { source, get } = setUp({ staleIfErrorMs: 5_000, version: () => version })
    await get()
    version = 'v2'
    source.failure = new Error('broken')
    await expect(get()).rejects.toThrow('broken')
  })
})

describe('early refresh', () => {
  test('loads in the background from a moment in the last part of the time on, so that nobody waits', async () => {
    // Half of the last fifth: from 900 ms on.
    const { source, cache, pass, get } = setUp({ earlyRefresh: 0.2, random: () => 0.5 })
    await get()
    source.value = 'second'
    await pass(899)
    expect(await get()).toBe('first')
    expect(source.loads).toBe(1)
    await pass(1)
    expect(await get()).toBe('first')
    expect(source.loads).toBe(2)
    await pass(0)
    expect(await get()).toBe('second')
    expect(cache.stats()).toMatchObject({ hits: 3, refreshes: 1, loads: 1 })
  })

  test('draws the moment once for each load, over the whole of that part', async () => {
    const moments = new Set<number>()
    let draws = 0
    const random = () => draws++ % 10 / 10
    const { source, pass, get } = setUp({ earlyRefresh: 0.5, random })
    for (let load = 1; load <= 10; load++) {
      await get()
      for (let ms = 0; source.loads === load; ms += 50) {
        await pass(50)
        await get()
        if (source.loads > load) moments.add(ms + 50)
      }
    }
    expect(Math.min(...moments)).toBeGreaterThanOrEqual(500)
    expect(Math.max(...moments)).toBeLessThanOrEqual(1_000)
    expect(moments.size).toBeGreaterThan(8)
  })

  test('that fails leaves the value to its end, and tries again after a second', async () => {
    const { source, pass, get } = setUp({ ttlMs: 10_000, earlyRefresh: 0.5, random: () => 0.99 })
    await get()
    source.failure = new Error('broken')
    await pass(6_000)
    for (let i = 0; i < 39; i++) {
      expect(await get()).toBe('first')
      await pass(100)
    }
    expect(source.loads).toBe(5)
    await pass(100)
    await expect(get()).rejects.toThrow('broken')
  })
})

test('a wall clock that is set back or forth changes nothing: time is monotonic', async () => {
  const cache = createCache<number>({ name: 'things', ttlMs: 60_000 })
  await cache.get('a', () => 1)
  const { now } = Date
  try {
    for (const shift of [-86_400_000, 86_400_000]) {
      Date.now = () => now() + shift
      expect(await cache.get('a', () => 2)).toBe(1)
    }
  } finally {
    Date.now = now
  }
})

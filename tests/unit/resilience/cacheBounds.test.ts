/** resilience/cache.ts: how much it keeps, and what goes first; options that make no sense. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type CacheOptions,
  createCache,
  ttlByVolatility,
} from '../../../supabase/functions/_shared/resilience/cache.ts'
import { CacheEntries } from '../../../supabase/functions/_shared/resilience/caching/cacheEntries.ts'
import { Entry } from '../../../supabase/functions/_shared/resilience/caching/cacheEntry.ts'
import { MemoryCacheStore } from '../../../supabase/functions/_shared/resilience/stores/memoryCache.ts'
import { memoryLog } from '../../support/caches.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

function setUp(options: Partial<CacheOptions<unknown>>) {
  const cache = createCache<unknown>({ name: 'things', timers: new FakeTimers(), ...options })
  let loads = 0
  /** Whether it was there. */
  const has = async (key: string, value: unknown = key) => {
    const before = loads
    await cache.get(key, () => {
      loads++
      return value
    })
    return loads === before
  }
  return { cache, has }
}

describe('the bound', () => {
  test('is never passed, and what was asked for again outlives what was asked for once', async () => {
    const { cache, has } = setUp({ maxEntries: 10 })
    for (let i = 0; i < 5; i++) {
      await has(`hot ${i}`)
      await has(`hot ${i}`)
    }
    for (let i = 0; i < 1_000; i++) {
      await has(`scanned ${i}`)
      await has(`hot ${i % 5}`)
      expect(cache.stats().entries).toBeLessThanOrEqual(10)
    }
    for (let i = 0; i < 5; i++) expect(await has(`hot ${i}`)).toBe(true)
    expect(cache.stats().evictions).toBe(995)
  })

  test('of one entry keeps the last', async () => {
    const { has } = setUp({ maxEntries: 1 })
    await has('a')
    expect(await has('a')).toBe(true)
    expect(await has('b')).toBe(false)
    expect(await has('b')).toBe(true)
    expect(await has('a')).toBe(false)
  })

  test('of bytes counts the JSON of the values, and keeps no value that is larger', async () => {
    const { cache, has } = setUp({ maxBytes: 100 })
    await has('a', 'x'.repeat(38))
    await has('b', 'x'.repeat(38))
    expect(cache.stats()).toMatchObject({ entries: 2, bytes: 80 })
    await has('c', 'x'.repeat(38))
    expect(cache.stats()).toMatchObject({ entries: 2, bytes: 80, evictions: 1 })
    expect(await has('large', 'x'.repeat(99))).toBe(false)
    expect(await has('large', 'x'.repeat(99))).toBe(false)
    expect(cache.stats()).toMatchObject({ entries: 2, bytes: 80, evictions: 1 })
  })

  test('of bytes keeps no value that JSON cannot measure, serves it all the same, and says so once', async () => {
    const { log, lines } = memoryLog()
    const { cache, has } = setUp({ maxBytes: 100, log })
    expect(await has('a', 1n)).toBe(false)
    expect(await has('a', 1n)).toBe(false)
    expect(await cache.get('b', () => 2n)).toBe(2n)
    expect(lines()).toMatchObject([{ level: 'error', cache: 'things' }])
  })
})

test('CacheEntries holds to its bounds and to its books, whatever happens', () => {
  const step = fc.record({
    what: fc.constantFrom('put', 'put', 'put', 'get', 'delete', 'tag', 'clear'),
    key: fc.integer({ min: 0, max: 12 }),
    size: fc.integer({ min: 0, max: 12 }),
  })
  fc.assert(fc.property(
    fc.array(step, { maxLength: 300 }),
    fc.integer({ min: 1, max: 6 }),
    fc.integer({ min: 1, max: 30 }),
    (steps, maxEntries, maxBytes) => {
      let evictions = 0
      const entries = new CacheEntries<number>({ maxEntries, maxBytes, onEvict: () => evictions++ })
      const model = new Map<string, Entry<number>>()
      for (const { what, key, size } of steps) {
        const name = `${key}`
        if (what === 'put') {
          const tags = [`tag ${key % 3}`]
          const times = { refreshAt: 0, localUntil: 0, freshUntil: 0, staleUntil: 0, errorUntil: 0 }
          const entry = new Entry(name, key, { version: undefined, tags, size, times })
          entries.put(entry)
          model.delete(name)
          if (size <= maxBytes) model.set(name, entry)
        } else if (what === 'get') {
          const entry = entries.get(name)
          if (entry !== undefined) entry.visited = true
        } else if (what === 'delete') {
          entries.delete(name)
          model.delete(name)
        } else if (what === 'tag') {
          entries.drop({ tags: [`tag ${key % 3}`] })
          for (const [known, { tags }] of model) if (tags.includes(`tag ${key % 3}`)) model.delete(known)
        } else {
          entries.drop({ all: true })
          model.clear()
        }
        // What was evicted is all that may be missing.
        const missing = [...model.keys()].filter((known) => entries.get(known) === undefined)
        expect(missing.length).toBe(evictions)
        for (const known of missing) model.delete(known)
        evictions = 0
        for (const [known, entry] of model) expect(entries.get(known)).toBe(entry)
        expect(entries.count).toBe(model.size)
        expect(entries.count).toBeLessThanOrEqual(maxEntries)
        expect(entries.bytes).toBe([...model.values()].reduce((sum, { size }) => sum + size, 0))
        expect(entries.bytes).toBeLessThanOrEqual(maxBytes)
      }
    },
  ))
})

describe('createCache()', () => {
  test.each(Object.entries(ttlByVolatility))('keeps what is %s for %i ms', async (volatility, ttlMs) => {
    const timers = new FakeTimers()
    const cache = createCache<number>({
      name: 'things',
      volatility: volatility as 'slow',
      earlyRefresh: 0,
      timers,
    })
    await cache.get('a', () => 1)
    timers.jump(ttlMs - 1)
    expect(await cache.get('a', () => 2)).toBe(1)
    timers.jump(1)
    expect(await cache.get('a', () => 2)).toBe(2)
  })

  const shared = new MemoryCacheStore()
  const bad: [string, object][] = [
    ...[undefined, '', 'a b', 'ä', 'x'.repeat(64), 7].map((name): [string, object] => [
      `name ${name}`,
      { name },
    ]),
    ['volatility often', { volatility: 'often' }],
    ['volatility toString', { volatility: 'toString' }],
    ['volatility and ttlMs', { volatility: 'slow', ttlMs: 5 }],
    ...['ttlMs', 'loadTimeoutMs', 'localTtlMs', 'leaseMs', 'sharedTimeoutMs'].flatMap((option) =>
      [0, -1, NaN, Infinity, 2 ** 31].map((value): [string, object] => [
        `${option} ${value}`,
        { shared, [option]: value },
      ])
    ),
    ...['staleMs', 'staleIfErrorMs', 'negativeTtlMs'].flatMap((option) =>
      [-1, NaN, Infinity, 2 ** 31].map((value): [string, object] => [`${option} ${value}`, {
        [option]: value,
      }])
    ),
    ...[-0.1, 1.1, NaN].map((earlyRefresh): [string, object] => [`earlyRefresh ${earlyRefresh}`, {
      earlyRefresh,
    }]),
    ...['maxEntries', 'maxBytes'].flatMap((option) =>
      [0, -1, 0.5, NaN, Infinity].map((value): [string, object] => [`${option} ${value}`, {
        [option]: value,
      }])
    ),
    ...['localTtlMs', 'leaseMs', 'sharedTimeoutMs', 'parse'].map((option): [string, object] => [
      `${option} without a shared tier`,
      { [option]: option === 'parse' ? Number : 1_000 },
    ]),
  ]

  test.each(bad)('refuses %s, and says what it was given', (_, options) => {
    const make = () => createCache({ name: 'things', ...options })
    expect(make).toThrow(/^Cannot make (a|the) cache/)
    expect(make).toThrow(expect.toSatisfy((error) => /^(Type|Range)Error$/.test(error.name)))
  })
})

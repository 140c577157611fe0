/** resilience/cache.ts: what is invalidated is not served any more, whatever is under way. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createCache } from '../../../supabase/functions/_shared/resilience/cache.ts'
import { MemoryCacheStore } from '../../../supabase/functions/_shared/resilience/stores/memoryCache.ts'
import { FaultyStore, Source } from '../../support/caches.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

function setUp(shared?: FaultyStore) {
  const timers = new FakeTimers()
  const source = new Source()
  const cache = createCache<unknown>({ name: 'things', ttlMs: 60_000, timers, shared })
  return {
    timers,
    source,
    cache,
    get: (key = 'a', ...tags: string[]) => cache.get(key, source.load, { tags }),
  }
}

describe.each(['invalidate()', 'invalidateTags()', 'clear()'])('%s', (name) => {
  const invalidate = (cache: ReturnType<typeof setUp>['cache']) =>
    name === 'clear()'
      ? cache.clear()
      : name === 'invalidate()'
      ? cache.invalidate(['a', 'z'])
      : cache.invalidateTags('red')

  test('drops what is kept', async () => {
    const { source, cache, get } = setUp()
    await get('a', 'red', 'blue')
    source.value = 'second'
    expect(await invalidate(cache)).toBe(true)
    expect(await get('a', 'red', 'blue')).toBe('second')
  })

  test('lets a load that runs serve those who waited, and nobody else', async () => {
    const { source, cache, get } = setUp()
    source.hold()
    const before = get('a', 'red')
    await Promise.resolve().then(() => {})
    await invalidate(cache)
    source.value = 'second'
    const after = get('a', 'red')
    source.open()
    expect(await Promise.all([before, after])).toEqual(['first', 'second'])
    expect(await get('a', 'red')).toBe('second')
    expect(source.loads).toBe(2)
  })

  test('is not undone by what this isolate reads from the shared tier before that has heard of it', async () => {
    const store = new FaultyStore(new MemoryCacheStore())
    const { source, cache, get } = setUp(store)
    await get('a', 'red')
    await expect.poll(() => store.calls).toContain('write')
    source.value = 'second'
    const { promise, resolve } = Promise.withResolvers<void>()
    store.gate = promise
    const invalidated = invalidate(cache)
    await expect.poll(() => store.calls.at(-1)).toMatch(/invalidate|clear/)
    store.gate = undefined
    expect(await get('a', 'red')).toBe('first')
    resolve()
    expect(await invalidated).toBe(true)
    expect(await get('a', 'red')).toBe('second')
    await cache.close()
  })
})

test('invalidate() and invalidateTags() leave the rest', async () => {
  const { source, cache, get } = setUp()
  await get('a', 'red')
  await get('b', 'blue')
  await get('c')
  await cache.invalidate('a')
  await cache.invalidateTags(['red', 'green'])
  await get('b')
  await get('c')
  expect(source.loads).toBe(3)
})

test.each([1, null, undefined, [1]])('%j names no key and no tag', async (given: unknown) => {
  const { cache } = setUp()
  await expect(cache.invalidate(given as string)).rejects.toThrow(TypeError)
  await expect(cache.invalidateTags(given as string)).rejects.toThrow(TypeError)
})

test('every value served is as new as the options promise, under any order of events', async () => {
  const key = fc.integer({ min: 0, max: 2 })
  const event = fc.oneof(
    { weight: 6, arbitrary: fc.record({ what: fc.constant('get' as const), key }) },
    {
      weight: 3,
      arbitrary: fc.record({ what: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 700 }) }),
    },
    { weight: 2, arbitrary: fc.record({ what: fc.constant('change' as const), key }) },
    { weight: 1, arbitrary: fc.record({ what: fc.constant('invalidate' as const), key }) },
    { weight: 1, arbitrary: fc.record({ what: fc.constant('invalidateTag' as const), key }) },
    {
      weight: 1,
      arbitrary: fc.record({ what: fc.constantFrom('hold' as const, 'open', 'fail', 'heal', 'version') }),
    },
  )
  const options = fc.record({
    staleMs: fc.constantFrom(0, 300),
    staleIfErrorMs: fc.constantFrom(0, 900),
    earlyRefresh: fc.constantFrom(0, 0.5),
    maxEntries: fc.constantFrom(2, 10),
  })
  await fc.assert(
    fc.asyncProperty(options, fc.array(event, { maxLength: 60 }), async (given, events) => {
      const ttlMs = 1_000
      const timers = new FakeTimers()
      let version = 1
      const cache = createCache<{ key: number; version: number; at: number; until: () => number }>({
        name: 'model',
        ttlMs,
        timers,
        version: () => `v${version}`,
        ...given,
      })
      /** When each value stopped being true, by key; a value knows its own. */
      const ends = new Map<number, { at: number }>()
      const invalidatedAt = new Map<number, number>()
      let order = 0
      let failing = false
      let gate: PromiseWithResolvers<void> | undefined
      const running = new Map<string, number>()
      const gets: Promise<void>[] = []

      const load = async (key: number) => {
        const id = `${key} ${version} ${invalidatedAt.get(key)}`
        expect(running.get(id) ?? 0, 'loads at the same time').toBe(0)
        running.set(id, 1)
        try {
          const end = ends.get(key) ?? { at: Infinity }
          ends.set(key, end)
          const value = { key, version, at: ++order, until: () => end.at }
          const fails = failing
          await gate?.promise
          if (fails) throw new Error('broken')
          // The time to live begins when the load ends.
          const loadedAt = timers.now()
          return { ...value, until: () => Math.max(end.at, loadedAt) }
        } finally {
          running.set(id, 0)
        }
      }

      for (const each of events) {
        if (each.what === 'get') {
          const askedAt = timers.now()
          const invalid = invalidatedAt.get(each.key) ?? 0
          const asked = version
          gets.push(
            cache.get(`${each.key}`, () => load(each.key), { tags: [`tag ${each.key}`] }).then((value) => {
              expect(value.key).toBe(each.key)
              expect(value.version, 'version').toBeGreaterThanOrEqual(asked)
              expect(value.at, 'loaded after the invalidation').toBeGreaterThan(invalid)
              const bound = ttlMs + Math.max(given.staleMs, given.staleIfErrorMs)
              expect(timers.now() - value.until(), 'staleness').toBeLessThanOrEqual(
                bound + timers.now() - askedAt,
              )
            }, (error) => {
              expect(error.message).toBe('broken')
            }),
          )
        }
        if (each.what === 'pass') await timers.advance(each.ms)
        if (each.what === 'change') {
          const end = ends.get(each.key)
          if (end !== undefined) end.at = timers.now()
          ends.delete(each.key)
        }
        if (each.what === 'invalidate') await cache.invalidate(`${each.key}`)
        if (each.what === 'invalidateTag') await cache.invalidateTags(`tag ${each.key}`)
        if (each.what === 'invalidate' || each.what === 'invalidateTag') invalidatedAt.set(each.key, ++order)
        if (each.what === 'hold') gate ??= Promise.withResolvers()
        if (each.what === 'open') {
          gate?.resolve()
          gate = undefined
        }
        if (each.what === 'fail' || each.what === 'heal') failing = each.what === 'fail'
        if (each.what === 'version') version++
        expect(cache.stats().entries).toBeLessThanOrEqual(given.maxEntries)
      }
      gate?.resolve()
      await timers.advance(0)
      await Promise.all(gets)
    }),
    { numRuns: 300 },
  )
})

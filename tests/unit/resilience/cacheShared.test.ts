/** resilience/cache.ts over a shared tier: several isolates, one source. */
import { describe, expect, test } from 'vitest'
import { counters } from '../../../supabase/functions/_shared/observability/metrics.ts'
import { type CacheOptions, createCache } from '../../../supabase/functions/_shared/resilience/cache.ts'
import { storedName } from '../../../supabase/functions/_shared/resilience/stores/cacheNames.ts'
import { MemoryCacheStore } from '../../../supabase/functions/_shared/resilience/stores/memoryCache.ts'
import { FaultyStore, memoryLog, Source } from '../../support/caches.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

function setUp(options: Partial<CacheOptions<unknown>> = {}) {
  const timers = new FakeTimers()
  const source = new Source()
  const store = new FaultyStore(new MemoryCacheStore({ timers }))
  const open = (own: Partial<CacheOptions<unknown>> = {}) =>
    createCache<unknown>({
      name: 'things',
      ttlMs: 60_000,
      earlyRefresh: 0,
      shared: store,
      timers,
      ...options,
      ...own,
    })
  /** Time passes, with what is due and what runs in the background. */
  const pass = (ms: number) => timers.advance(ms)
  return { timers, source, store, open, pass, load: source.load }
}

describe('a value that another isolate has loaded', () => {
  test('is not loaded again, and lives no longer than it would there', async () => {
    const { source, open, pass, load } = setUp()
    const [first, second] = [open(), open()]
    await first.get('a', load)
    await pass(40_000)
    expect(await second.get('a', load)).toBe('first')
    expect(second.stats()).toMatchObject({ sharedHits: 1, loads: 0, hitRate: 1 })
    source.value = 'second'
    await pass(19_999)
    expect(await second.get('a', load)).toBe('first')
    await pass(1)
    expect(await second.get('a', load)).toBe('second')
    expect(source.loads).toBe(2)
  })

  test('is served from memory for localTtlMs, and is then asked after, with one trip for all', async () => {
    const { store, open, pass, load } = setUp({ localTtlMs: 1_000 })
    const [first, second] = [open(), open()]
    await first.get('a', load)
    await second.get('a', load)
    store.calls.length = 0
    await pass(999)
    await second.get('a', load)
    expect(store.calls).toEqual([])
    await pass(1)
    await Promise.all([second.get('a', load), second.get('a', load)])
    await second.get('a', load)
    expect(store.calls).toEqual(['read'])
  })

  test.each(['invalidate', 'invalidateTags', 'clear'] as const)(
    'is gone within localTtlMs when a third calls %s',
    async (name) => {
      const { source, open, pass, load } = setUp({ localTtlMs: 1_000, staleIfErrorMs: 60_000 })
      const [first, second] = [open(), open()]
      await first.get('a', load, { tags: ['red'] })
      await second.get('a', load, { tags: ['red'] })
      source.value = 'second'
      const third = open()
      const heard = await {
        invalidate: () => third.invalidate('a'),
        invalidateTags: () => third.invalidateTags('red'),
        clear: () => third.clear(),
      }[name]()
      expect(heard).toBe(true)
      await pass(1_000)
      source.failure = new Error('broken')
      await expect(first.get('a', load), 'as little as on an error').rejects.toThrow('broken')
      source.failure = undefined
      expect(await first.get('a', load)).toBe('second')
      expect(await second.get('a', load)).toBe('second')
    },
  )

  test('is what JSON makes of it, in the isolate that has loaded it too', async () => {
    const { open } = setUp()
    const loaded = { at: new Date(0), left: undefined }
    for (const cache of [open(), open()]) {
      expect(await cache.get('a', () => loaded)).toEqual({ at: '1970-01-01T00:00:00.000Z' })
    }
  })

  test('is what parse makes of that', async () => {
    const { open } = setUp({ parse: (json) => new Date(json as string) })
    for (const cache of [open(), open()]) {
      expect(await cache.get('a', () => new Date(0))).toEqual(new Date(0))
    }
  })

  test.each([[null], [undefined]])('may be that there is none, as %j', async (none) => {
    const { source, open, pass, load } = setUp({ parse: (json) => (json as { id: number }).id })
    source.value = none
    const [first, second] = [open(), open()]
    expect(await first.get('a', load)).toBe(none)
    expect(await second.get('a', load)).toBe(none)
    expect(source.loads).toBe(1)
    await pass(5_000)
    await second.get('a', load)
    expect(source.loads).toBe(2)
  })

  test('is not served under another version, whose own load takes its place', async () => {
    const { source, open, load } = setUp()
    const [old, next] = [open({ version: () => 'v1' }), open({ version: () => 'v2' })]
    await old.get('a', load)
    source.value = 'second'
    expect(await next.get('a', load)).toBe('second')
    await next.close()
    expect(await open({ version: () => 'v2' }).get('a', load)).toBe('second')
    expect(source.loads).toBe(2)
  })
})

test('while the version is unknown the shared tier is left alone', async () => {
  const { source, store, open, load } = setUp({ version: () => undefined })
  await open().get('a', load)
  await open().get('a', load)
  expect(source.loads).toBe(2)
  expect(store.calls).toEqual([])
  await open().get('a', load, { version: 'v1' })
  expect(store.calls).toEqual(['read', 'write'])
})

describe('one of several isolates loads', () => {
  test('while the others wait for it', async () => {
    const { source, open, pass, load } = setUp()
    source.hold()
    const caches = Array.from({ length: 8 }, () => open())
    const gets = caches.flatMap((cache) => [cache.get('a', load), cache.get('a', load)])
    await pass(1_000)
    source.open()
    await pass(250)
    expect(await Promise.all(gets)).toEqual(Array(16).fill('first'))
    expect(source.loads).toBe(1)
  })

  test('and when it fails another does, one after the other', async () => {
    const { source, open, pass, load } = setUp()
    source.failure = new Error('broken')
    const gets = Array.from({ length: 4 }, () => open().get('a', load))
    const results = Promise.allSettled(gets)
    await pass(2_000)
    expect((await results).map(({ status }) => status)).toEqual(Array(4).fill('rejected'))
    expect(source.mostRunning).toBe(1)
  })

  test('and when it dies the others load after leaseMs', async () => {
    const { source, store, open, pass, load } = setUp({ leaseMs: 1_000 })
    const dead = store.read({
      cache: 'things',
      key: 'a',
      version: '',
      tags: [],
      refreshBelowMs: 0,
      leaseMs: 1_000,
    })
    expect((await dead).token).toBeDefined()
    const waiting = [open().get('a', load), open().get('a', load)]
    await pass(999)
    expect(source.loads).toBe(0)
    await pass(300)
    expect(await Promise.all(waiting)).toEqual(['first', 'first'])
    expect(await open().get('a', load)).toBe('first')
  })

  test('while the others serve what is stale', async () => {
    const { source, open, pass, load } = setUp({ staleMs: 10_000, localTtlMs: 1_000 })
    const [first, second] = [open(), open()]
    await first.get('a', load)
    await second.get('a', load)
    await pass(60_000)
    source.value = 'second'
    source.hold()
    expect(await first.get('a', load)).toBe('first')
    expect(await second.get('a', load)).toBe('first')
    expect(await open().get('a', load)).toBe('first')
    source.open()
    await pass(1_000)
    expect(await first.get('a', load)).toBe('second')
    expect(await second.get('a', load)).toBe('second')
    expect(source.loads).toBe(2)
  })

  test('early, in the background, and the others take what it has loaded', async () => {
    const { source, open, pass, load } = setUp({ earlyRefresh: 0.1, random: () => 0.5, localTtlMs: 30_000 })
    const [first, second] = [open(), open()]
    await first.get('a', load)
    await second.get('a', load)
    await pass(29_000)
    await Promise.all([first.get('a', load), second.get('a', load)])
    await pass(29_000)
    source.value = 'second'
    expect(await Promise.all([first.get('a', load), second.get('a', load)])).toEqual(['first', 'first'])
    await pass(1_000)
    expect(await first.get('a', load)).toBe('second')
    await second.get('a', load)
    await pass(0)
    expect(await second.get('a', load)).toBe('second')
    expect(source.loads).toBe(2)
  })

  test('and when that fails a new isolate serves what is stale as well', async () => {
    const { source, open, pass, load } = setUp({ staleIfErrorMs: 10_000 })
    await open().get('a', load)
    await pass(60_000)
    source.failure = new Error('broken')
    expect(await open().get('a', load)).toBe('first')
    await pass(10_000)
    await expect(open().get('a', load)).rejects.toThrow('broken')
  })
})

describe('an entry that is', () => {
  const write = async (store: FaultyStore, json: string, ttlMs = 60_000) => {
    const entry = { cache: 'things', key: 'a', version: '', tags: [] }
    const { token } = await store.read({ ...entry, refreshBelowMs: 0, leaseMs: 1_000 })
    expect(await store.write({ ...entry, token: token!, json, ttlMs, keepMs: 0 })).toBe(true)
  }

  test.each(['', '{', 'undefined', '{"id":'])(
    'broken, as %j, is absent: loaded and replaced',
    async (json) => {
      const { source, store, open, load } = setUp()
      await write(store, json)
      const cache = open()
      expect(await cache.get('a', load)).toBe('first')
      await cache.close()
      expect(await open().get('a', load)).toBe('first')
      expect(source.loads).toBe(1)
      expect(counters()['cache_broken_total{cache="things"}']).toBeGreaterThan(0)
    },
  )

  test('of a shape that an older deployment has written is absent', async () => {
    const parse = (json: unknown) => {
      const { id } = json as { id: unknown }
      if (typeof id !== 'number') throw new TypeError('no id')
      return { id }
    }
    const { source, store, open, load } = setUp({ parse })
    source.value = { id: 1 }
    await write(store, '{"id":"1"}')
    expect(await open().get('a', load)).toEqual({ id: 1 })
    expect(await open().get('a', load)).toEqual({ id: 1 })
    expect(source.loads).toBe(1)
  })

  test('broken does not keep a caller for longer than leaseMs while another isolate replaces it', async () => {
    const { source, store, open, pass, load } = setUp({ leaseMs: 1_000 })
    await write(store, '{')
    source.hold()
    const first = open().get('a', load)
    await pass(0)
    const second = open().get('a', load)
    await pass(999)
    expect(source.loads).toBe(1)
    await pass(500)
    expect(source.loads).toBe(2)
    source.open()
    expect(await Promise.all([first, second])).toEqual(['first', 'first'])
  })
})

test('a value that JSON cannot hold is served and stays in memory, said once', async () => {
  const { log, lines } = memoryLog()
  const { store, open } = setUp({ log })
  const cache = open()
  expect(await cache.get('a', () => 1n)).toBe(1n)
  expect(await cache.get('a', () => 2n)).toBe(1n)
  expect(await cache.get('b', () => Symbol.iterator)).toBe(Symbol.iterator)
  expect(store.calls).not.toContain('write')
  expect(lines()).toMatchObject([{ level: 'error', cache: 'things' }])
  expect(await open().get('a', () => 3n)).toBe(3n)
})

test('a value whose JSON is larger than a MiB stays in memory', async () => {
  const { store, open } = setUp()
  await open().get('a', () => 'x'.repeat(1_048_576))
  expect(store.calls).toEqual(['read', 'release'])
})

test('keys that a store cannot take stay apart', async () => {
  const names = ['', '\0', '\n', '\ud800', '\ud801', '\udc00', 'x'.repeat(256), 'x'.repeat(257), 'sha256:']
  const stored = await Promise.all([...names, await storedName('\0'), 'plain ☃'].map(storedName))
  expect(new Set(stored).size).toBe(names.length + 2)
  for (const name of stored.slice(0, -1)) expect(name).toMatch(/^sha256:[0-9a-f]{64}$/)
  expect(stored.at(-1)).toBe('plain ☃')

  const { open } = setUp()
  for (const cache of [open(), open()]) {
    for (const name of names) {
      expect(await cache.get(name, () => names.indexOf(name))).toBe(names.indexOf(name))
    }
    await cache.close()
  }
})

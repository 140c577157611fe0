/** What every store of shared cache entries must do: the shared suite. */
import { describe, expect, test } from 'vitest'
import type {
  CacheAnswer,
  CacheQuestion,
  CacheStore,
  CacheWrite,
} from '../../supabase/functions/_shared/resilience/stores/cacheStore.ts'

/** A store, and its time: leases and entries end when a test says so. */
export interface CacheStoreUnderTest {
  store: CacheStore
  /** A second isolate's view of the same entries; absent where there is none. */
  other?: CacheStore
  endLease(cache: string, key: string): Promise<void>
  /** Moves an entry so much nearer to its end. */
  age(cache: string, key: string, ms: number): Promise<void>
}

let count = 0

/** Another key at every call. */
export function question(given: Partial<CacheQuestion> = {}): CacheQuestion {
  return {
    cache: 'things',
    key: `key ${++count}`,
    version: 'v1',
    tags: [],
    refreshBelowMs: 0,
    leaseMs: 60_000,
    ...given,
  }
}

export function writeOf(
  { cache, key, version, tags }: CacheQuestion,
  token: number,
  given: Partial<CacheWrite> = {},
): CacheWrite {
  return { cache, key, version, tags, token, json: '{"a":1}', ttlMs: 60_000, keepMs: 0, ...given }
}

export function tokenOf(answer: CacheAnswer): number {
  expect(answer).toEqual({ entry: undefined, token: expect.any(Number), busy: false })
  return answer.token!
}

const absent: CacheAnswer = { entry: undefined, token: undefined, busy: false }
const busy: CacheAnswer = { entry: undefined, token: undefined, busy: true }
const fresh = (json: string | null = '{"a":1}'): CacheAnswer => ({
  entry: { json, freshMs: expect.closeTo(57_000, -4) },
  token: undefined,
  busy: false,
})

/** `open` is called for each test; what it opens is its caller's to close. */
export function describeCacheStore(open: () => CacheStoreUnderTest | Promise<CacheStoreUnderTest>): void {
  const look = { leaseMs: 0 }

  /** Loaded by whoever asks first. */
  async function stored(store: CacheStore, asked = question(), given: Partial<CacheWrite> = {}) {
    expect(await store.write(writeOf(asked, tokenOf(await store.read(asked)), given))).toBe(true)
    return asked
  }

  describe('read()', () => {
    test('gives one lease on what is absent, and is busy for all others', async () => {
      const { store, other = store } = await open()
      const asked = question()
      tokenOf(await store.read(asked))
      expect(await other.read(asked)).toEqual(busy)
      expect(await store.read(asked)).toEqual(busy)
    })

    test('gives one lease when a hundred ask at the same time', async () => {
      const { store, other = store } = await open()
      const asked = question()
      const answers = await Promise.all(
        Array.from({ length: 100 }, (_, i) => (i % 2 ? store : other).read(asked)),
      )
      expect(answers.filter(({ token }) => token !== undefined)).toHaveLength(1)
      expect(answers.filter(({ busy }) => busy)).toHaveLength(99)
    })

    test('answers many questions at the same time, each with its own', async () => {
      const { store, other = store } = await open()
      const asked = Array.from({ length: 60 }, () => question())
      await Promise.all(asked.map((each, i) => stored(store, each, { json: `${i}` })))
      const answers = await Promise.all(asked.toReversed().map((each) => other.read(each)))
      expect(answers.map(({ entry }) => entry!.json)).toEqual(asked.map((_, i) => `${i}`).toReversed())
    })

    test('only looks where no lease is wanted', async () => {
      const { store } = await open()
      const asked = question()
      expect(await store.read({ ...asked, ...look })).toEqual(absent)
      tokenOf(await store.read(asked))
      expect(await store.read({ ...asked, ...look })).toEqual(absent)
    })

    test('gives the lease to the next when it has ended', async () => {
      const { store, other = store, endLease } = await open()
      const asked = question()
      const first = tokenOf(await store.read(asked))
      await endLease(asked.cache, asked.key)
      expect(tokenOf(await other.read(asked))).toBeGreaterThan(first)
      expect(await store.read(asked)).toEqual(busy)
    })

    test('gives what is fresh to everybody, with the time that is left', async () => {
      const { store, other = store } = await open()
      const asked = await stored(store)
      expect(await store.read(asked)).toEqual(fresh())
      expect(await other.read(asked)).toEqual(fresh())
      expect((await other.read(asked)).entry!.freshMs).toBeLessThanOrEqual(60_000)
    })

    test('gives what is fresh, and one lease, to those who want to refresh it', async () => {
      const { store, other = store } = await open()
      const asked = await stored(store)
      const early = { ...asked, refreshBelowMs: 100_000 }
      expect(await store.read(early)).toEqual({ ...fresh(), token: expect.any(Number) })
      expect(await other.read(early)).toEqual({ ...fresh(), busy: true })
      expect(await other.read({ ...asked, refreshBelowMs: 1_000 })).toEqual(fresh())
      expect(await other.read(asked)).toEqual(fresh())
    })

    test('gives what is kept behind its time, below 0, and one lease', async () => {
      const { store, other = store, age } = await open()
      const asked = await stored(store, question(), { keepMs: 60_000 })
      await age(asked.cache, asked.key, 90_000)
      const stale = { json: '{"a":1}', freshMs: expect.closeTo(-30_000, -4) }
      expect(await store.read(asked)).toEqual({ entry: stale, token: expect.any(Number), busy: false })
      expect(await other.read(asked)).toEqual({ entry: stale, token: undefined, busy: true })
      expect(await other.read({ ...asked, ...look })).toEqual({
        entry: stale,
        token: undefined,
        busy: false,
      })
    })

    test('takes an entry for absent when its time is over', async () => {
      const { store, age } = await open()
      const asked = await stored(store, question(), { keepMs: 1_000 })
      await age(asked.cache, asked.key, 62_000)
      tokenOf(await store.read(asked))
    })

    test('takes an entry of another version for absent, and its lease for none', async () => {
      const { store, other = store } = await open()
      const asked = await stored(store)
      const next = { ...asked, version: 'v2' }
      expect(await store.read({ ...next, ...look })).toEqual(absent)
      const token = tokenOf(await store.read(next))
      expect(await other.read(next)).toEqual(busy)
      expect(await store.write(writeOf(next, token, { json: '2' }))).toBe(true)
      expect(await other.read(next)).toEqual(fresh('2'))
      expect(await other.read({ ...asked, ...look })).toEqual(absent)
    })

    test('keeps caches apart', async () => {
      const { store } = await open()
      const asked = await stored(store)
      tokenOf(await store.read({ ...asked, cache: 'others' }))
    })

    test.each(['', 'a:b', '{x}', 'snow ☃ \u{1D11E}', '\' " \\', '*', '%_', 'k'.repeat(255)])(
      'takes the key, tag and version %j for itself alone',
      async (name) => {
        const { store, other = store } = await open()
        const asked = question({ key: `${name}!`.slice(-255), version: name, tags: [`${name}?`.slice(-255)] })
        await store.clear(asked.cache)
        await stored(store, asked, { json: JSON.stringify(name) })
        const neighbour = question({ key: `${name}.`.slice(-255), tags: ['elsewhere'] })
        await stored(store, neighbour)
        expect(await other.read(asked)).toEqual(fresh(JSON.stringify(name)))
        await store.invalidateTags(asked.cache, asked.tags)
        expect(await other.read({ ...asked, ...look })).toEqual(absent)
        expect(await other.read(neighbour)).toEqual(fresh())
      },
    )
  })

  describe('write()', () => {
    test.each(['null', null, '""', '0', '"\\u0000 \\ud800 ☃"', `"${'x'.repeat(500_000)}"`])(
      'stores %.20s byte for byte',
      async (json) => {
        const { store, other = store } = await open()
        const asked = await stored(store, question(), { json })
        expect(await other.read(asked)).toEqual(fresh(json))
      },
    )

    test('is refused after an invalidation, also when another has the lease by then', async () => {
      const { store, other = store } = await open()
      const invalidations = [
        (asked: CacheQuestion) => other.invalidate(asked.cache, [asked.key]),
        (asked: CacheQuestion) => other.invalidateTags(asked.cache, ['tag']),
        (asked: CacheQuestion) => other.clear(asked.cache),
      ]
      for (const invalidate of invalidations) {
        const asked = question({ tags: ['tag'] })
        const slow = tokenOf(await store.read(asked))
        await invalidate(asked)
        expect(await store.write(writeOf(asked, slow, { json: '"old"' }))).toBe(false)
        const next = tokenOf(await other.read(asked))
        expect(await store.write(writeOf(asked, slow, { json: '"old"' }))).toBe(false)
        expect(await other.write(writeOf(asked, next, { json: '"new"' }))).toBe(true)
        expect(await store.write(writeOf(asked, slow, { json: '"old"' }))).toBe(false)
        expect(await store.read(asked)).toEqual(fresh('"new"'))
      }
    })

    test('is taken from a slow holder whose lease has ended, and then from the next, but not in the other order', async () => {
      const { store, other = store, endLease } = await open()
      for (const first of ['slow', 'next']) {
        const asked = question()
        const slow = tokenOf(await store.read(asked))
        await endLease(asked.cache, asked.key)
        const next = tokenOf(await other.read(asked))
        const writeSlow = () => store.write(writeOf(asked, slow, { json: '"slow"' }))
        const writeNext = () => other.write(writeOf(asked, next, { json: '"next"' }))
        if (first === 'slow') expect(await writeSlow()).toBe(true)
        expect(await writeNext()).toBe(true)
        if (first === 'next') expect(await writeSlow()).toBe(false)
        expect(await store.read(asked)).toEqual(fresh('"next"'))
      }
    })

    test('is refused where nobody gave a lease, and for another version', async () => {
      const { store } = await open()
      const asked = question()
      expect(await store.write(writeOf(asked, 1))).toBe(false)
      const token = tokenOf(await store.read(asked))
      await store.read({ ...asked, version: 'v2' })
      expect(await store.write(writeOf(asked, token))).toBe(false)
    })
  })

  describe('release()', () => {
    test('lets another load at once', async () => {
      const { store, other = store } = await open()
      const asked = question()
      const token = tokenOf(await store.read(asked))
      await store.release(asked.cache, asked.key, token)
      tokenOf(await other.read(asked))
    })

    test('does nothing to the lease of another', async () => {
      const { store, other = store, endLease } = await open()
      const asked = question()
      const slow = tokenOf(await store.read(asked))
      await endLease(asked.cache, asked.key)
      tokenOf(await other.read(asked))
      await store.release(asked.cache, asked.key, slow)
      await store.release(asked.cache, 'a key that nobody knows', slow)
      expect(await store.read(asked)).toEqual(busy)
    })
  })

  describe('invalidation', () => {
    test('by key takes these keys and no others', async () => {
      const { store, other = store } = await open()
      const [first, second, third] = [await stored(store), await stored(store), await stored(store)]
      await store.invalidate(first.cache, [first.key, third.key, 'a key that nobody knows'])
      expect(await other.read({ ...first, ...look })).toEqual(absent)
      expect(await other.read(second)).toEqual(fresh())
      expect(await other.read({ ...third, ...look })).toEqual(absent)
    })

    test('by tag takes all that have one of them, in this cache alone', async () => {
      const { store, other = store } = await open()
      const tagged = (tags: string[], cache = 'things') => stored(store, question({ tags, cache }))
      const red = await tagged(['red'])
      const both = await tagged(['red', 'blue'])
      const green = await tagged(['green'])
      const none = await tagged([])
      const elsewhere = await tagged(['red'], 'others')
      await store.invalidateTags('things', ['blue', 'red'])
      for (const gone of [red, both]) expect(await other.read({ ...gone, ...look })).toEqual(absent)
      for (const left of [green, none, elsewhere]) expect(await other.read(left)).toEqual(fresh())
    })

    test('by tag takes an entry under the tags it was stored with last', async () => {
      const { store } = await open()
      const asked = await stored(store, question({ tags: ['before'] }))
      const again = { ...asked, tags: ['after'], refreshBelowMs: 100_000 }
      const { token } = await store.read(again)
      expect(await store.write(writeOf(again, token!))).toBe(true)
      await store.invalidateTags(asked.cache, ['after'])
      expect(await store.read({ ...asked, ...look })).toEqual(absent)
    })

    test('of everything takes all of the cache and nothing else', async () => {
      const { store, other = store } = await open()
      const first = await stored(store)
      const second = await stored(store)
      const elsewhere = await stored(store, question({ cache: 'others' }))
      await store.clear('things')
      for (const gone of [first, second]) expect(await other.read({ ...gone, ...look })).toEqual(absent)
      expect(await other.read(elsewhere)).toEqual(fresh())
      tokenOf(await other.read(first))
    })

    test('of nothing is allowed', async () => {
      const { store } = await open()
      const asked = await stored(store)
      await store.invalidate(asked.cache, [])
      await store.invalidateTags(asked.cache, [])
      await store.invalidateTags(asked.cache, ['a tag that nobody knows'])
      expect(await store.read(asked)).toEqual(fresh())
    })
  })
}

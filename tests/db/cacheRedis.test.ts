/** Shared cache entries in a real Redis. */
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Cache, createCache } from '../../supabase/functions/_shared/resilience/cache.ts'
import { RedisCacheStore } from '../../supabase/functions/_shared/resilience/stores/redisCache.ts'
import { describeCacheStore, question, tokenOf, writeOf } from '../support/cacheStore.ts'
import { memoryLog } from '../support/caches.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'
import { waitFor } from '../support/wait.ts'

// Started here, since whether there is one decides what is described.
const redis = await startRedis()

describe.skipIf(redis === undefined)(
  'RedisCacheStore (skipped where Redis is not installed, nor can it be)',
  () => {
    const { url } = redis ?? {} as TestRedis
    let admin: Redis
    const opened: RedisCacheStore[] = []
    const open = (options = {}) => {
      const store = new RedisCacheStore({ url, prefix: 'test:', timeoutMs: 500, ...options })
      opened.push(store)
      return store
    }
    const keyOf = (cache: string, key: string) => `test:{${cache}}:entry:${key}`

    beforeAll(() => {
      admin = new Redis(url)
      admin.on('error', () => {})
    })

    afterAll(async () => {
      await Promise.all(opened.map((store) => store.close()))
      admin.disconnect()
      await redis!.stop()
    })

    describeCacheStore(() => ({
      store: open(),
      other: open(),
      endLease: async (cache, key) => void await admin.hset(keyOf(cache, key), 'until', 0),
      async age(cache, key, ms) {
        const [fresh, kept] = await admin.hmget(keyOf(cache, key), 'fresh', 'kept')
        await admin.hset(keyOf(cache, key), { fresh: Number(fresh) - ms, kept: Number(kept) - ms })
        await admin.pexpireat(keyOf(cache, key), Number(kept) - ms)
      },
    }))

    test('an entry leaves Redis by itself, with the tags that nothing else has', async () => {
      const store = open()
      const asked = question({ tags: ['leaving'] })
      await store.write(writeOf(asked, tokenOf(await store.read(asked)), { ttlMs: 60_000, keepMs: 30_000 }))
      for (const key of [keyOf(asked.cache, asked.key), `test:{${asked.cache}}:tag:leaving`]) {
        const leftMs = await admin.pttl(key)
        expect(leftMs).toBeGreaterThan(80_000)
        expect(leftMs).toBeLessThanOrEqual(90_000)
      }
    })

    test('a tag forgets entries whose time is over', async () => {
      const store = open()
      const tag = 'test:{things}:tag:busy'
      await admin.zadd(tag, 1, 'test:{things}:entry:gone')
      const asked = question({ tags: ['busy'] })
      await store.write(writeOf(asked, tokenOf(await store.read(asked))))
      expect(await admin.zrange(tag, '0', '-1')).toEqual([keyOf(asked.cache, asked.key)])
    })

    test('entries of another prefix are other entries', async () => {
      const asked = question()
      tokenOf(await open().read(asked))
      tokenOf(await open({ prefix: 'elsewhere:' }).read(asked))
    })

    test('what somebody else has put in the place of an entry is absent', async () => {
      const store = open()
      const asked = question()
      await admin.set(keyOf(asked.cache, asked.key), 'foreign')
      await store.write(writeOf(asked, tokenOf(await store.read(asked))))
      expect((await store.read(asked)).entry).toMatchObject({ json: '{"a":1}' })
      await admin.del(keyOf(asked.cache, asked.key))
      await admin.hset(keyOf(asked.cache, asked.key), { fresh: 'soon', kept: '', version: 'v1', value: '{' })
      tokenOf(await store.read(asked))
    })

    test('a generation that was evicted takes the entries with it', async () => {
      const store = open()
      const asked = question({ cache: 'evicted' })
      await store.write(writeOf(asked, tokenOf(await store.read(asked))))
      await admin.del('test:{evicted}:generation')
      tokenOf(await store.read(asked))
    })

    test('scripts that Redis has forgotten are sent again', async () => {
      const store = open()
      const asked = question()
      const token = tokenOf(await store.read(asked))
      await admin.script('FLUSH')
      expect(await store.write(writeOf(asked, token))).toBe(true)
    })

    test.each(['', 'postgres://here', 'localhost:6379'])('the URL %j is refused', (url) => {
      expect(() => new RedisCacheStore({ url })).toThrow(TypeError)
    })

    test.each([0, -1, 0.5, NaN, Infinity])('timeoutMs %d is refused', (timeoutMs) => {
      expect(() => new RedisCacheStore({ url, timeoutMs })).toThrow(RangeError)
    })

    test('a cache outlives a Redis that is killed and comes back empty: every get is answered', async () => {
      const { log, lines } = memoryLog()
      const options = { name: 'killed', sharedTimeoutMs: 500, localTtlMs: 50 }
      const here = createCache<number>({ ...options, shared: open(), log })
      const there = createCache<number>({ ...options, shared: open(), log: memoryLog().log })
      let loads = 0
      let next = 0
      const get = (cache: Cache<number>, key = `key ${next++}`) => cache.get(key, () => ++loads)
      await get(here, 'known')
      await here.close()
      expect(await get(there, 'known')).toBe(1)

      await redis!.stop()
      for (let i = 0; i < 50; i++) expect(await get(here)).toBeGreaterThan(0)
      expect(await get(there, 'known')).toBe(1)
      expect(lines().map(({ level }) => level)).toEqual(['warn'])

      await redis!.start()
      await waitFor(async () => {
        await get(here)
        return lines().at(-1)!.level === 'info'
      }, { what: 'the cache to find Redis again', timeoutMs: 10_000 })
      const loaded = await get(here, 'known')
      await here.close()
      await waitFor(async () => await get(there, 'another') > 0 && await get(there, 'known') === loaded, {
        what: 'the other isolate to share again',
        timeoutMs: 10_000,
      })
      await there.close()
    })
  },
)

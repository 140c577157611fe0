/** Rate limits in a real Redis. */
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type {
  RateLimitQuestion,
  RateLimitWindow,
} from '../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import { RedisRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/redisRateLimits.ts'
import { describeRateLimitStore } from '../support/rateLimitStore.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'

const hour = 3_600_000
const gcra: RateLimitWindow = { name: 'calls', algorithm: 'gcra', quota: 10, windowMs: hour, burst: 10 }
const windows = [gcra]

let asked = 0

/** Another key at every call. */
function question(given: Partial<RateLimitQuestion> = {}): RateLimitQuestion {
  return { key: `calls|gcra:10/h|${++asked}`, windows, cost: 1, count: 1, blockMs: 0, ...given }
}

// Started here, since whether there is one decides what is described.
const redis = await startRedis()

describe.skipIf(redis === undefined)(
  'RedisRateLimitStore (skipped where Redis is not installed, nor can it be)',
  () => {
    const { url } = redis ?? {} as TestRedis
    let admin: Redis
    const opened: RedisRateLimitStore[] = []
    const open = (options = {}) => {
      const store = new RedisRateLimitStore({ url, prefix: 'test:', ...options })
      opened.push(store)
      return store
    }

    beforeAll(() => {
      admin = new Redis(url)
      admin.on('error', () => {})
    })

    afterAll(async () => {
      await Promise.all(opened.map((store) => store.close()))
      admin.disconnect()
      await redis!.stop()
    })

    describeRateLimitStore(() => ({ store: open(), other: open() }))

    test.each(['gcra', 'fixed', 'sliding'] as const)(
      'eight isolates that ask at once are admitted exactly the quota (%s)',
      async (algorithm) => {
        const shared = question({ windows: [{ ...gcra, algorithm, quota: 100, burst: 100 }] })
        const stores = Array.from({ length: 8 }, () => open())
        const admitted = await Promise.all(stores.map(async (store) => {
          let admitted = 0
          for (let call = 0; call < 30; call++) admitted += (await store.decide([shared]))[0]!.admitted
          return admitted
        }))
        expect(admitted.reduce((sum, n) => sum + n)).toBe(100)
      },
    )

    test('questions for many keys, on different terms, are answered in their order', async () => {
      const store = open()
      const twice = question()
      const answers = await store.decide([
        question({ count: 12 }),
        twice,
        question({
          windows: [gcra, { ...gcra, name: 'fixed', algorithm: 'fixed', quota: 5, burst: 5 }],
          count: 8,
        }),
        { ...twice, cost: 4 },
        { ...twice, count: 0 },
        question({ cost: 2 }),
      ])
      expect(answers.map(({ admitted, windows }) => [admitted, ...windows.map(({ remaining }) => remaining)]))
        .toEqual([[10, 0], [1, 9], [5, 5, 0], [1, 5], [0, 5], [1, 8]])
    })

    test('calls merged into one question are told what was left after each of them', async () => {
      const store = open()
      const hot = question()
      const answers = await Promise.all(Array.from({ length: 12 }, () => store.decide([hot])))
      expect(answers.map(([answer]) => answer!.windows[0]!.remaining)).toEqual(
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0],
      )
    })

    test('a key leaves Redis by itself, when nothing is counted and it is not blocked any more', async () => {
      const store = open()
      const [counted, blocked] = [question(), question()]
      await store.decide([counted])
      const leftMs = await admin.pttl(`test:${counted.key}`)
      expect(leftMs).toBeGreaterThan(350_000)
      expect(leftMs).toBeLessThanOrEqual(360_000)
      await store.decide([blocked])
      await store.block(blocked.key, hour)
      expect(await admin.pttl(`test:${blocked.key}`)).toBeGreaterThan(3_590_000)
      await store.block(blocked.key, 0)
      expect((await store.decide([blocked]))[0]).toMatchObject({ admitted: 1, windows: [{ remaining: 8 }] })
    })

    test('a refused call writes nothing', async () => {
      const store = open()
      await store.decide([question({ key: 'refused', count: 10 })])
      const before = await admin.get('test:refused')
      expect((await store.decide([question({ key: 'refused' })]))[0]!.admitted).toBe(0)
      expect(await admin.get('test:refused')).toBe(before)
    })

    test('a store with another prefix counts by itself', async () => {
      const shared = question({ count: 10 })
      await open().decide([shared])
      expect((await open({ prefix: 'elsewhere:' }).decide([shared]))[0]!.admitted).toBe(10)
    })

    test('a question that makes no sense is refused before it is sent, and harms nobody', async () => {
      const store = open()
      const asks = [
        store.decide([question()]),
        store.decide([question({ cost: 0 })]),
        store.decide([question()]),
      ]
      expect((await Promise.allSettled(asks)).map(({ status }) => status))
        .toEqual(['fulfilled', 'rejected', 'fulfilled'])
      await expect(asks[1]).rejects.toThrow(RangeError)
      await expect(store.block('key', NaN)).rejects.toThrow(RangeError)
      await expect(store.reset('')).rejects.toThrow(TypeError)
    })

    test('scripts that Redis has forgotten are sent again', async () => {
      const store = open()
      const { key } = question()
      await store.decide([question({ key })])
      await admin.script('FLUSH')
      expect((await store.decide([question({ key })]))[0]!.windows[0]!.remaining).toBe(8)
      await admin.script('FLUSH')
      await store.block(key, 1_000)
      expect((await store.decide([question({ key })]))[0]).toMatchObject({ admitted: 0 })
    })

    test('a Redis that is away is SERVICE_UNAVAILABLE within its time, and found again, counting anew', async () => {
      const store = open({ timeoutMs: 500 })
      const shared = question()
      await store.decide([shared])
      await redis!.stop()
      const away = { code: 'SERVICE_UNAVAILABLE', retryAfterMs: 1_000 }
      await expect(store.decide([shared])).rejects.toMatchObject(away)
      await expect(store.penalize(shared)).rejects.toMatchObject(away)
      await expect(open({ timeoutMs: 500 }).decide([shared])).rejects.toMatchObject(away)
      await redis!.start()
      const answered = () => store.decide([shared]).then(([answer]) => answer, () => undefined)
      await expect.poll(answered, { timeout: 10_000 }).toMatchObject({
        admitted: 1,
        windows: [{ remaining: 9 }],
      })
    })

    test.each(['', 'postgres://here', 'localhost:6379'])('the URL %j is refused', (url) => {
      expect(() => new RedisRateLimitStore({ url })).toThrow(TypeError)
    })

    test.each([0, -1, 0.5, NaN, Infinity])('timeoutMs %d is refused', (timeoutMs) => {
      expect(() => new RedisRateLimitStore({ url, timeoutMs })).toThrow(RangeError)
    })
  },
)

/** Idempotency keys in a real Redis. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Redis } from 'ioredis'
import { RedisIdempotencyStore } from '../../supabase/functions/_shared/resilience/stores/redis.ts'
import { answer, claimed, describeStore, newRequest } from '../support/idempotencyStore.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'

const lease = { leaseMs: 60_000 }
// Started here, since whether there is one decides what is described.
const redis = await startRedis()

describe.skipIf(redis === undefined)(
  'RedisIdempotencyStore (skipped where Redis is not installed, nor can it be)',
  () => {
    const { url } = redis ?? {} as TestRedis
    let admin: Redis
    const opened: RedisIdempotencyStore[] = []
    const open = (options = {}) => {
      const store = new RedisIdempotencyStore({ url, prefix: 'test:', ...options })
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

    describeStore(() => ({
      store: open(),
      other: open(),
      endLease: async ({ id }) => void await admin.hset(`test:${id}`, 'until', 0),
      expire: async ({ id }) => void await admin.pexpire(`test:${id}`, 0),
      timeToLive: ({ id }) => admin.pttl(`test:${id}`),
    }))

    test('a key leaves Redis by itself, with everything that belongs to it', async () => {
      const store = open()
      const request = newRequest()
      const { token } = claimed(await store.claim(request, lease))
      await store.complete(request, token, answer, 86_400_000)
      expect(await admin.keys(`*${request.id}*`)).toEqual([`test:${request.id}`])
      expect(await admin.pttl(`test:${request.id}`)).toBeGreaterThan(0)
    })

    test('keys of another prefix are other keys', async () => {
      const request = newRequest()
      await open().claim(request, lease)
      claimed(await open({ prefix: 'elsewhere:' }).claim(request, lease))
    })

    test('scripts that Redis has forgotten are sent again', async () => {
      const store = open()
      const request = newRequest()
      const { token } = claimed(await store.claim(request, lease))
      await admin.script('FLUSH')
      expect(await store.complete(request, token, answer, 1_000)).toBe(true)
    })

    test('a Redis that is away is SERVICE_UNAVAILABLE within its time, and found again when it is back', async () => {
      const store = open({ timeoutMs: 500 })
      await store.claim(newRequest(), lease)
      await redis!.stop()
      await expect(store.claim(newRequest(), lease)).rejects.toMatchObject({
        code: 'SERVICE_UNAVAILABLE',
        retryAfterMs: 1_000,
      })
      const fresh = open({ timeoutMs: 500 })
      await expect(fresh.claim(newRequest(), lease)).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
      await redis!.start()
      await expect.poll(() => store.claim(newRequest(), lease).catch(() => undefined), { timeout: 10_000 })
        .toMatchObject({ outcome: 'claimed' })
      await expect.poll(() => fresh.claim(newRequest(), lease).catch(() => undefined), { timeout: 10_000 })
        .toMatchObject({ outcome: 'claimed' })
    })

    test.each(['', 'postgres://here', 'localhost:6379'])('the URL %j is refused', (url) => {
      expect(() => new RedisIdempotencyStore({ url })).toThrow(TypeError)
    })

    test.each([0, -1, 0.5, NaN, Infinity])('timeoutMs %d is refused', (timeoutMs) => {
      expect(() => new RedisIdempotencyStore({ url, timeoutMs })).toThrow(RangeError)
    })
  },
)

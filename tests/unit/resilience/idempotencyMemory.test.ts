/** Idempotency keys in the memory of one isolate. */
import { describe, expect, test } from 'vitest'
import { MemoryIdempotencyStore } from '../../../supabase/functions/_shared/resilience/stores/memory.ts'
import { answer, claimed, describeStore, newRequest } from '../../support/idempotencyStore.ts'

const lease = { leaseMs: 60_000 }

describe('MemoryIdempotencyStore', () => {
  describeStore(() => {
    let time = 1_000_000
    const store = new MemoryIdempotencyStore({ now: () => time })
    return {
      store,
      endLease: () => Promise.resolve(void (time += 60_000)),
      expire: () => Promise.resolve(void (time += 2 * 86_400_000)),
      timeToLive: (request) => {
        const start = time
        for (let step = 2 ** 27; step >= 1; step /= 2) {
          time += step
          if (!store.has(request)) time -= step
        }
        const leftMs = time - start
        time = start
        return Promise.resolve(leftMs)
      },
    }
  })

  test('forgets the oldest answer when it is full, and keeps what runs', async () => {
    const store = new MemoryIdempotencyStore({ maxKeys: 3 })
    const [running, oldest, newer, newest] = Array.from({ length: 4 }, () => newRequest())
    await store.claim(running!, lease)
    for (const request of [oldest!, newer!]) {
      await store.complete(request, claimed(await store.claim(request, lease)).token, answer, 1_000)
    }
    claimed(await store.claim(newest!, lease))
    expect((await store.claim(running!, lease)).outcome).toBe('in_progress')
    expect(await store.claim(newer!, lease)).toEqual({ outcome: 'replay', answer })
    expect(store.has(oldest!)).toBe(false)
  })

  test('refuses a claim when all that fits is running', async () => {
    const store = new MemoryIdempotencyStore({ maxKeys: 1 })
    await store.claim(newRequest(), lease)
    await expect(store.claim(newRequest(), lease)).rejects.toMatchObject({
      code: 'SERVICE_UNAVAILABLE',
      retryAfterMs: 1_000,
    })
  })

  test('keeps its answer as it was stored, whatever is done to the one it was given or has given', async () => {
    const store = new MemoryIdempotencyStore()
    const request = newRequest()
    const given = structuredClone(answer)
    await store.complete(request, claimed(await store.claim(request, lease)).token, given, 1_000)
    given.body = 'changed'
    const replay = await store.claim(request, lease) as { answer: typeof answer }
    replay.answer.headers.length = 0
    expect(await store.claim(request, lease)).toEqual({ outcome: 'replay', answer })
  })

  test.each([0, -1, 1.5, NaN, Infinity])('refuses maxKeys %d', (maxKeys) => {
    expect(() => new MemoryIdempotencyStore({ maxKeys })).toThrow(RangeError)
  })
})

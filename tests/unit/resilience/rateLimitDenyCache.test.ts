/** Refusals that are repeated from memory. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DenyCache } from '../../../supabase/functions/_shared/resilience/limits/denyCache.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'
import { allowed, limitedFleet } from '../../support/remoteRateLimits.ts'

const minute = 60_000

describe('a refused key', () => {
  test('is refused again without asking, until its time is over', async () => {
    const { isolate, store, timers } = limitedFleet({ policy: '20/min', denyCacheMs: 5_000 })
    const limiter = isolate()
    expect(await allowed(limiter, 'ada', 21)).toBe(20)
    expect(store.trips).toBe(21)
    timers.jump(1_000)
    expect(await limiter.consume('ada')).toEqual({
      allowed: false,
      retryAfterMs: 2_000,
      windows: [{
        name: 'calls',
        quota: 20,
        windowMs: minute,
        remaining: 0,
        resetMs: 59_000,
        retryAfterMs: 2_000,
      }],
      violated: ['calls'],
      decidedBy: 'deny-cache',
    })
    expect(await allowed(limiter, 'ada', 1_000)).toBe(0)
    expect(store.trips).toBe(0)
    timers.jump(2_000)
    expect(await allowed(limiter, 'ada', 1)).toBe(1)
    expect(store.trips).toBe(1)
  })

  test('is asked for again after denyCacheMs: so long a reset elsewhere is not seen', async () => {
    const { isolate, store, timers } = limitedFleet({ policy: '1/h', denyCacheMs: 5_000 })
    const [limiter, another] = [isolate(), isolate()]
    await allowed(limiter, 'ada', 2)
    await another.reset('ada')
    expect(await allowed(another, 'ada', 1)).toBe(1)
    await another.reset('ada')
    timers.jump(4_999)
    expect(await allowed(limiter, 'ada', 1)).toBe(0)
    timers.jump(1)
    store.asked.length = 0
    expect(await allowed(limiter, 'ada', 1)).toBe(1)
    expect(store.trips).toBe(1)
  })

  test('is asked for a call that wants less than the refused one', async () => {
    const { isolate, store } = limitedFleet()
    const limiter = isolate()
    await limiter.consume('ada', { cost: 8 })
    expect(await limiter.consume('ada', { cost: 5 })).toMatchObject({ allowed: false, decidedBy: 'store' })
    store.asked.length = 0
    expect(await limiter.consume('ada', { cost: 6 })).toMatchObject({
      allowed: false,
      decidedBy: 'deny-cache',
    })
    expect(await limiter.consume('ada', { cost: 2 })).toMatchObject({ allowed: true, decidedBy: 'store' })
    expect(store.trips).toBe(1)
  })

  test('is refused whatever it wants while it is blocked', async () => {
    const { isolate, store } = limitedFleet()
    const limiter = isolate()
    await limiter.block('ada', minute)
    await limiter.consume('ada', { cost: 9 })
    store.asked.length = 0
    expect(await limiter.consume('ada', { cost: 1 })).toMatchObject({
      allowed: false,
      decidedBy: 'deny-cache',
    })
    expect(store.trips).toBe(0)
  })

  test('is always asked for with denyCacheMs 0', async () => {
    const { isolate, store } = limitedFleet({ policy: '1/h', denyCacheMs: 0 })
    expect(await allowed(isolate(), 'ada', 20)).toBe(1)
    expect(store.trips).toBe(20)
  })

  test('is known by denied(), which asks nobody', async () => {
    const { isolate, store } = limitedFleet({ policy: '1/h' })
    const limiter = isolate()
    expect(limiter.denied('ada')).toBeUndefined()
    await allowed(limiter, 'ada', 2)
    store.asked.length = 0
    expect(limiter.denied('ada')).toMatchObject({ allowed: false, decidedBy: 'deny-cache' })
    expect(limiter.denied('bob')).toBeUndefined()
    expect(store.trips).toBe(0)
  })

  test('is remembered from an answer that came with its question', async () => {
    const { isolate, store } = limitedFleet({ policy: '1/h' })
    const limiter = isolate()
    const question = limiter.questionOf('ada')
    const [answer] = await store.decide([{ ...question, count: 3 }])
    expect([0, 1].map((index) => limiter.decisionOf(answer!, index, question).allowed)).toEqual([true, false])
    expect(limiter.denied('ada')).toMatchObject({ allowed: false })
  })
})

describe('a limiter with a deny cache', () => {
  test('decides as one without, whatever is called and whenever', async () => {
    const steps = fc.array(
      fc.record({
        isolate: fc.integer({ min: 0, max: 1 }),
        key: fc.constantFrom('ada', 'bob'),
        cost: fc.integer({ min: 1, max: 6 }),
        afterMs: fc.constantFrom(0, 0, 1, 500, 1_000, 7_000),
      }),
      { maxLength: 60 },
    )
    const algorithm = fc.constantFrom('gcra' as const, 'fixed' as const, 'sliding' as const)
    await fc.assert(
      fc.asyncProperty(steps, algorithm, async (steps, algorithm) => {
        const outcomes = []
        for (const denyCacheMs of [0, 5_000]) {
          const { isolate, timers } = limitedFleet({ policy: ['6/s', '10/min'], algorithm, denyCacheMs })
          const isolates = [isolate(), isolate()]
          const given = []
          for (const { isolate, key, cost, afterMs } of steps) {
            timers.jump(afterMs)
            const { allowed, retryAfterMs } = await isolates[isolate]!.consume(key, { cost })
            given.push({ allowed, retryAfterMs: allowed ? 0 : Math.sign(retryAfterMs) })
          }
          outcomes.push(given)
        }
        expect(outcomes[1]).toEqual(outcomes[0])
      }),
    )
  })
})

describe('DenyCache', () => {
  test('keeps no more keys than it may, the latest ones', () => {
    const timers = new FakeTimers()
    const cache = new DenyCache({ maxAgeMs: 1_000, maxKeys: 3, timers })
    const answer = { admitted: 0, windows: [{ remaining: 0, resetMs: 900, retryAfterMs: 900 }], blockedMs: 0 }
    for (const key of ['a', 'b', 'c', 'a', 'd']) cache.note(key, 1, answer)
    expect(cache.size).toBe(3)
    expect(['a', 'b', 'c', 'd'].map((key) => cache.find(key, 1) !== undefined)).toEqual([
      true,
      false,
      true,
      true,
    ])
    timers.jump(900)
    expect(cache.find('a', 1)).toBeUndefined()
    expect(cache.size).toBe(2)
  })

  test('remembers no answer after which the next call may pass', () => {
    const cache = new DenyCache({ maxAgeMs: 1_000, timers: new FakeTimers() })
    cache.note('a', 1, {
      admitted: 1,
      windows: [{ remaining: 1, resetMs: 900, retryAfterMs: 0 }],
      blockedMs: 0,
    })
    expect(cache.size).toBe(0)
  })
})

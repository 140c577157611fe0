/** A limiter whose store is away: what it says meanwhile, and how it comes back. */
import { describe, expect, test } from 'vitest'
import { counters } from '../../../supabase/functions/_shared/observability/metrics.ts'
import { createRateLimiter, refusalOf } from '../../../supabase/functions/_shared/resilience/rateLimit.ts'
import { allowed, limitedFleet } from '../../support/remoteRateLimits.ts'

const away = 'the store of rate limits is away, this isolate decides alone'

describe("onUnavailable 'local'", () => {
  test('grants this isolate its share of the quota, and says so', async () => {
    const { isolate, store, timers } = limitedFleet({ policy: ['100/min', '9/s'] })
    store.state = 'away'
    const limiter = isolate({ policy: '100/min' })
    expect(await limiter.consume('ada')).toEqual({
      allowed: true,
      retryAfterMs: 0,
      windows: [{
        name: 'calls',
        quota: 25,
        windowMs: 60_000,
        remaining: 24,
        resetMs: 2_400,
        retryAfterMs: 0,
      }],
      violated: [],
      decidedBy: 'local',
    })
    expect(await allowed(limiter, 'ada', 99)).toBe(24)
    expect(await limiter.consume('ada')).toMatchObject({
      allowed: false,
      retryAfterMs: 2_400,
      decidedBy: 'local',
    })
    timers.jump(2_400)
    expect(await allowed(limiter, 'ada', 99)).toBe(1)
  })

  test.each([[0.5, 5], [1, 10], [0.01, 1]])(
    'grants with localShare %s of ten calls %s',
    async (localShare, calls) => {
      const { isolate, store } = limitedFleet({ localShare })
      store.state = 'away'
      expect(await allowed(isolate(), 'ada', 50)).toBe(calls)
    },
  )

  test('lets a call that costs more than the share take all of it', async () => {
    const { isolate, store } = limitedFleet({ policy: '100/min' })
    store.state = 'away'
    const limiter = isolate()
    expect(await limiter.consume('ada', { cost: 80 })).toMatchObject({
      allowed: true,
      windows: [{ remaining: 0 }],
    })
    expect(await limiter.consume('ada', { cost: 80 })).toMatchObject({ allowed: false })
    expect(await limiter.consume('ada', { cost: 1 })).toMatchObject({ allowed: false })
  })

  test('counts penalties and blocks of this isolate, and looks without taking', async () => {
    const { isolate, store } = limitedFleet({ policy: '100/min' })
    store.state = 'away'
    const limiter = isolate()
    expect(await limiter.peek('ada')).toMatchObject({
      allowed: true,
      decidedBy: 'local',
      windows: [{ remaining: 25 }],
    })
    expect(await limiter.penalize('ada', 1)).toMatchObject({ allowed: true, windows: [{ remaining: 24 }] })
    expect(await limiter.penalize('ada', 30)).toMatchObject({ allowed: false, decidedBy: 'local' })
    expect(await allowed(limiter, 'ada', 1)).toBe(0)
    await expect(limiter.block('bob', 60_000)).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
    expect(await limiter.consume('bob')).toMatchObject({ allowed: false, retryAfterMs: 60_000 })
  })
})

describe("onUnavailable 'open'", () => {
  test('allows every call without counting', async () => {
    const { isolate, store } = limitedFleet({ onUnavailable: 'open' })
    store.state = 'away'
    const limiter = isolate()
    expect(await allowed(limiter, 'ada', 100)).toBe(100)
    expect(await limiter.consume('ada')).toMatchObject({
      allowed: true,
      decidedBy: 'unavailable',
      windows: [{ quota: 10, remaining: 10 }],
    })
  })
})

describe("onUnavailable 'closed'", () => {
  test('refuses every call with 503, and says when to come back', async () => {
    const { isolate, store } = limitedFleet({ onUnavailable: 'closed' })
    store.state = 'away'
    const limiter = isolate()
    const decision = await limiter.consume('ada')
    expect(decision).toMatchObject({ allowed: false, retryAfterMs: 1_000, violated: ['calls'] })
    expect(decision.decidedBy).toBe('unavailable')
    await expect(limiter.require('ada')).rejects.toMatchObject({
      code: 'SERVICE_UNAVAILABLE',
      status: 503,
      retryAfterMs: 1_000,
      details: { policies: ['calls'] },
    })
    expect(refusalOf(decision).status).toBe(503)
  })
})

describe('a store that is away', () => {
  test('is asked by one call each second, and by all when it is back', async () => {
    const { isolate, store, timers, lines } = limitedFleet({ policy: '100/min' })
    const limiter = isolate()
    await allowed(limiter, 'ada', 1)
    store.state = 'away'
    await Promise.all(Array.from({ length: 5 }, () => limiter.consume('ada')))
    expect(store.trips).toBe(6)
    for (let second = 0; second < 5; second++) {
      timers.jump(999)
      await limiter.consume('ada')
      expect(store.trips).toBe(0)
      timers.jump(1)
      await Promise.all(Array.from({ length: 3 }, () => limiter.consume('ada')))
      expect(store.trips).toBe(1)
    }
    store.state = 'here'
    timers.jump(1_000)
    expect(await limiter.consume('ada')).toMatchObject({ decidedBy: 'store' })
    expect(await limiter.consume('ada')).toMatchObject({ decidedBy: 'store' })
    expect(lines).toEqual([
      { level: 'warn', message: away },
      { level: 'info', message: 'the store of rate limits is back' },
    ])
  })

  test('is waited for by one call at a time, and no longer than storeTimeoutMs', async () => {
    const { isolate, store, timers, lines } = limitedFleet({ storeTimeoutMs: 2_000 })
    const limiter = isolate()
    store.state = 'silent'
    const startedAt = timers.now()
    const first = limiter.consume('ada')
    timers.jump(500)
    const second = limiter.consume('ada')
    expect(timers.pending).toBe(1)
    expect(await timers.settle(first)).toMatchObject({ decidedBy: 'local' })
    expect(timers.now() - startedAt).toBe(2_000)
    // Late calls wait their own time.
    expect(await timers.settle(second)).toMatchObject({ decidedBy: 'local' })
    expect(timers.now() - startedAt).toBe(2_500)
    expect(timers.pending).toBe(0)

    timers.jump(1_000)
    const probe = limiter.consume('ada')
    const others = await Promise.all([limiter.consume('ada'), limiter.consume('ada')])
    expect(others.map(({ decidedBy }) => decidedBy)).toEqual(['local', 'local'])
    expect(await timers.settle(probe)).toMatchObject({ decidedBy: 'local' })
    expect(lines).toEqual([{ level: 'warn', message: away }])
  })

  test('is known to all limiters that ask it', async () => {
    const { store, timers, lines } = limitedFleet()
    const log = {
      info() {},
      warn: (message: string) => void lines.push({ level: 'warn', message }),
      error() {},
    }
    const limiters = ['a', 'b', 'c'].map((name) => createRateLimiter({ name, store, timers, log }))
    store.state = 'away'
    for (const limiter of limiters) await limiter.consume('ada')
    expect(store.trips).toBe(1)
    expect(lines).toHaveLength(1)
  })

  test('is announced as an error where it is no outage', async () => {
    const { isolate, store, lines } = limitedFleet()
    store.state = new Error('relation "holdfast.rate_limits" does not exist')
    expect(await isolate().consume('ada')).toMatchObject({ allowed: true, decidedBy: 'local' })
    expect(lines).toEqual([{
      level: 'error',
      message: 'the store of rate limits fails, this isolate decides alone',
    }])
  })

  test('may also be one that cannot be opened', async () => {
    const { isolate, store, timers } = limitedFleet()
    let opens = 0
    const limiter = isolate({
      store: () => ++opens < 3 ? Promise.reject(new Error('no such module')) : Promise.resolve(store),
    })
    for (const decidedBy of ['local', 'local', 'store', 'store']) {
      expect(await limiter.consume('ada')).toMatchObject({ decidedBy })
      timers.jump(1_000)
    }
    expect(opens).toBe(3)
  })

  test('leaves refusals that are remembered as they are', async () => {
    const { isolate, store } = limitedFleet({ policy: '1/h' })
    const limiter = isolate()
    await allowed(limiter, 'ada', 2)
    store.state = 'away'
    await limiter.consume('bob')
    expect(await limiter.consume('ada')).toMatchObject({ allowed: false, decidedBy: 'deny-cache' })
  })

  test('rejects what an operator asks for', async () => {
    const { isolate, store } = limitedFleet()
    store.state = 'away'
    await expect(isolate().reset('ada')).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
    await expect(isolate().block('ada', 1_000)).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
  })

  test('is counted as decisions without it', async () => {
    const { isolate, store } = limitedFleet({ name: 'lonely' })
    store.state = 'away'
    const limiter = isolate()
    await limiter.peek('ada')
    await allowed(limiter, 'ada', 5)
    expect(counters()['rate_limit_local_total{limiter="lonely"}']).toBe(5)
  })
})

/** Tokens that an isolate takes ahead and gives out without asking. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { allowed, limitedFleet } from '../../support/remoteRateLimits.ts'

const lease = { tokens: 5, maxAgeMs: 1_000 }

describe('a lease', () => {
  test('costs one trip for so many calls, and counts at once for everybody', async () => {
    const { isolate, store } = limitedFleet({ policy: '20/min', lease })
    const [limiter, another] = [isolate(), isolate()]
    const decisions = []
    for (let call = 0; call < 6; call++) decisions.push(await limiter.consume('ada'))
    expect(decisions.map(({ decidedBy }) => decidedBy)).toEqual(['store', ...Array(4).fill('lease'), 'store'])
    expect(decisions.map(({ windows }) => windows[0]!.remaining)).toEqual([19, 18, 17, 16, 15, 14])
    expect(store.trips).toBe(2)
    expect(await another.peek('ada')).toMatchObject({ windows: [{ remaining: 10 }] })
  })

  test('gives all isolates together no more than the quota', async () => {
    const { isolate } = limitedFleet({ policy: '100/h', lease })
    const isolates = Array.from({ length: 8 }, () => isolate())
    const counts = await Promise.all(isolates.map((limiter) => allowed(limiter, 'ada', 100)))
    expect(counts.reduce((sum, count) => sum + count)).toBe(100)
  })

  test('takes what is left where that is less', async () => {
    const { isolate, store } = limitedFleet({ policy: '7/h', lease })
    const limiter = isolate()
    expect(await allowed(limiter, 'ada', 20)).toBe(7)
    expect(store.trips).toBe(3)
  })

  test('is lost after maxAgeMs', async () => {
    const { isolate, store, timers } = limitedFleet({ policy: '20/h', lease })
    const limiter = isolate()
    await allowed(limiter, 'ada', 2)
    timers.jump(999)
    expect(await limiter.consume('ada')).toMatchObject({ decidedBy: 'lease' })
    timers.jump(1)
    expect(await limiter.consume('ada')).toMatchObject({ decidedBy: 'store', windows: [{ remaining: 14 }] })
    expect(store.trips).toBe(2)
  })

  test('does not outlast the fixed window that it was taken from', async () => {
    const { isolate, timers } = limitedFleet({
      policy: '5/s',
      algorithm: 'fixed',
      lease: { tokens: 5, maxAgeMs: 60_000 },
    })
    const limiter = isolate()
    await allowed(limiter, 'ada', 2)
    timers.jump(1_000)
    expect(await allowed(limiter, 'ada', 20)).toBe(5)
  })

  test('is taken once by calls that come together, each of which gets a token', async () => {
    const { isolate, store } = limitedFleet({ policy: '20/h', lease })
    const limiter = isolate()
    const decisions = await Promise.all(Array.from({ length: 5 }, () => limiter.consume('ada')))
    expect(decisions.every(({ allowed }) => allowed)).toBe(true)
    expect(store.trips).toBe(1)
  })

  test('is taken larger for calls that wait, so that they need few trips and find all that is there', async () => {
    const { isolate, store } = limitedFleet({ policy: '200/h', lease })
    const limiter = isolate()
    const decisions = await Promise.all(Array.from({ length: 300 }, () => limiter.consume('ada')))
    expect(decisions.filter(({ allowed }) => allowed)).toHaveLength(200)
    expect(store.trips).toBeLessThanOrEqual(4)
  })

  test('is for one key', async () => {
    const { isolate, store } = limitedFleet({ policy: '20/h', lease })
    const limiter = isolate()
    for (const key of ['ada', 'bob', 'ada', 'bob']) await limiter.consume(key)
    expect(store.asked.map(({ key, count }) => [key.at(-1), count])).toEqual([['a', 5], ['b', 5]])
  })

  test('serves calls of several costs, and takes for the dear ones what they cost', async () => {
    const { isolate, store } = limitedFleet({ policy: '20/h', lease })
    const limiter = isolate()
    const decidedBy = []
    for (const cost of [2, 1, 5, 1]) decidedBy.push((await limiter.consume('ada', { cost })).decidedBy)
    expect(decidedBy).toEqual(['store', 'lease', 'store', 'lease'])
    expect(store.asked.map(({ cost, count }) => [cost, count])).toEqual([[2, 2], [5, 1]])
  })

  test('begins no block where only a part of it was there, and begins one for the refused call', async () => {
    const { isolate, timers } = limitedFleet({ policy: '7/min', lease, blockMs: 600_000 })
    const limiter = isolate()
    expect(await allowed(limiter, 'ada', 7)).toBe(7)
    expect(await limiter.peek('ada')).toMatchObject({ allowed: false, retryAfterMs: 8_572 })
    expect(await limiter.consume('ada')).toMatchObject({ allowed: false, retryAfterMs: 600_000 })
    timers.jump(599_999)
    expect(await allowed(limiter, 'ada', 1)).toBe(0)
  })

  test('is given up by a penalty, a block and a reset', async () => {
    const { isolate } = limitedFleet({ policy: '20/h', lease })
    const limiter = isolate()
    await limiter.consume('ada')
    await limiter.penalize('ada', 10)
    expect(await limiter.consume('ada')).toMatchObject({ decidedBy: 'store', windows: [{ remaining: 4 }] })
    await limiter.consume('bob')
    await limiter.block('bob', 60_000)
    expect(await limiter.consume('bob')).toMatchObject({ allowed: false })
    await limiter.consume('cy')
    await limiter.reset('cy')
    expect(await limiter.consume('cy')).toMatchObject({ decidedBy: 'store', windows: [{ remaining: 19 }] })
  })

  test('serves on while the store is away', async () => {
    const { isolate, store } = limitedFleet({ policy: '20/h', lease })
    const limiter = isolate()
    await limiter.consume('ada')
    store.state = 'away'
    expect(await limiter.consume('ada')).toMatchObject({ decidedBy: 'lease' })
    await allowed(limiter, 'ada', 3)
    expect(await limiter.consume('ada')).toMatchObject({ decidedBy: 'local' })
  })

  test('never gives more than was counted, whatever is called and whenever', async () => {
    const steps = fc.array(
      fc.record({
        isolate: fc.integer({ min: 0, max: 2 }),
        cost: fc.integer({ min: 1, max: 4 }),
        together: fc.integer({ min: 1, max: 6 }),
        afterMs: fc.constantFrom(0, 0, 100, 999, 1_000),
      }),
      { maxLength: 40 },
    )
    await fc.assert(fc.asyncProperty(steps, async (steps) => {
      const { isolate, timers } = limitedFleet({ policy: '30/d', algorithm: 'sliding', lease })
      const isolates = [isolate(), isolate(), isolate()]
      let taken = 0
      for (const { isolate, cost, together, afterMs } of steps) {
        timers.jump(afterMs)
        const calls = Array.from({ length: together }, () => isolates[isolate]!.consume('ada', { cost }))
        for (const { allowed } of await Promise.all(calls)) taken += allowed ? cost : 0
        expect(taken).toBeLessThanOrEqual(30)
      }
    }))
  })
})

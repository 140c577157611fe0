/** A limiter: what it says of calls, and how it is spoken to. */
import { describe, expect, test } from 'vitest'
import { counters } from '../../../supabase/functions/_shared/observability/metrics.ts'
import {
  createRateLimiter,
  type RateLimitDecision,
  RateLimitedError,
} from '../../../supabase/functions/_shared/resilience/rateLimit.ts'
import { MemoryRateLimitStore } from '../../../supabase/functions/_shared/resilience/stores/memoryRateLimits.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'
import { allowed, limitedFleet } from '../../support/remoteRateLimits.ts'

const minute = 60_000

describe('consume()', () => {
  test('says what is left, and when the rest is back', async () => {
    const { isolate } = limitedFleet()
    const limiter = isolate()
    expect(await limiter.consume('ada', { cost: 4 })).toEqual(
      {
        allowed: true,
        retryAfterMs: 0,
        windows: [
          { name: 'calls', quota: 10, windowMs: minute, remaining: 6, resetMs: 24_000, retryAfterMs: 0 },
        ],
        violated: [],
        decidedBy: 'store',
      } satisfies RateLimitDecision,
    )
  })

  test('refuses as a value that names the window and the time', async () => {
    const { isolate } = limitedFleet()
    const limiter = isolate({ policy: ['10/s', '15/h'], algorithm: 'fixed' })
    expect(await allowed(limiter, 'ada', 11)).toBe(10)
    expect(await limiter.consume('bob')).toMatchObject({ allowed: true })
    const refused = await isolate({ policy: ['10/s', '15/h'], algorithm: 'fixed' }).consume('ada', {
      cost: 6,
    })
    expect(refused).toMatchObject({
      allowed: false,
      retryAfterMs: 3_600_000,
      violated: ['calls-10-per-s', 'calls-15-per-h'],
      windows: [{ remaining: 0, retryAfterMs: 1_000 }, { remaining: 5, retryAfterMs: 3_600_000 }],
    })
  })

  test('counts for all isolates together, and for each key by itself', async () => {
    const { isolate } = limitedFleet()
    const isolates = [isolate(), isolate(), isolate()]
    let count = 0
    for (let call = 0; call < 30; call++) {
      if ((await isolates[call % 3]!.consume('ada')).allowed) count++
    }
    expect(count).toBe(10)
    expect(await allowed(isolates[0]!, 'bob', 30)).toBe(10)
  })

  test('counts anew under another name and under another policy', async () => {
    const { isolate } = limitedFleet()
    expect(await allowed(isolate(), 'ada', 30)).toBe(10)
    expect(await allowed(isolate({ name: 'others' }), 'ada', 30)).toBe(10)
    expect(await allowed(isolate({ policy: '12/min' }), 'ada', 30)).toBe(12)
    expect(await allowed(isolate({ algorithm: 'fixed' }), 'ada', 30)).toBe(10)
    expect(await allowed(isolate({ burst: 3 }), 'ada', 30)).toBe(3)
  })

  test('needs no trip and no timer with a store in memory', async () => {
    const timers = new FakeTimers()
    const limiter = createRateLimiter({
      name: 'calls',
      policy: '2/s',
      store: new MemoryRateLimitStore({ timers }),
      timers,
    })
    expect(await limiter.consume('ada')).toMatchObject({ allowed: true, decidedBy: 'memory' })
    expect(await allowed(limiter, 'ada', 5)).toBe(1)
    timers.jump(500)
    expect(await allowed(limiter, 'ada', 5)).toBe(1)
    expect(timers.waits).toEqual([])
  })

  test('leaves no timer behind a trip', async () => {
    const { isolate, timers } = limitedFleet()
    await Promise.all(Array.from({ length: 20 }, () => isolate().consume('ada')))
    expect(timers.pending).toBe(0)
  })

  test('lets the question be asked on another way, when it has to be asked', async () => {
    const { isolate, store } = limitedFleet()
    const limiter = isolate({ policy: '1/min' })
    const ask = async (question: Parameters<typeof store.decide>[0][number]) =>
      (await store.decide([question]))[0]!
    const asked: number[] = []
    for (let call = 0; call < 3; call++) {
      const { allowed } = await limiter.consume('ada', {
        ask: (question) => {
          asked.push(call)
          return ask(question)
        },
      })
      expect(allowed).toBe(call === 0)
    }
    expect(asked).toEqual([0, 1])
  })

  test('opens its store once, at the first call', async () => {
    const { store, timers } = limitedFleet()
    let opened = 0
    const limiter = createRateLimiter({
      name: 'calls',
      timers,
      store: () => {
        opened++
        return Promise.resolve(store)
      },
    })
    expect(opened).toBe(0)
    for (let call = 0; call < 3; call++) await limiter.consume('ada')
    expect(opened).toBe(1)
  })

  test.each([0, -1, 1.5, NaN, 11, Infinity, '1'])('rejects the cost %s', async (cost) => {
    const { isolate, store } = limitedFleet()
    const call = isolate().consume('ada', { cost: cost as number })
    await expect(call).rejects.toThrow(
      new RangeError(
        `Cannot ask the rate limit "calls": cost must be a whole number from 1 to 10, received ${cost}`,
      ),
    )
    expect(store.trips).toBe(0)
  })

  test.each([['an empty text', ''], ['nothing', undefined], ['a number', 7]])(
    'rejects %s as key',
    async (_, key) => {
      const { isolate } = limitedFleet()
      await expect(isolate().consume(key as string)).rejects.toThrow(TypeError)
    },
  )

  test('is counted in metrics by outcome and by who decided', async () => {
    const { isolate } = limitedFleet()
    const limiter = isolate({ name: 'counted' })
    await allowed(limiter, 'ada', 13)
    const labels = (outcome: string, by: string) =>
      `rate_limit_total{decided_by="${by}",limiter="counted",outcome="${outcome}"}`
    expect(counters()).toMatchObject({
      [labels('allowed', 'store')]: 10,
      [labels('refused', 'store')]: 1,
      [labels('refused', 'deny-cache')]: 2,
    })
  })
})

describe('a key', () => {
  test('may be any text, and two texts are two keys', async () => {
    const { isolate, store } = limitedFleet({ policy: '1/h' })
    const limiter = isolate()
    const long = 'x'.repeat(400)
    const keys = [
      long,
      `${long}y`,
      '\0',
      '\x01',
      '\ud800',
      '\ud801',
      '\ufffd',
      'é|',
      'e\u0301|',
      'sha256:',
      'a|b',
    ]
    keys.push(store.asked[0]?.key ?? 'sha256:abc')
    for (const key of keys) expect(await allowed(limiter, key, 3)).toBe(1)
    for (const { key } of store.asked) {
      expect(key.length).toBeLessThanOrEqual(255)
      expect(key.isWellFormed() && !key.includes('\0')).toBe(true)
    }
    const digested = limiter.questionOf(long).key.split('|').at(-1)!
    expect(await allowed(limiter, digested, 3)).toBe(1)
  })

  test('is the same in each isolate, also when many others were asked for meanwhile', () => {
    const { isolate } = limitedFleet()
    const limiter = isolate()
    const first = limiter.questionOf('ada').key
    expect(first).toBe('calls|gcra:10/min|ada')
    for (let key = 0; key < 25_000; key++) limiter.questionOf(`${key}`)
    expect(limiter.questionOf('ada').key).toBe(first)
    expect(isolate().questionOf('ada').key).toBe(first)
  })

  test('fits also where the windows are many', () => {
    const { isolate } = limitedFleet()
    const windows = [1, 2, 3, 4, 5].map((n) => ({ quota: 10 ** n, windowMs: 86_400_001 * n, burst: 7 * n }))
    const question = isolate({ name: 'n'.repeat(50), policy: windows }).questionOf('k'.repeat(999))
    expect(question.key.length).toBeLessThanOrEqual(255)
  })
})

describe('require()', () => {
  test('resolves to the decision, and rejects with 429, the time and the policies', async () => {
    const { isolate } = limitedFleet()
    const limiter = isolate({ policy: '1/min' })
    expect(await limiter.require('ada')).toMatchObject({ allowed: true })
    const error = await limiter.require('ada').catch((error) => error)
    expect(error).toBeInstanceOf(RateLimitedError)
    expect(error).toMatchObject({
      code: 'RATE_LIMITED',
      status: 429,
      retryable: true,
      retryAfterMs: minute,
      details: { policies: ['calls'] },
      message: 'Cannot take another call now: the limit is 1 in 60 s (calls)',
    })
    expect(error.decision).toMatchObject({ allowed: false, violated: ['calls'] })
  })
})

describe('peek()', () => {
  test('says what consume() would say, and takes nothing', async () => {
    const { isolate, store } = limitedFleet()
    const limiter = isolate()
    for (let look = 0; look < 30; look++) {
      expect(await limiter.peek('ada')).toMatchObject({ allowed: true, windows: [{ remaining: 10 }] })
    }
    await limiter.consume('ada', { cost: 8 })
    expect(await limiter.peek('ada', { cost: 3 })).toMatchObject({
      allowed: false,
      retryAfterMs: 6_000,
      violated: ['calls'],
    })
    expect(await limiter.peek('ada', { cost: 2 })).toMatchObject({ allowed: true, retryAfterMs: 0 })
    expect(store.asked.every(({ count }, index) => count === (index === 30 ? 1 : 0))).toBe(true)
  })

  test('begins no block', async () => {
    const { isolate } = limitedFleet()
    const limiter = isolate({ blockMs: 3_600_000 })
    await allowed(limiter, 'ada', 10)
    expect(await limiter.peek('ada')).toMatchObject({ allowed: false, retryAfterMs: 6_000 })
    expect(await limiter.consume('ada')).toMatchObject({ allowed: false, retryAfterMs: 3_600_000 })
    expect(await limiter.peek('ada')).toMatchObject({ allowed: false, retryAfterMs: 3_600_000 })
  })
})

describe('penalize()', () => {
  test('takes tokens that are not there, in every isolate', async () => {
    const { isolate, timers } = limitedFleet()
    const [limiter, another] = [isolate(), isolate()]
    expect(await limiter.penalize('ada', 4)).toMatchObject({ allowed: true, windows: [{ remaining: 6 }] })
    expect(await limiter.penalize('ada', 26)).toMatchObject({ allowed: false, retryAfterMs: 126_000 })
    expect(await another.consume('ada')).toMatchObject({ allowed: false, retryAfterMs: 126_000 })
    timers.jump(126_000)
    expect(await allowed(another, 'ada', 5)).toBe(1)
  })

  test.each([0, -1, 1.5, 1_000_001, NaN])('rejects %s tokens', async (tokens) => {
    const { isolate } = limitedFleet()
    await expect(isolate().penalize('ada', tokens)).rejects.toThrow(
      `Cannot penalize a key of "calls": tokens must be a whole number from 1 to 1000000, received ${tokens}`,
    )
  })
})

describe('block()', () => {
  test('refuses the key in every isolate until the time is over', async () => {
    const { isolate, timers } = limitedFleet()
    const [limiter, another] = [isolate(), isolate()]
    await limiter.block('ada', minute)
    for (const each of [limiter, another, limiter]) {
      expect(await each.consume('ada')).toMatchObject({
        allowed: false,
        retryAfterMs: minute,
        violated: ['calls'],
        windows: [{ remaining: 10 }],
      })
    }
    timers.jump(minute)
    expect(await allowed(another, 'ada', 20)).toBe(10)
  })

  test('is ended by 0', async () => {
    const { isolate } = limitedFleet()
    const limiter = isolate()
    await limiter.block('ada', minute)
    expect(await allowed(limiter, 'ada', 2)).toBe(0)
    await limiter.block('ada', 0)
    expect(await allowed(limiter, 'ada', 2)).toBe(2)
  })

  test.each([-1, 1.5, NaN, 367 * 86_400_000])('rejects %s ms', async (ms) => {
    const { isolate } = limitedFleet()
    await expect(isolate().block('ada', ms)).rejects.toThrow(RangeError)
  })
})

describe('blockMs', () => {
  test('keeps whoever was refused away for that long, from the first refusal on', async () => {
    const { isolate, timers } = limitedFleet()
    const limiter = isolate({ blockMs: 5 * minute })
    expect(await allowed(limiter, 'ada', 11)).toBe(10)
    timers.jump(2 * minute)
    expect(await limiter.consume('ada')).toMatchObject({ allowed: false, retryAfterMs: 3 * minute })
    timers.jump(3 * minute - 1)
    expect(await allowed(limiter, 'ada', 1)).toBe(0)
    timers.jump(1)
    expect(await allowed(limiter, 'ada', 20)).toBe(10)
  })
})

describe('reset()', () => {
  test('forgets what was counted and what was remembered here', async () => {
    const { isolate } = limitedFleet()
    const limiter = isolate({ blockMs: minute })
    expect(await allowed(limiter, 'ada', 20)).toBe(10)
    await limiter.reset('ada')
    expect(await allowed(limiter, 'ada', 20)).toBe(10)
  })

  test('is not undone by a refusal that was under way', async () => {
    const { isolate } = limitedFleet({ policy: '1/h' })
    const limiter = isolate()
    await limiter.consume('ada')
    const refused = limiter.consume('ada')
    await limiter.reset('ada')
    expect(await refused).toMatchObject({ allowed: false })
    expect(await limiter.consume('ada')).toMatchObject({ allowed: true })
  })
})

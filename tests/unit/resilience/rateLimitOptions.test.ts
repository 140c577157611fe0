/** What a limit may be made with, and what is refused. */
import { describe, expect, test } from 'vitest'
import {
  createRateLimiter,
  type Policy,
  type RateLimiterOptions,
} from '../../../supabase/functions/_shared/resilience/rateLimit.ts'
import { shareOf, windowsOf } from '../../../supabase/functions/_shared/resilience/limits/rateLimitPolicy.ts'

const day = 86_400_000

describe('policy', () => {
  test.each<[Policy, number, number]>([
    ['60/min', 60, 60_000],
    ['1/s', 1, 1_000],
    ['500/h', 500, 3_600_000],
    ['5000/d', 5_000, day],
    ['20/15min', 20, 900_000],
    [{ quota: 3, windowMs: 1_500 }, 3, 1_500],
    [['7/30d'], 7, 30 * day],
  ])('%j is read', (policy, quota, windowMs) => {
    expect(windowsOf('calls', policy)).toEqual([
      { name: 'calls', algorithm: 'gcra', quota, windowMs, burst: quota },
    ])
  })

  test('is 60 a minute by default, as a bucket', () => {
    const [window, ...others] = createRateLimiter({ name: 'calls' }).windows
    expect(window).toEqual({ name: 'calls', algorithm: 'gcra', quota: 60, windowMs: 60_000, burst: 60 })
    expect(others).toEqual([])
  })

  test('names several windows after the limiter and the numbers, unless they have names', () => {
    const policy = ['10/s', '500/h', '20/15min', { quota: 9, windowMs: day, name: 'daily' }]
    expect(windowsOf('orders', policy).map(({ name }) => name)).toEqual([
      'orders-10-per-s',
      'orders-500-per-h',
      'orders-20-per-15min',
      'daily',
    ])
  })

  test('may say for each window how it counts', () => {
    const policy = ['10/s', { quota: 9, windowMs: day, algorithm: 'fixed' }, {
      quota: 5,
      windowMs: 1_000,
      burst: 2,
    }] as const
    expect(windowsOf('calls', policy, { burst: 30 })).toMatchObject([
      { algorithm: 'gcra', burst: 30 },
      { algorithm: 'fixed', burst: 9 },
      { algorithm: 'gcra', burst: 2 },
    ])
  })

  const bad: [policy: unknown, error: new () => Error, message: string][] = [
    ['60', TypeError, "policy must be like '60/min', with s, min, h or d, received '60'"],
    ['60/m', TypeError, "received '60/m'"],
    ['60 / min', TypeError, "received '60 / min'"],
    ['-1/min', TypeError, "received '-1/min'"],
    ['1.5/s', TypeError, "received '1.5/s'"],
    ['', TypeError, "received ''"],
    ['0/min', RangeError, 'quota must be a positive whole number, received 0'],
    ['60/0min', RangeError, 'windowMs must be a positive whole number'],
    ['60/367d', RangeError, 'received 31708800000'],
    ['1000001/s', RangeError, 'quota must be at most one in a microsecond, received 1000001 in 1000 ms'],
    [[], RangeError, 'policy must have 1 to 5 windows, received 0'],
    [Array(6).fill('1/s'), RangeError, 'policy must have 1 to 5 windows, received 6'],
    [['1/s', '1/s'], TypeError, 'its windows must have different names'],
    [null, TypeError, "policy must be like '60/min' or { quota, windowMs }, received null"],
    [60, TypeError, 'received 60'],
    [
      { quota: 1 },
      RangeError,
      'windowMs must be a positive whole number of at most 31622400000, received undefined',
    ],
    [{ quota: NaN, windowMs: 1 }, RangeError, 'quota must be a positive whole number, received NaN'],
    [{ quota: 1, windowMs: 0.5 }, RangeError, 'received 0.5'],
    [
      { quota: 1, windowMs: 1_000, burst: 0 },
      RangeError,
      'burst must be a positive whole number, received 0',
    ],
    [
      { quota: 1, windowMs: day, burst: 367 },
      RangeError,
      'burst must come back within 366 days, received 367',
    ],
    [{ quota: 1, windowMs: day, name: 'a b' }, TypeError, 'received a b'],
    [
      { quota: 1, windowMs: day, algorithm: 'leaky' },
      TypeError,
      'one of gcra, fixed, sliding, received leaky',
    ],
    [
      { quota: 1, windowMs: day, algorithm: 'fixed', burst: 2 },
      RangeError,
      'burst is for the algorithm gcra, received 2',
    ],
  ]

  test.each(bad)('%j is refused', (policy, error, message) => {
    const make = () => createRateLimiter({ name: 'calls', policy: policy as Policy })
    expect(make).toThrow(error)
    expect(make).toThrow('Cannot make the rate limit "calls": ')
    expect(make).toThrow(message)
  })
})

describe('createRateLimiter()', () => {
  const bad: [options: Record<string, unknown>, error: new () => Error, message: string][] = [
    [{ name: undefined }, TypeError, 'Cannot make a rate limit: name must be 1 to 80'],
    [{ name: '' }, TypeError, 'Cannot make a rate limit: name'],
    [{ name: 'a "b"' }, TypeError, 'received a "b"'],
    [{ name: 'n'.repeat(81) }, TypeError, 'received nnn'],
    [{ name: 'a|b' }, TypeError, 'no space and none of " \\ |, received a|b'],
    [{ name: 'é' }, TypeError, 'received é'],
    [{ algorithm: 'leaky' }, TypeError, 'algorithm must be one of gcra, fixed, sliding, received leaky'],
    [{ burst: 0 }, RangeError, 'burst must be a positive whole number, received 0'],
    [
      { burst: 5, algorithm: 'sliding' },
      RangeError,
      'burst is for the algorithm gcra, received 5 with sliding',
    ],
    [
      { store: {} },
      TypeError,
      'store must be a store or a function that opens one, received [object Object]',
    ],
    [{ store: null }, TypeError, 'received null'],
    [
      { onUnavailable: 'maybe' },
      TypeError,
      'onUnavailable must be one of open, closed, local, received maybe',
    ],
    ...[0, -1, 1.1, NaN, '0.5'].map((localShare): [Record<string, unknown>, new () => Error, string] => [
      { localShare },
      RangeError,
      `localShare must be in (0, 1], received ${localShare}`,
    ]),
    ...[0, -1, NaN, Infinity].map((storeTimeoutMs): [Record<string, unknown>, new () => Error, string] => [
      { storeTimeoutMs },
      RangeError,
      `storeTimeoutMs must be above 0 and at most 2147483647, received ${storeTimeoutMs}`,
    ]),
    ...[-1, 0.5, NaN, 2 ** 31].map((denyCacheMs): [Record<string, unknown>, new () => Error, string] => [
      { denyCacheMs },
      RangeError,
      `denyCacheMs must be a whole number from 0 to 2147483647, received ${denyCacheMs}`,
    ]),
    [{ blockMs: -1 }, RangeError, 'blockMs must be a whole number from 0 to 31622400000, received -1'],
    [{ blockMs: 1e12 }, RangeError, 'received 1000000000000'],
    [{ lease: { tokens: 0 } }, RangeError, 'lease.tokens must be a whole number from 1 to 60'],
    [{ lease: { tokens: 61 } }, RangeError, 'received 61'],
    [
      { lease: { tokens: 11 }, burst: 10 },
      RangeError,
      'from 1 to 10, as many as there are at once, received 11',
    ],
    [{ lease: { tokens: 5, maxAgeMs: 0 } }, RangeError, 'lease.maxAgeMs must be above 0'],
  ]

  test.each(bad)('refuses %j where the limiter is made', (options, error, message) => {
    const make = () => createRateLimiter({ name: 'calls', ...options } as RateLimiterOptions)
    expect(make).toThrow(error)
    expect(make).toThrow(message)
  })
})

describe('shareOf()', () => {
  test('is a part of each window, and a token at least', () => {
    const windows = windowsOf('calls', ['100/min', '3/s', {
      quota: 10,
      windowMs: 1_000,
      burst: 50,
      name: 'burst',
    }])
    expect(shareOf(windows, 0.25).map(({ quota, burst }) => [quota, burst])).toEqual([[25, 25], [1, 1], [
      2,
      12,
    ]])
  })
})

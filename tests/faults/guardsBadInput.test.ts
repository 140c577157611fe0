/** Options that make no sense are refused where a guard is made, with what was received; none comes to be. */
import { describe, expect, test } from 'vitest'
import { createCache } from '../../supabase/functions/_shared/resilience/cache.ts'
import { createCircuitBreakers } from '../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { createRateLimiter } from '../../supabase/functions/_shared/resilience/rateLimit.ts'
import { MemoryBreakerStore } from '../../supabase/functions/_shared/resilience/stores/memoryBreakers.ts'
import { MemoryCacheStore } from '../../supabase/functions/_shared/resilience/stores/memoryCache.ts'
import { MemoryRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/memoryRateLimits.ts'

/** What is no such number, whatever the option: among them what a comparison would take for one. */
const never = [NaN, Infinity, -Infinity, -1, 2 ** 53, '5', true, [5], {}]
const kinds: Record<string, readonly unknown[]> = {
  duration: [...never, 0, 2 ** 31],
  count: [...never, 0, 1.5],
  share: [...never, 1.001],
}

interface Guard {
  make(options: object): unknown
  options: Record<string, keyof typeof kinds>
}

const guards: Record<string, Guard> = {
  'a circuit breaker': {
    make: (options) =>
      createCircuitBreakers({ store: new MemoryBreakerStore() }).get('bad', { maxConcurrent: 1, ...options }),
    options: {
      failureThreshold: 'count',
      consecutiveFailures: 'count',
      failureRate: 'share',
      minimumVolume: 'count',
      windowMs: 'duration',
      cooldownMs: 'duration',
      halfOpenProbes: 'count',
      probeLeaseMs: 'duration',
      timeoutMs: 'duration',
      maxConcurrent: 'count',
    },
  },
  'a registry of circuit breakers': {
    make: (options) => createCircuitBreakers({ store: new MemoryBreakerStore(), ...options }),
    options: { refreshMs: 'duration' },
  },
  'a rate limiter': {
    make: (options) => createRateLimiter({ name: 'bad', store: new MemoryRateLimitStore(), ...options }),
    options: { burst: 'count', localShare: 'share', storeTimeoutMs: 'duration' },
  },
  'a window of a rate limiter': {
    make: (options) =>
      createRateLimiter({
        name: 'bad',
        store: new MemoryRateLimitStore(),
        policy: { quota: 1, windowMs: 1_000, ...options },
      }),
    options: { quota: 'count', windowMs: 'count', burst: 'count' },
  },
  'a lease of tokens': {
    make: (options) =>
      createRateLimiter({ name: 'bad', store: new MemoryRateLimitStore(), lease: { tokens: 1, ...options } }),
    options: { tokens: 'count', maxAgeMs: 'duration' },
  },
  'a cache': {
    make: (options) => createCache({ name: 'bad', ...options }),
    options: {
      ttlMs: 'duration',
      earlyRefresh: 'share',
      maxEntries: 'count',
      maxBytes: 'count',
      loadTimeoutMs: 'duration',
    },
  },
  'a cache with a shared tier': {
    make: (options) => createCache({ name: 'bad', shared: new MemoryCacheStore(), ...options }),
    options: { localTtlMs: 'duration', leaseMs: 'duration', sharedTimeoutMs: 'duration' },
  },
}

describe.each(Object.entries(guards))('%s', (_, { make, options }) => {
  test('is made of nothing but its defaults', () => {
    expect(make({})).toBeDefined()
  })

  test.each(Object.entries(options))('is not made with a bad %s', (option, kind) => {
    const accepted = kinds[kind]!.filter((value) => refusalOf(() => make({ [option]: value })) === undefined)
    expect(accepted).toEqual([])
    for (const value of kinds[kind]!) {
      const refusal = refusalOf(() => make({ [option]: value }))!
      expect([TypeError, RangeError]).toContain(refusal.constructor)
      expect(refusal.message).toMatch(new RegExp(`^Cannot .*${option}.*, received `))
      expect(refusal.message.length).toBeLessThan(300)
    }
  })
})

function refusalOf(make: () => unknown): Error | undefined {
  try {
    make()
    return undefined
  } catch (error) {
    return error as Error
  }
}

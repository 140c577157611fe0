/** How long resilience/retry.ts waits, for any policy: properties. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { HoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import { type Backoff, nextDelayMs, retry } from '../../../supabase/functions/_shared/resilience/retry.ts'
import { longestTimerMs } from '../../../supabase/functions/_shared/resilience/timers.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

const duration = fc.double({ min: 0.001, max: longestTimerMs, noNaN: true })
const share = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
const attempt = fc.integer({ min: 1, max: 5_000 })
const backoff = fc.record({
  initialDelayMs: duration,
  maxDelayMs: duration,
  jitter: fc.constantFrom<Backoff['jitter']>('full', 'none'),
  random: share.map((value) => () => value),
})

describe('nextDelayMs()', () => {
  test('is within the bounds of the policy, and a time that a timer can wait for', () => {
    fc.assert(fc.property(attempt, backoff, (attempt, policy) => {
      const delayMs = nextDelayMs(attempt, 0, policy)
      expect(delayMs).toBeGreaterThanOrEqual(0)
      expect(delayMs).toBeLessThanOrEqual(policy.maxDelayMs)
      expect(delayMs).toBeLessThanOrEqual(longestTimerMs)
      if (attempt === 1) expect(delayMs).toBeLessThanOrEqual(policy.initialDelayMs)
    }))
  })

  test('is never shorter than what the other side asked for', () => {
    fc.assert(fc.property(attempt, duration, backoff, (attempt, askedMs, policy) => {
      const delayMs = nextDelayMs(attempt, askedMs, policy)
      expect(delayMs).toBeGreaterThanOrEqual(askedMs)
      expect(delayMs).toBeLessThanOrEqual(Math.min(longestTimerMs, askedMs + policy.maxDelayMs))
    }))
  })

  test('doubles without jitter until it is the longest one', () => {
    const policy: Backoff = { initialDelayMs: 100, maxDelayMs: 1_000, jitter: 'none', random: Math.random }
    expect([1, 2, 3, 4, 5, 6, 5_000].map((attempt) => nextDelayMs(attempt, 0, policy)))
      .toEqual([100, 200, 400, 800, 1_000, 1_000, 1_000])
  })

  test('is any share of that with full jitter', () => {
    const policy = (random: number): Backoff => ({
      initialDelayMs: 100,
      maxDelayMs: 1_000,
      jitter: 'full',
      random: () => random,
    })
    expect([0, 0.25, 0.5].map((random) => nextDelayMs(2, 0, policy(random)))).toEqual([0, 50, 100])
  })
})

test('retry() starts no attempt and begins no pause that would end after its deadline', async () => {
  const step = fc.record({
    takesMs: fc.integer({ min: 0, max: 400 }),
    askedMs: fc.integer({ min: 0, max: 500 }),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 1, max: 2_000 }),
      fc.infiniteStream(share),
      async (steps, timeoutMs, shares) => {
        const timers = new FakeTimers()
        const endsAt = timers.now() + timeoutMs
        const startedAt: number[] = []
        const pausedUntil: number[] = []
        const promise = retry(async ({ number }) => {
          startedAt.push(timers.now())
          const { takesMs, askedMs } = steps[number - 1]!
          await new Promise<void>((resolve) => timers.set(resolve, takesMs))
          throw new HoldfastError('SERVICE_UNAVAILABLE', 'Away', { retryAfterMs: askedMs })
        }, {
          attempts: steps.length,
          timeoutMs,
          timers,
          random: () => shares.next().value!,
          onRetry: ({ delayMs }) => void pausedUntil.push(timers.now() + delayMs),
        })
        await expect(timers.settle(promise)).rejects.toBeInstanceOf(HoldfastError)
        for (const at of [...startedAt, ...pausedUntil]) expect(at).toBeLessThan(endsAt)
        expect(timers.now()).toBeLessThanOrEqual(endsAt)
      },
    ),
  )
})

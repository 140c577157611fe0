/** resilience/circuitBreaker.ts: how breakers are made and found. */
import { describe, expect, test } from 'vitest'
import {
  type CircuitBreakerOptions,
  createCircuitBreakers,
} from '../../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'
import { down, isolate, outcomeOf } from '../../support/isolatedBreakers.ts'

describe('get()', () => {
  test('gives the same breaker for a name, and refuses other options for it', () => {
    const breakers = createCircuitBreakers()
    const breaker = breakers.get('mail', { timeoutMs: 100 })
    expect(breakers.get('mail')).toBe(breaker)
    expect(breakers.get('mail', { timeoutMs: 100, failureThreshold: 5, isFailure: () => true })).toBe(breaker)
    expect(() => breakers.get('mail', { timeoutMs: 200 })).toThrow(
      new TypeError('Cannot share the circuit breaker "mail": it was made with timeoutMs 100, received 200'),
    )
    expect(() => breakers.get('mail', {})).toThrow('it was made with timeoutMs 100, received none')
  })

  test('trips by failureThreshold only where no other rule is given', async () => {
    const { breakers } = isolate({ timers: new FakeTimers() })
    const breaker = breakers.get('rate', { failureRate: 0.5, minimumVolume: 100 })
    for (let call = 0; call < 99; call++) await outcomeOf(breaker.execute(down))
    expect(breaker.health().state).toBe('closed')
    await outcomeOf(breaker.execute(down))
    expect(breaker.health().state).toBe('open')
  })

  const durations = ['windowMs', 'cooldownMs', 'timeoutMs', 'probeLeaseMs']
  const counts = [
    'failureThreshold',
    'consecutiveFailures',
    'minimumVolume',
    'halfOpenProbes',
    'maxConcurrent',
  ]
  const bad: [string, unknown][] = [
    ...durations.flatMap((name) => [NaN, 0, -1, Infinity, 2_147_483_648, '5'].map((value) => [name, value])),
    ...counts.flatMap((name) => [NaN, 0, -1, 1.5, Infinity, 1_000_001, '5'].map((value) => [name, value])),
    ...[NaN, -1, 1.5].map((value) => ['maxQueued', value]),
    ...[NaN, 0, -0.1, 1.1, '0.5'].map((value) => ['failureRate', value]),
  ] as [string, unknown][]

  test.each(bad)('refuses %s %s, and says so', (name, value) => {
    const options = { maxConcurrent: 1, [name]: value }
    const get = () => createCircuitBreakers().get('bad', options as CircuitBreakerOptions)
    expect(get).toThrow(RangeError)
    expect(get).toThrow(
      new RegExp(`^Cannot make the circuit breaker "bad": ${name} must be .*, received ${value}$`),
    )
  })

  test.each([
    [{ retries: 3 }, 'there is no option retries'],
    [{ maxQueued: 3 }, 'maxQueued needs maxConcurrent, received 3 alone'],
    [{ isFailure: true }, 'isFailure must be a function, received true'],
    [{ onCall: 'log' }, 'onCall must be a function, received log'],
  ])('refuses %o', (options, found) => {
    expect(() => createCircuitBreakers().get('bad', options as CircuitBreakerOptions))
      .toThrow(new TypeError(`Cannot make the circuit breaker "bad": ${found}`))
  })

  test.each(['', 'x'.repeat(201), 'a\nb', '\u0000', '\ud800', 7])('refuses the name %j', (name) => {
    expect(() => createCircuitBreakers().get(name as string)).toThrow(RangeError)
  })

  test.each([0, -1, NaN, Infinity])('refuses refreshMs %s', (refreshMs) => {
    expect(() => createCircuitBreakers({ refreshMs })).toThrow(RangeError)
  })
})

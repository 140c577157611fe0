/** resilience/retryBudget.ts: how many retries a dependency may get. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  RetryBudget,
  retryBudget,
  type RetryBudgetOptions,
} from '../../../supabase/functions/_shared/resilience/retryBudget.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

/** How many retries it gives in a row. */
function drain(budget: RetryBudget): number {
  let retries = 0
  while (budget.withdraw()) retries++
  return retries
}

describe('RetryBudget', () => {
  test('begins with its reserve', () => {
    expect(drain(new RetryBudget({}, new FakeTimers()))).toBe(10)
    expect(drain(new RetryBudget({ reserve: 3 }, new FakeTimers()))).toBe(3)
  })

  test('earns a retry with every ten calls', () => {
    const budget = new RetryBudget({ perMinute: 0 }, new FakeTimers())
    drain(budget)
    for (let call = 0; call < 9; call++) budget.deposit()
    expect(budget.withdraw()).toBe(false)
    budget.deposit()
    expect(drain(budget)).toBe(1)
  })

  test('earns ten in a minute without any call, so that a rarely used dependency can retry', () => {
    const timers = new FakeTimers()
    const budget = new RetryBudget({}, timers)
    drain(budget)
    timers.jump(5_999)
    expect(drain(budget)).toBe(0)
    timers.jump(1)
    expect(drain(budget)).toBe(1)
    timers.jump(60_000)
    expect(drain(budget)).toBe(10)
  })

  test('saves up no more than its reserve', () => {
    const timers = new FakeTimers()
    const budget = new RetryBudget({}, timers)
    for (let call = 0; call < 10_000; call++) budget.deposit()
    timers.jump(86_400_000)
    expect(drain(budget)).toBe(10)
  })

  test('never gives more than the share of the calls, the minutes and the reserve', () => {
    const options = fc.record({
      ratio: fc.double({ min: 0.01, max: 1, noNaN: true }),
      perMinute: fc.double({ min: 0, max: 100, noNaN: true }),
      reserve: fc.double({ min: 1, max: 50, noNaN: true }),
    })
    const steps = fc.array(fc.constantFrom('call', 'retry', 'retry', 'second'), { maxLength: 500 })
    fc.assert(fc.property(options, steps, (options, steps) => {
      const timers = new FakeTimers()
      const budget = new RetryBudget(options, timers)
      const counts = { call: 0, retry: 0, second: 0 }
      for (const step of steps) {
        if (step === 'call') budget.deposit()
        if (step === 'second') timers.jump(1_000)
        if (step !== 'retry' || budget.withdraw()) counts[step as keyof typeof counts]++
      }
      const bound = options.reserve + options.ratio * counts.call + options.perMinute * counts.second / 60
      expect(counts.retry).toBeLessThanOrEqual(bound + 1e-6)
    }))
  })

  const bad: [string, RetryBudgetOptions][] = [
    ...[NaN, Infinity, -1, 0, 1.1].map((
      ratio,
    ): [string, RetryBudgetOptions] => [`ratio ${ratio}`, { ratio }]),
    ...[NaN, Infinity, -1].map((
      perMinute,
    ): [string, RetryBudgetOptions] => [`perMinute ${perMinute}`, { perMinute }]),
    ...[NaN, Infinity, -1, 0, 0.5].map((
      reserve,
    ): [string, RetryBudgetOptions] => [`reserve ${reserve}`, { reserve }]),
  ]

  test.each(bad)('refuses %s', (_, options) => {
    expect(() => new RetryBudget(options)).toThrow(RangeError)
    expect(() => retryBudget('wrong', options)).toThrow(RangeError)
  })
})

describe('retryBudget()', () => {
  test('is shared by all who give the same name', () => {
    const budget = retryBudget('payments', { reserve: 2, perMinute: 0 })
    expect(retryBudget('payments')).toBe(budget)
    expect(retryBudget('payments', { perMinute: 0, reserve: 2, ratio: 0.1 })).toBe(budget)
    expect(retryBudget('mail')).not.toBe(budget)
  })

  test('refuses other options for the same name', () => {
    retryBudget('shipping', { reserve: 2 })
    expect(() => retryBudget('shipping', { reserve: 3 })).toThrow(TypeError)
    expect(() => retryBudget('shipping', { reserve: 2, ratio: 0.5 })).toThrow(TypeError)
  })
})

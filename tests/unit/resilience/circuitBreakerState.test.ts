/** resilience/breakerState.ts: the states of a breaker, beside a model that remembers every call. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BreakerMachine } from '../../../supabase/functions/_shared/resilience/breaker/breakerState.ts'
import { CallWindow } from '../../../supabase/functions/_shared/resilience/breaker/callWindow.ts'
import type { BreakerRules } from '../../../supabase/functions/_shared/resilience/stores/breakerStore.ts'
import { BreakerModel } from '../../support/breakerModel.ts'

const someRules: fc.Arbitrary<BreakerRules> = fc.record({
  failureThreshold: fc.option(fc.integer({ min: 1, max: 6 })),
  consecutiveFailures: fc.option(fc.integer({ min: 1, max: 4 })),
  failureRate: fc.option(fc.constantFrom(0.2, 0.5, 1)),
  minimumVolume: fc.integer({ min: 1, max: 8 }),
  windowMs: fc.constantFrom(100, 1_000),
  cooldownMs: fc.constantFrom(50, 300),
  halfOpenProbes: fc.integer({ min: 1, max: 3 }),
  probeLeaseMs: fc.constantFrom(40, 400),
})

type Step =
  | { do: 'call'; failed: boolean }
  | { do: 'pass'; ms: number }
  | { do: 'probe' }
  | { do: 'settle'; back: number; outcome: 'succeeded' | 'failed' | 'abandoned' }
  | { do: 'force'; to: 'open' | 'closed' | null }

const someStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('call' as const), failed: fc.boolean() }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(1, 5, 40, 50, 300, 2_000) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('probe' as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('settle' as const),
      back: fc.nat(2),
      outcome: fc.constantFrom('succeeded' as const, 'failed' as const, 'abandoned' as const),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('force' as const),
      to: fc.constantFrom('open' as const, 'closed' as const, null),
    }),
  },
)

describe('BreakerMachine', () => {
  test('does what the model does, whatever happens when', () => {
    const seen = new Set<string>()
    fc.assert(
      fc.property(someRules, fc.array(someStep, { maxLength: 80 }), (rules, steps) => {
        const machine = new BreakerMachine(rules)
        const model = new BreakerModel(rules)
        let now = 1_000
        for (const step of steps) {
          if (step.do === 'pass') now += step.ms
          else if (step.do === 'probe') expect(machine.probe(now)).toBe(model.probe(now))
          else if (step.do === 'settle') {
            const token = model.lastToken - step.back
            machine.settle(token, step.outcome, now)
            model.settle(token, step.outcome, now)
          } else if (step.do === 'force') {
            machine.force(step.to, 'by hand', now)
            model.force(step.to, now)
          } else {
            model.call(step.failed, now)
            if (step.failed) machine.failed(now)
            else if (machine.state === 'closed') machine.succeeded(now)
          }
          expect({
            state: machine.state,
            epoch: machine.epoch,
            forced: machine.forced,
            retryInMs: machine.retryInMs(now),
            ...machine.window.sum(now),
          }).toEqual({
            state: model.state,
            epoch: model.epoch,
            forced: model.forced,
            retryInMs: model.retryInMs(now),
            ...model.counts(now),
          })
          seen.add(`${step.do} ${machine.state}`)
        }
      }),
      { numRuns: 2_000 },
    )
    expect(seen.size).toBe(15 - 1) // Forced, it is never half-open.
  })

  test('says why it is open', () => {
    const rules = { minimumVolume: 4, windowMs: 1_000, cooldownMs: 100, halfOpenProbes: 1, probeLeaseMs: 100 }
    const none = { failureThreshold: null, consecutiveFailures: null, failureRate: null }
    const reasonWith = (rule: Partial<BreakerRules>) => {
      const machine = new BreakerMachine({ ...rules, ...none, ...rule })
      machine.succeeded(0)
      for (let failures = 0; failures < 3; failures++) machine.failed(0)
      return machine.reason
    }
    expect(reasonWith({ failureThreshold: 3 })).toBe('3 failures within 1000 ms')
    expect(reasonWith({ consecutiveFailures: 2 })).toBe('2 failures in a row')
    expect(reasonWith({ failureRate: 0.75 })).toBe('3 of 4 calls failed within 1000 ms')
    expect(reasonWith({})).toBeNull()
  })

  test('keeps what it has counted when its rules change', () => {
    const rules = { minimumVolume: 1, windowMs: 1_000, cooldownMs: 100, halfOpenProbes: 1, probeLeaseMs: 100 }
    const machine = new BreakerMachine({
      ...rules,
      failureThreshold: 5,
      consecutiveFailures: null,
      failureRate: null,
    })
    machine.failed(0)
    machine.succeeded(0)
    machine.rules = { ...machine.rules, windowMs: 60_000, failureThreshold: 2 }
    expect(machine.window.sum(30_000)).toEqual({ successes: 1, failures: 1 })
    machine.failed(30_000)
    expect(machine.reason).toBe('2 failures within 60000 ms')
  })
})

describe('CallWindow', () => {
  test('lets go of a call after nine tenths of the window at least, and the whole window at most', () => {
    fc.assert(fc.property(fc.nat(10_000), fc.nat(3_000), (at, laterMs) => {
      const window = new CallWindow(1_000)
      window.add(1, 0, at)
      const { successes } = window.sum(at + laterMs)
      if (laterMs <= 900) expect(successes).toBe(1)
      if (laterMs >= 1_000) expect(successes).toBe(0)
    }))
  })
})

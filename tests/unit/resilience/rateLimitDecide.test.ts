/** The formulas of a limit, by properties: whatever is called and whenever, the quota holds. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  decide,
  decideWindow,
  emissionIntervalUs,
  fixedDecide,
  gcraDecide,
  slidingDecide,
  stateWidth,
  type WindowDecision,
  type WindowState,
} from '../../../supabase/functions/_shared/resilience/limits/rateLimitDecide.ts'
import type { RateLimitWindow } from '../../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import { algorithms } from '../../support/rateLimitStore.ts'

const minuteUs = 60_000_000

function windowsOf(algorithm: RateLimitWindow['algorithm']): fc.Arbitrary<RateLimitWindow> {
  return fc.record({
    quota: fc.integer({ min: 1, max: 50 }),
    windowMs: fc.integer({ min: 1, max: 100 }),
    more: fc.integer({ min: -49, max: 20 }),
  }).map(({ quota, windowMs, more }) => {
    const burst = algorithm === 'gcra' ? Math.max(1, quota + more) : quota
    return { name: 'calls', algorithm, quota, windowMs, burst }
  })
}

const anyWindow = fc.oneof(...algorithms.map(windowsOf))

interface Call {
  /** Since the call before. */
  afterUs: number
  cost: number
  count: number
}

// Often at once, often on the very microsecond at which something changes.
const calls: fc.Arbitrary<Call[]> = fc.array(
  fc.record({
    afterUs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 200_000 }), fc.integer({ min: 0, max: 50 })),
    cost: fc.integer({ min: 1, max: 8 }),
    count: fc.integer({ min: 0, max: 8 }),
  }),
  { minLength: 1, maxLength: 80 },
)

const start = fc.integer({ min: 0, max: 2 ** 51 })

interface Step {
  at: number
  call: Call
  before: WindowState | undefined
  decision: WindowDecision
}

function run(window: RateLimitWindow, startUs: number, calls: Call[]): Step[] {
  let state: WindowState | undefined
  let at = startUs
  return calls.map((call) => {
    at += call.afterUs
    const before = state
    const decision = decideWindow(window, state, at, call.cost, call.count)
    state = decision.state
    return { at, call, before, decision }
  })
}

/** Most that was taken in any span of that length, its end not included. */
function mostWithin(steps: Step[], lengthUs: number): number {
  return Math.max(...steps.map(({ at: from }) =>
    steps.filter(({ at }) => at >= from && at < from + lengthUs)
      .reduce((sum, { call, decision }) => sum + decision.admitted * call.cost, 0)
  ))
}

describe('gcraDecide()', () => {
  const window: RateLimitWindow = { name: 'calls', algorithm: 'gcra', quota: 60, windowMs: 60_000, burst: 5 }

  test('gives the burst at once, then a token in each interval', () => {
    let { state, admitted, remaining, retryAfterUs, resetUs } = gcraDecide(window, undefined, 1_000, 1, 9)
    expect({ state, admitted, remaining, retryAfterUs, resetUs }).toEqual({
      state: [5_001_000],
      admitted: 5,
      remaining: 0,
      retryAfterUs: 1_000_000,
      resetUs: 5_000_000,
    })
    ;({ admitted, state } = gcraDecide(window, state, 1_000_999, 1, 1))
    expect(admitted).toBe(0)
    ;({ admitted, state } = gcraDecide(window, state, 1_001_000, 1, 1))
    expect([admitted, state]).toEqual([1, [6_001_000]])
  })

  test('rounds the interval up, so that the quota is never passed', () => {
    expect(emissionIntervalUs({ ...window, quota: 7, windowMs: 1_000 })).toBe(142_858)
    expect(emissionIntervalUs({ ...window, quota: 1_000_000, windowMs: 1_000 })).toBe(1)
  })

  test('gives in any span at most the burst, and what comes back in it', () => {
    fc.assert(
      fc.property(
        windowsOf('gcra'),
        start,
        calls,
        fc.integer({ min: 1, max: 500_000 }),
        (window, at, calls, span) => {
          const back = Math.floor((span - 1) / emissionIntervalUs(window))
          expect(mostWithin(run(window, at, calls), span)).toBeLessThanOrEqual(window.burst + back)
        },
      ),
      { numRuns: 300 },
    )
  })

  test('is a bucket that a token comes back to in each interval', () => {
    fc.assert(fc.property(windowsOf('gcra'), start, calls, (window, at, calls) => {
      const intervalUs = emissionIntervalUs(window)
      let level = window.burst * intervalUs
      for (const { call, decision } of run(window, at, calls)) {
        level = Math.min(window.burst * intervalUs, level + call.afterUs)
        const admitted = Math.min(call.count, Math.floor(level / (call.cost * intervalUs)))
        level -= admitted * call.cost * intervalUs
        expect([decision.admitted, decision.remaining]).toEqual([admitted, Math.floor(level / intervalUs)])
      }
    }))
  })

  test('makes whoever owes tokens wait for all of them', () => {
    const { state, admitted, remaining } = gcraDecide(window, undefined, 0, 1, 20, true)
    expect([state, admitted, remaining]).toEqual([[20_000_000], 20, 0])
    expect(gcraDecide(window, state, 0, 1, 1).retryAfterUs).toBe(16_000_000)
    expect(gcraDecide(window, state, 16_000_000, 1, 1).admitted).toBe(1)
  })
})

describe('fixedDecide()', () => {
  const window: RateLimitWindow = { name: 'calls', algorithm: 'fixed', quota: 3, windowMs: 60_000, burst: 3 }

  test('begins its window with the first call that is taken', () => {
    const looked = fixedDecide(window, undefined, 500, 1, 0)
    expect([looked.state, looked.resetUs]).toEqual([[500, 0], 0])
    const { state, admitted, retryAfterUs } = fixedDecide(window, looked.state, 1_000, 1, 5)
    expect([state, admitted, retryAfterUs]).toEqual([[minuteUs + 1_000, 3], 3, minuteUs])
    expect(fixedDecide(window, state, minuteUs + 999, 1, 1).admitted).toBe(0)
    expect(fixedDecide(window, state, minuteUs + 1_000, 1, 1)).toMatchObject({
      admitted: 1,
      state: [2 * minuteUs + 1_000, 1],
    })
  })

  test('never gives more than the quota in a window', () => {
    fc.assert(fc.property(windowsOf('fixed'), start, calls, (window, at, calls) => {
      const steps = run(window, at, calls)
      const taken = new Map<number, number>()
      for (const { call, decision } of steps) {
        const [endsAt] = decision.state
        taken.set(endsAt!, (taken.get(endsAt!) ?? 0) + decision.admitted * call.cost)
      }
      for (const tokens of taken.values()) expect(tokens).toBeLessThanOrEqual(window.quota)
      const ends = [...taken].filter(([, tokens]) => tokens > 0).map(([endsAt]) => endsAt)
      for (let i = 1; i < ends.length; i++) {
        expect(ends[i]! - ends[i - 1]!).toBeGreaterThanOrEqual(window.windowMs * 1_000)
      }
    }))
  })

  test('forgets with its window what was taken beyond the quota', () => {
    const { state, remaining } = fixedDecide(window, undefined, 0, 1, 20, true)
    expect([state, remaining]).toEqual([[minuteUs, 20], 0])
    expect(fixedDecide(window, state, minuteUs - 1, 1, 1).admitted).toBe(0)
    expect(fixedDecide(window, state, minuteUs, 1, 5).admitted).toBe(3)
  })
})

describe('slidingDecide()', () => {
  const window: RateLimitWindow = {
    name: 'calls',
    algorithm: 'sliding',
    quota: 3,
    windowMs: 60_000,
    burst: 3,
  }

  test('never gives more than the quota in a span of its length, wherever that begins', () => {
    fc.assert(
      fc.property(windowsOf('sliding'), start, calls, (window, at, calls) => {
        expect(mostWithin(run(window, at, calls), window.windowMs * 1_000)).toBeLessThanOrEqual(window.quota)
      }),
      { numRuns: 300 },
    )
  })

  test('never refuses what has room in a span that is a tenth longer', () => {
    fc.assert(fc.property(windowsOf('sliding'), start, calls, (window, at, calls) => {
      const steps = run(window, at, calls)
      const longerUs = 11 * Math.ceil(window.windowMs * 100)
      steps.forEach(({ at, call, decision }, index) => {
        const taken = steps.slice(0, index).filter((step) => step.at > at - longerUs)
          .reduce((sum, step) => sum + step.decision.admitted * step.call.cost, 0)
        const room = Math.floor(Math.max(0, window.quota - taken) / call.cost)
        expect(decision.admitted).toBeGreaterThanOrEqual(Math.min(call.count, room))
      })
    }))
  })

  test('stays in its slice while the clock is set back', () => {
    const { state } = slidingDecide(window, undefined, 100 * minuteUs, 1, 3)
    const back = slidingDecide(window, state, 98 * minuteUs, 1, 1)
    expect([back.admitted, back.state]).toEqual([0, state])
    expect(back.retryAfterUs).toBe(2 * minuteUs + 1.1 * minuteUs)
  })
})

describe.each(algorithms)('a decision with %s', (algorithm) => {
  const window = windowsOf(algorithm)

  test('takes nothing when it refuses (RL6)', () => {
    fc.assert(fc.property(window, start, calls, (window, at, calls) => {
      const kept = calls.filter((_, index) => run(window, at, calls)[index]!.decision.admitted > 0)
      const admitted = (steps: Step[]) => steps.map(({ decision }) => decision.admitted).filter((n) => n > 0)
      // The refused calls left out, their time not.
      let skipped = 0
      const without: Call[] = []
      for (const call of calls) {
        if (!kept.includes(call)) skipped += call.afterUs
        else {
          without.push({ ...call, afterUs: call.afterUs + skipped })
          skipped = 0
        }
      }
      expect(admitted(run(window, at, without))).toEqual(admitted(run(window, at, calls)))
    }))
  })

  test('passes after retryAfterUs and not a microsecond before', () => {
    fc.assert(fc.property(window, start, calls, (window, at, calls) => {
      for (const { at: now, call: { cost }, decision } of run(window, at, calls)) {
        if (cost > window.burst) continue
        const { state, retryAfterUs } = decision
        expect(decideWindow(window, state, now + retryAfterUs, cost, 1).admitted).toBe(1)
        if (retryAfterUs > 0) {
          expect(decideWindow(window, state, now + retryAfterUs - 1, cost, 1).admitted).toBe(0)
        }
      }
    }))
  })

  test('may be forgotten after resetUs and not a microsecond before', () => {
    fc.assert(fc.property(window, start, calls, (window, at, calls) => {
      for (const { at: now, decision: { state, resetUs } } of run(window, at, calls)) {
        const then = decideWindow(window, state, now + resetUs, 1, 0)
        expect([then.remaining, then.resetUs]).toEqual([window.burst, 0])
        if (resetUs > 0) expect(decideWindow(window, state, now + resetUs - 1, 1, 0).resetUs).toBe(1)
      }
    }))
  })

  test('is that of its calls one after another', () => {
    fc.assert(fc.property(window, start, calls, (window, at, calls) => {
      for (const { at: now, call: { cost, count }, before, decision } of run(window, at, calls)) {
        let state = before
        let admitted = 0
        for (let call = 0; call < count; call++) {
          const one = decideWindow(window, state, now, cost, 1)
          admitted += one.admitted
          state = one.state
        }
        expect(admitted).toBe(decision.admitted)
        expect(decideWindow(window, state, now, cost, 0)).toEqual({ ...decision, admitted: 0 })
      }
    }))
  })

  test('takes what it is forced to, whatever there is', () => {
    fc.assert(fc.property(window, start, calls, (window, at, calls) => {
      const { at: now, call: { cost, count }, before, decision } = run(window, at, calls).at(-1)!
      const forced = decideWindow(window, before, now, cost, count, true)
      expect(forced.admitted).toBe(count)
      expect(forced.remaining).toBeLessThanOrEqual(decision.remaining)
      expect(forced.resetUs).toBeGreaterThanOrEqual(decision.resetUs)
    }))
  })

  test('has whole numbers that no store has to round', () => {
    fc.assert(fc.property(window, start, calls, (window, at, calls) => {
      for (const { decision: { state, remaining, resetUs, retryAfterUs } } of run(window, at, calls)) {
        expect(state).toHaveLength(stateWidth[algorithm])
        for (const number of [...state, remaining, resetUs, retryAfterUs]) {
          expect(Number.isSafeInteger(number) && number >= 0).toBe(true)
        }
      }
    }))
  })
})

describe('decide()', () => {
  const windows = fc.array(anyWindow, { minLength: 1, maxLength: 4 })

  test('admits what the strictest window admits, and takes it from all (RL6)', () => {
    fc.assert(fc.property(windows, start, calls, (windows, at, calls) => {
      let states: WindowState[] | undefined
      for (const { afterUs, cost, count } of calls) {
        at += afterUs
        const alone = windows.map((window, i) => decideWindow(window, states?.[i], at, cost, count).admitted)
        const together = decide(windows, states, at, cost, count)
        const admitted = Math.min(...alone)
        expect(together).toEqual(
          windows.map((window, i) => decideWindow(window, states?.[i], at, cost, admitted)),
        )
        states = together.map(({ state }) => state)
      }
    }))
  })

  test('is the same in whatever order the windows are', () => {
    fc.assert(fc.property(windows, start, calls, (windows, startUs, calls) => {
      const admitted = (windows: RateLimitWindow[]) => {
        let states: WindowState[] | undefined
        let at = startUs
        return calls.map(({ afterUs, cost, count }) => {
          at += afterUs
          const decisions = decide(windows, states, at, cost, count)
          states = decisions.map(({ state }) => state)
          return decisions[0]!.admitted
        })
      }
      expect(admitted(windows.toReversed())).toEqual(admitted(windows))
    }))
  })
})

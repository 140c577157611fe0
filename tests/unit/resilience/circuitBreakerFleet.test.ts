/** Breakers of several isolates that live, die and lose their store, whatever happens when. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { CircuitBreaker } from '../../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { MemoryBreakerStore } from '../../../supabase/functions/_shared/resilience/stores/memoryBreakers.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'
import { isolate, outcomeOf, TappedBreakerStore } from '../../support/isolatedBreakers.ts'
import { rules } from '../../support/breakers.ts'

const size = 3
const refreshMs = 500
const tripMs = 20
/** How closely it is looked. */
const stepMs = 10
const cooldownMs = 2_000
const probeLeaseMs = 1_500

type Step =
  /** Calls the service, which takes its time and succeeds or fails. */
  | { do: 'call'; by: number; takesMs: number; fails: boolean }
  | { do: 'pass'; ms: number }
  /** An isolate ends in the middle of whatever it does, and another begins. */
  | { do: 'die'; by: number }
  /** The line of an isolate to the store is cut, or mended. */
  | { do: 'cut' | 'mend'; by: number }

const by = fc.nat(size - 1)

const calls: fc.Arbitrary<Step> = fc.record({
  do: fc.constant('call' as const),
  by,
  takesMs: fc.constantFrom(0, 10, 100, 1_000, 2_500),
  fails: fc.boolean(),
})
const pauses: fc.Arbitrary<Step> = fc.record({
  do: fc.constant('pass' as const),
  ms: fc.constantFrom(1, 15, 100, 500, 2_000),
})
const deaths: fc.Arbitrary<Step> = fc.record({ do: fc.constant('die' as const), by })
const cuts: fc.Arbitrary<Step> = fc.record({ do: fc.constantFrom('cut' as const, 'mend' as const), by })

class Fleet {
  readonly timers = new FakeTimers()
  readonly store = new MemoryBreakerStore({ timers: this.timers })
  readonly isolates: { breaker: CircuitBreaker; line: TappedBreakerStore; calledAt: number[] }[] = []
  /** Probes that are running, with the end of their leases, and the epoch of the store in which they began. */
  probes: { endsAt: number }[] = []
  mostProbes = 0
  /** Since when the store has not been closed. */
  #openSince = Infinity
  /** Calls of isolates that should have known better. */
  readonly blind: string[] = []
  readonly #halfOpenProbes: number

  constructor(halfOpenProbes: number) {
    this.#halfOpenProbes = halfOpenProbes
    for (let n = 0; n < size; n++) this.begin(n)
  }

  /** In the place of another that is cut off with all that it has not told. */
  begin(n: number): void {
    if (this.isolates[n] !== undefined) this.isolates[n].line.error = new Error('The isolate is gone')
    const line = new TappedBreakerStore(this.store, this.timers)
    line.delayMs = tripMs
    const { breakers } = isolate({ timers: this.timers, store: line, refreshMs })
    const halfOpenProbes = this.#halfOpenProbes
    const options = { failureThreshold: 3, windowMs: 5_000, cooldownMs, probeLeaseMs, halfOpenProbes }
    this.isolates[n] = { breaker: breakers.get('service', options), line, calledAt: [] }
  }

  async isClosed(): Promise<boolean> {
    const report = { name: 'service', epoch: 0, successes: 0, failures: 0, trailingFailures: 0 }
    const shared = {
      ...rules,
      windowMs: 5_000,
      cooldownMs,
      probeLeaseMs,
      halfOpenProbes: this.#halfOpenProbes,
    }
    const [status] = await this.store.exchange([{ ...report, rules: shared }])
    return status!.state === 'closed'
  }

  async pass(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += stepMs) {
      await this.timers.advance(Math.min(stepMs, ms - passed))
      if (await this.isClosed()) this.#openSince = Infinity
      else if (this.#openSince === Infinity) this.#openSince = this.timers.now()
    }
  }

  call(n: number, takesMs: number, fails: boolean): Promise<unknown> {
    const { breaker, calledAt } = this.isolates[n]!
    calledAt.push(this.timers.now())
    return outcomeOf(breaker.execute(() => this.#work(n, takesMs, fails)))
  }

  async #work(n: number, takesMs: number, fails: boolean): Promise<string> {
    const now = this.timers.now()
    const { breaker, calledAt } = this.isolates[n]!
    const probe = { endsAt: now + probeLeaseMs - tripMs }
    if (breaker.health().state === 'half_open') {
      this.probes.push(probe)
      this.mostProbes = Math.max(this.mostProbes, this.probes.filter(({ endsAt }) => endsAt > now).length)
    } else if (calledAt.some((at) => at >= this.#openSince + refreshMs + stepMs && at < now - 2 * tripMs)) {
      this.blind.push(`isolate ${n} called at ${now}, open since ${this.#openSince}`)
    }
    if (takesMs > 0) await new Promise<void>((resolve) => this.timers.set(resolve, takesMs))
    this.probes = this.probes.filter((other) => other !== probe)
    if (fails) throw new Error('down')
    return 'up'
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      if (step.do === 'pass') await this.pass(step.ms)
      else if (step.do === 'call') void this.call(step.by, step.takesMs, step.fails)
      else if (step.do === 'die') this.begin(step.by)
      else this.isolates[step.by]!.line.error = step.do === 'cut' ? new Error('cut off') : undefined
    }
  }

  /** The service is well, and everybody calls it. Resolves to how long it took until all were served. */
  async healing(): Promise<number> {
    const since = this.timers.now()
    for (const { line } of this.isolates) line.error = undefined
    for (;;) {
      const all = [0, 1, 2].map((n) => this.call(n, 0, false))
      await this.pass(50)
      const outcomes = await this.timers.settle(Promise.all(all))
      if (outcomes.every((outcome) => outcome === 'up')) return this.timers.now() - since
      if (this.timers.now() - since > 60_000) return Infinity
    }
  }
}

describe('a fleet', () => {
  const lives = fc.array(
    fc.oneof({ weight: 6, arbitrary: calls }, { weight: 4, arbitrary: pauses }, deaths),
    {
      minLength: 20,
      maxLength: 60,
    },
  )

  test('never has more probes under way than it may, and nobody calls who should know better', async () => {
    let probed = 0
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 2 }), lives, async (halfOpenProbes, steps) => {
        const fleet = new Fleet(halfOpenProbes)
        await fleet.run(steps)
        expect(fleet.mostProbes).toBeLessThanOrEqual(halfOpenProbes)
        expect(fleet.blind).toEqual([])
        probed += fleet.mostProbes
      }),
      { numRuns: 30 },
    )
    expect(probed).toBeGreaterThan(0)
  })

  test('heals by itself, whoever died and whatever was cut off', async () => {
    const anything = fc.oneof(
      { weight: 6, arbitrary: calls },
      { weight: 4, arbitrary: pauses },
      deaths,
      { weight: 2, arbitrary: cuts },
    )
    await fc.assert(
      fc.asyncProperty(fc.array(anything, { minLength: 20, maxLength: 60 }), async (steps) => {
        const fleet = new Fleet(1)
        await fleet.run(steps)
        // A probe that failed just now, or one whose isolate died; calls that are still running may fail yet.
        expect(await fleet.healing()).toBeLessThanOrEqual(2_500 + cooldownMs + probeLeaseMs + 3 * refreshMs)
      }),
      { numRuns: 30 },
    )
  })
})

/** A circuit breaker in as few words as possible: every call is remembered, and everything is worked out from that. */
import type { ProbeOutcome } from '../../supabase/functions/_shared/resilience/breaker/breakerState.ts'
import type { BreakerRules } from '../../supabase/functions/_shared/resilience/stores/breakerStore.ts'

export class BreakerModel {
  state: 'closed' | 'open' | 'half_open' = 'closed'
  epoch = 1
  forced: 'open' | 'closed' | null = null
  calls: { at: number; failed: boolean }[] = []
  openedAt = 0
  probes: { token: number; endsAt: number }[] = []
  succeeded = 0
  lastToken = 0
  readonly rules: BreakerRules

  constructor(rules: BreakerRules) {
    this.rules = rules
  }

  call(failed: boolean, now: number): void {
    if (this.state !== 'closed') return
    this.calls.push({ at: now, failed })
    if (failed && this.forced === null && this.#trips(now)) this.#go('open', now)
  }

  probe(now: number): number | null {
    if (this.forced !== null || this.state === 'closed' || this.retryInMs(now) > 0) return null
    if (this.state === 'open') this.#go('half_open', now)
    this.probes.push({ token: ++this.lastToken, endsAt: now + this.rules.probeLeaseMs })
    return this.lastToken
  }

  settle(token: number, outcome: ProbeOutcome, now: number): void {
    if (!this.#live(now).some((probe) => probe.token === token)) return
    this.probes = this.probes.filter((probe) => probe.token !== token)
    if (outcome === 'failed') this.#go('open', now)
    if (outcome === 'succeeded' && ++this.succeeded === this.rules.halfOpenProbes) this.#go('closed', now)
  }

  force(to: 'open' | 'closed' | null, now: number): void {
    this.#go(to ?? 'closed', now)
    this.forced = to
  }

  retryInMs(now: number): number {
    if (this.state === 'closed') return 0
    if (this.forced === 'open') return this.rules.cooldownMs
    if (this.state === 'open') return Math.max(0, this.openedAt + this.rules.cooldownMs - now)
    const live = this.#live(now)
    return live.length + this.succeeded < this.rules.halfOpenProbes
      ? 0
      : Math.min(...live.map(({ endsAt }) => endsAt)) - now
  }

  counts(now: number): { successes: number; failures: number } {
    const within = this.#within(now)
    const failures = within.filter(({ failed }) => failed).length
    return { successes: within.length - failures, failures }
  }

  #live(now: number) {
    return this.probes.filter(({ endsAt }) => endsAt > now)
  }

  /** Tenths of the window: the one that is passing, and the nine before it. */
  #within(now: number) {
    const tenth = (at: number) => Math.floor(at / (this.rules.windowMs / 10))
    return this.calls.filter(({ at }) => tenth(now) - tenth(at) < 10)
  }

  #trips(now: number): boolean {
    const { failureThreshold, consecutiveFailures, failureRate, minimumVolume } = this.rules
    const { successes, failures } = this.counts(now)
    const lastSuccess = this.calls.findLastIndex(({ failed }) => !failed)
    const inARow = this.calls.length - 1 - lastSuccess
    const calls = successes + failures
    return failures >= (failureThreshold ?? Infinity) || inARow >= (consecutiveFailures ?? Infinity) ||
      (calls >= minimumVolume && failures / calls >= (failureRate ?? Infinity))
  }

  #go(state: 'closed' | 'open' | 'half_open', now: number): void {
    this.state = state
    this.epoch++
    this.calls = []
    this.probes = []
    this.succeeded = 0
    if (state === 'open') this.openedAt = now
  }
}

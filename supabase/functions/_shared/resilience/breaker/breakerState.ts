/**
 * The states of a circuit breaker: what is counted, when it trips, who may probe. No clock and no store: times are
 * milliseconds of a clock of the caller's that is never set back. An isolate keeps one for each breaker, for itself; a
 * store that all share keeps one in the same way.
 */
import { CallWindow } from './callWindow.ts'
import type { BreakerRules, BreakerState, BreakerStatus } from '../stores/breakerStore.ts'

export interface CallCounts {
  successes: number
  failures: number
  /** Failures after the last success; all of them where there was none. */
  trailingFailures: number
}

export type AdoptedState = Pick<BreakerStatus, 'state' | 'forced' | 'reason' | 'retryInMs' | 'probeToken'>

export type ProbeOutcome = 'succeeded' | 'failed' | 'abandoned'

type Phase =
  | { state: 'closed' }
  | { state: 'open'; retryAt: number }
  | {
    state: 'half_open'
    /** What was learnt from elsewhere: no place is free before. */
    retryAt: number
    /** When the lease of each probe that is under way ends, by its token. */
    leases: Map<number, number>
    succeeded: number
  }

/** `closed → open → half_open → closed`, and from half-open back to open when a probe fails. */
export class BreakerMachine {
  /** Grows with each transition. */
  epoch = 1
  forced: 'open' | 'closed' | null = null
  /** Why it is open, or forced. */
  reason: string | null = null
  readonly window: CallWindow
  #rules: BreakerRules
  #phase: Phase = { state: 'closed' }
  #consecutive = 0
  #lastToken = 0

  constructor(rules: BreakerRules) {
    this.#rules = rules
    this.window = new CallWindow(rules.windowMs)
  }

  get state(): BreakerState {
    return this.#phase.state
  }

  get rules(): BreakerRules {
    return this.#rules
  }

  /** Another version of the application has others. What was counted stays, as if it had just happened. */
  set rules(rules: BreakerRules) {
    this.#rules = rules
    this.window.resize(rules.windowMs)
  }

  /** One call that began in this epoch, while it is closed. */
  succeeded(now: number): void {
    this.#consecutive = 0
    this.window.add(1, 0, now)
  }

  failed(now: number): void {
    this.add({ successes: 0, failures: 1, trailingFailures: 1 }, now)
  }

  /** Calls that began in this epoch, while it is closed; in any other state they count for nothing. May trip it. */
  add({ successes, failures, trailingFailures }: CallCounts, now: number): void {
    if (this.#phase.state !== 'closed') return
    this.window.add(successes, failures, now)
    this.#consecutive = successes > 0 ? trailingFailures : this.#consecutive + failures
    if (failures === 0 || this.forced !== null) return
    const reason = this.#tripReason(now)
    if (reason !== undefined) this.#open(reason, now)
  }

  /**
   * A right to probe, for `probeLeaseMs`; null while there is none to give. The first that is given ends the open state.
   * At most `halfOpenProbes` rights are out at once, and no more than must still succeed.
   */
  probe(now: number): number | null {
    const phase = this.#phase
    if (this.forced !== null || phase.state === 'closed' || this.retryInMs(now) > 0) return null
    const token = ++this.#lastToken
    const leaseEndsAt = now + this.#rules.probeLeaseMs
    if (phase.state === 'half_open') {
      for (const [token, endsAt] of phase.leases) if (endsAt <= now) phase.leases.delete(token)
      phase.leases.set(token, leaseEndsAt)
    } else {
      const leases = new Map([[token, leaseEndsAt]])
      this.#enter({ state: 'half_open', retryAt: phase.retryAt, leases, succeeded: 0 })
    }
    return token
  }

  /** A token that is out of date, or whose lease has ended, changes nothing. */
  settle(token: number, outcome: ProbeOutcome, now: number): void {
    const phase = this.#phase
    if (phase.state !== 'half_open' || !((phase.leases.get(token) ?? now) > now)) return
    phase.leases.delete(token)
    if (outcome === 'failed') this.#open('A probe failed', now)
    else if (outcome === 'succeeded' && ++phase.succeeded >= this.#rules.halfOpenProbes) this.#close()
  }

  /** Frees the place of a probe that is settled elsewhere. */
  release(token: number): void {
    if (this.#phase.state === 'half_open') this.#phase.leases.delete(token)
  }

  /** null: closed, by the rules again. What was counted is forgotten. */
  force(to: 'open' | 'closed' | null, reason: string | null, now: number): void {
    if (to === 'open') this.#open(reason, now)
    else this.#close()
    this.forced = to
    this.reason = to === null ? null : reason
  }

  /**
   * Until a probe may be asked for: 0 when closed. Held open by hand it is the cooldown, for want of anything better to
   * tell a caller: no probe is granted however long one waits.
   */
  retryInMs(now: number): number {
    const phase = this.#phase
    if (phase.state === 'closed') return 0
    if (this.forced === 'open') return this.#rules.cooldownMs
    if (phase.state === 'open') return Math.max(0, phase.retryAt - now)
    // Rules that ask for fewer than have succeeded already still need one more to close.
    const places = Math.max(1, this.#rules.halfOpenProbes - phase.succeeded)
    const placeAt = phase.leases.size < places ? now : Math.min(...phase.leases.values())
    return Math.max(0, phase.retryAt - now, placeAt - now)
  }

  /**
   * Takes over what a store says of it. A transition where that is news, or another state than this one; otherwise no
   * more than a correction of how long it lasts.
   */
  adopt({ state, forced, reason, retryInMs, probeToken }: AdoptedState, isNews: boolean, now: number): void {
    const retryAt = now + retryInMs
    if (!isNews && state === this.#phase.state && forced === this.forced) {
      if (this.#phase.state !== 'closed') this.#phase.retryAt = retryAt
    } else {
      this.#forget()
      if (state === 'closed') this.#enter({ state })
      else if (state === 'open') this.#enter({ state, retryAt })
      else this.#enter({ state, retryAt, leases: new Map(), succeeded: 0 })
    }
    this.forced = forced
    this.reason = reason
    if (probeToken !== null && this.#phase.state === 'half_open') {
      this.#phase.leases.set(probeToken, now + this.#rules.probeLeaseMs)
      this.#lastToken = Math.max(this.#lastToken, probeToken)
    }
  }

  #tripReason(now: number): string | undefined {
    const { failureThreshold, consecutiveFailures, failureRate, minimumVolume, windowMs } = this.#rules
    const { successes, failures } = this.window.sum(now)
    if (failureThreshold !== null && failures >= failureThreshold) {
      return `${failures} failures within ${windowMs} ms`
    }
    if (consecutiveFailures !== null && this.#consecutive >= consecutiveFailures) {
      return `${this.#consecutive} failures in a row`
    }
    const calls = successes + failures
    if (failureRate !== null && calls >= minimumVolume && failures / calls >= failureRate) {
      return `${failures} of ${calls} calls failed within ${windowMs} ms`
    }
    return undefined
  }

  #open(reason: string | null, now: number): void {
    this.#forget()
    this.#enter({ state: 'open', retryAt: now + this.#rules.cooldownMs })
    this.reason = reason
  }

  #close(): void {
    this.#forget()
    this.#enter({ state: 'closed' })
    this.reason = null
  }

  #enter(phase: Phase): void {
    this.#phase = phase
    this.epoch++
  }

  #forget(): void {
    this.window.clear()
    this.#consecutive = 0
  }
}

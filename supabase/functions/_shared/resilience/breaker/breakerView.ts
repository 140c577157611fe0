/** What one isolate knows of one breaker, what it has not yet told the others, and whom it believes. */
import { type Clock, isoTime, systemClock } from '../../core/clock.ts'
import { BreakerMachine, type ProbeOutcome } from './breakerState.ts'
import type { BreakerReport, BreakerRules, BreakerState, BreakerStatus } from '../stores/breakerStore.ts'

/** A right to make one probe. Local: of this isolate's own making, because the store is away. */
export interface ProbeRight {
  token: number
  local: boolean
}

export interface ViewChange {
  from: BreakerState
  source: 'shared' | 'local'
}

/**
 * The isolate's own machine decides every call. What the store says replaces its state, unless the machine has tripped
 * by failures the store has not been told yet.
 */
export class BreakerView {
  readonly name: string
  readonly rules: BreakerRules
  /** Of this isolate: its epoch counts its own changes of state, and tells which results are out of date. */
  readonly machine: BreakerMachine
  /** The store has spoken of it. */
  heard = false
  /** Called since the last report. */
  touched = false
  /** When the store last spoke of it. */
  heardAt = -Infinity
  wantsProbe = false
  /** ISO 8601, by the store's clock where the store said so. */
  openedAt: string | null = null

  /** The store's. 0: none known yet. */
  #epoch = 0
  #fleet: { successes: number; failures: number } = noCalls()
  #unsent = noCalls()
  #sent = noCalls()
  /** After that the failures among `#unsent` are history. */
  #unsentUntil = Infinity
  /** Tripped by failures of our own: the store has not been told, or has not answered. */
  #ahead: 'unsent' | 'sent' | undefined
  readonly #outcomes: { token: number; outcome: ProbeOutcome }[] = []
  #outcomeSent = false
  #probeAsked = false
  #spare: { token: number; until: number } | undefined
  readonly #onChange: (change: ViewChange) => void
  readonly #wallClock: Clock

  constructor(
    name: string,
    rules: BreakerRules,
    onChange: (change: ViewChange) => void,
    wallClock: Clock = systemClock,
  ) {
    this.name = name
    this.rules = rules
    this.#wallClock = wallClock
    this.machine = new BreakerMachine(rules)
    this.#onChange = onChange
  }

  /** There is something that the others should hear soon. */
  get hasNews(): boolean {
    return this.wantsProbe || this.#outcomes.length > 0 || this.#unsent.failures > 0
  }

  /** There is something that cannot wait: a trip, a probe. */
  get isUrgent(): boolean {
    return this.wantsProbe || this.#outcomes.length > 0 || this.#ahead === 'unsent'
  }

  /** Within the window: of all isolates as the store last said, with what it has not been told. */
  counts(now: number): { successes: number; failures: number } {
    const { successes, failures } = now - this.heardAt < this.rules.windowMs ? this.#fleet : noCalls()
    const { successes: more, failures: worse } = this.#unsent
    return { successes: successes + more, failures: failures + worse }
  }

  /** A call of the machine's present epoch succeeded. */
  succeeded(now: number): void {
    this.machine.succeeded(now)
    this.#unsent.successes++
    this.#unsent.trailingFailures = 0
  }

  /** A call of the machine's present epoch failed. */
  failed(now: number): void {
    const { state } = this.machine
    this.#unsent.failures++
    this.#unsent.trailingFailures++
    this.#unsentUntil = now + this.rules.windowMs
    this.machine.failed(now)
    if (this.machine.state === state) return
    this.#ahead = 'unsent'
    this.#changed(state, 'local')
  }

  /** A right that nobody waited for any more when it came. */
  takeSpare(now: number): ProbeRight | undefined {
    const spare = this.#spare
    if (spare === undefined) return undefined
    this.#spare = undefined
    if (now < spare.until && this.machine.state === 'half_open') return { token: spare.token, local: false }
    this.#outcomes.push({ token: spare.token, outcome: 'abandoned' })
    return undefined
  }

  keepSpare({ token }: ProbeRight, now: number): void {
    this.#spare = { token, until: now + this.rules.probeLeaseMs / 2 }
  }

  /** The right that this isolate gives itself while the store is away. */
  probeLocally(now: number): ProbeRight | undefined {
    const from = this.machine.state
    const token = this.machine.probe(now)
    if (this.machine.state !== from) this.#changed(from, 'local')
    return token === null ? undefined : { token, local: true }
  }

  /** What the store should hear of a probe it has granted: it decides what follows. */
  tellProbe({ token }: ProbeRight, outcome: ProbeOutcome): void {
    this.#outcomes.push({ token, outcome })
  }

  /** Decides by itself what follows from a probe. */
  settleProbe({ token }: ProbeRight, outcome: ProbeOutcome, now: number): void {
    const from = this.machine.state
    this.machine.settle(token, outcome, now)
    if (this.machine.state === from) return
    this.#unsent = noCalls()
    this.#changed(from, 'local')
  }

  force(to: 'open' | 'closed' | null, reason: string | null, now: number): void {
    const from = this.machine.state
    this.machine.force(to, reason, now)
    this.#unsent = noCalls()
    this.#changed(from, 'local')
  }

  /** What the store should hear. `arrived` or `lost` must follow. */
  report(now: number): BreakerReport {
    this.touched = false
    const report: BreakerReport = {
      name: this.name,
      rules: this.rules,
      epoch: this.#epoch,
      successes: 0,
      failures: 0,
      trailingFailures: 0,
    }
    if (now > this.#unsentUntil) this.#unsent = noCalls()
    // Of calls in an epoch that is not known yet nothing can be said.
    if (this.#epoch > 0) {
      this.#sent = this.#unsent
      this.#unsent = noCalls()
      Object.assign(report, this.#sent)
      if (this.#ahead === 'unsent') this.#ahead = 'sent'
    }
    this.#probeAsked = this.wantsProbe
    if (this.wantsProbe) report.wantsProbe = true
    if (this.#outcomes.length > 0) {
      report.probe = this.#outcomes[0]
      this.#outcomeSent = true
    }
    return report
  }

  /** The answer to the last report. The right to probe that came with it, if one did. */
  arrived(status: BreakerStatus, now: number): ProbeRight | undefined {
    if (this.#outcomeSent) this.machine.release(this.#outcomes.shift()!.token)
    this.#answered()
    this.#sent = noCalls()
    this.heard = true
    this.heardAt = now
    this.#fleet = { successes: status.successes, failures: status.failures }
    this.#adopt(status, now)
    return status.probeToken === null ? undefined : { token: status.probeToken, local: false }
  }

  /** The last report may not have been heard. */
  lost(): void {
    this.#answered()
    const { successes, failures, trailingFailures } = this.#unsent
    this.#unsent = {
      successes: this.#sent.successes + successes,
      failures: this.#sent.failures + failures,
      trailingFailures: successes > 0 ? trailingFailures : this.#sent.trailingFailures + trailingFailures,
    }
    this.#sent = noCalls()
  }

  #answered(): void {
    this.#outcomeSent = false
    if (this.#probeAsked) this.wantsProbe = false
    this.#probeAsked = false
  }

  #adopt(status: BreakerStatus, now: number): void {
    const isFirst = this.#epoch === 0
    const isNews = status.epoch !== this.#epoch
    this.#epoch = status.epoch
    // That it is closed, heard for the first time, is no reason to forget how the first calls went.
    const goesOn = !isNews || (isFirst && status.state === 'closed' && status.forced === null)
    if (!goesOn) this.#unsent = noCalls()
    // It answers to what was said before the trip.
    if (goesOn && this.#ahead === 'unsent') return
    this.#ahead = undefined
    const { state: from, epoch } = this.machine
    this.machine.adopt(status, !goesOn, now)
    if (this.machine.epoch !== epoch) this.#changed(from, 'shared', status.openedAt)
  }

  #changed(from: BreakerState, source: 'shared' | 'local', openedAt?: string | null): void {
    if (this.machine.state === 'closed') this.openedAt = null
    else if (openedAt) this.openedAt = openedAt
    else if (this.machine.state === 'open' || this.openedAt === null) {
      this.openedAt = isoTime(this.#wallClock())
    }
    this.#onChange({ from, source })
  }
}

const noCalls = () => ({ successes: 0, failures: 0, trailingFailures: 0 })

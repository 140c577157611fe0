/**
 * Circuit breakers in the memory of one process: for tests, and for a single process with several registries. The rules
 * are those of every other store.
 */
import { type Clock, isoTime, systemClock } from '../../core/clock.ts'
import { BreakerMachine } from '../breaker/breakerState.ts'
import { systemTimers, type Timers } from '../timers.ts'
import type { BreakerReport, BreakerRules, BreakerStatus, BreakerStore } from './breakerStore.ts'

export interface MemoryBreakerStoreOptions {
  /** Decides. @default the system's */
  timers?: Pick<Timers, 'now'>
  /** Only for what `openedAt` shows. @default the system's */
  now?: Clock
}

interface Entry {
  machine: BreakerMachine
  /** The epoch in which `openedAt` was written down. */
  epoch: number
  openedAt: string | null
}

export class MemoryBreakerStore implements BreakerStore {
  readonly #entries = new Map<string, Entry>()
  readonly #timers: Pick<Timers, 'now'>
  readonly #wallClock: Clock

  constructor({ timers = systemTimers, now = systemClock }: MemoryBreakerStoreOptions = {}) {
    this.#timers = timers
    this.#wallClock = now
  }

  exchange(reports: BreakerReport[]): Promise<BreakerStatus[]> {
    return Promise.resolve(reports.map((report) => this.#take(report)))
  }

  force(
    name: string,
    to: 'open' | 'closed' | null,
    reason: string,
    rules: BreakerRules,
  ): Promise<BreakerStatus> {
    const entry = this.#entry(name, rules)
    entry.machine.force(to, reason, this.#timers.now())
    return Promise.resolve(this.#status(name, entry, null))
  }

  close(): Promise<void> {
    return Promise.resolve()
  }

  #take({ name, rules, epoch, probe, wantsProbe, ...counts }: BreakerReport): BreakerStatus {
    const now = this.#timers.now()
    const entry = this.#entry(name, rules)
    const { machine } = entry
    if (probe !== undefined) machine.settle(probe.token, probe.outcome, now)
    if (epoch === machine.epoch) machine.add(counts, now)
    return this.#status(name, entry, wantsProbe ? machine.probe(now) : null)
  }

  #entry(name: string, rules: BreakerRules): Entry {
    let entry = this.#entries.get(name)
    if (entry === undefined) {
      entry = { machine: new BreakerMachine(rules), epoch: 0, openedAt: null }
      this.#entries.set(name, entry)
    } else entry.machine.rules = rules
    return entry
  }

  #status(name: string, entry: Entry, probeToken: number | null): BreakerStatus {
    const now = this.#timers.now()
    const { state, epoch, forced, reason } = entry.machine
    if (state === 'closed') entry.openedAt = null
    else if (state === 'open' && entry.epoch !== epoch) entry.openedAt = isoTime(this.#wallClock())
    entry.epoch = epoch
    return {
      name,
      state,
      epoch,
      forced,
      reason,
      openedAt: entry.openedAt,
      retryInMs: entry.machine.retryInMs(now),
      ...entry.machine.window.sum(now),
      probeToken,
    }
  }
}

/** Circuit breakers for tests: time that passes when a test says so, and logs that can be read. */
import {
  type CircuitBreaker,
  type CircuitBreakerOptions,
  type CircuitBreakers,
  type CircuitBreakersOptions,
  createCircuitBreakers,
} from '../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { createLogger, type Logger } from '../../supabase/functions/_shared/observability/logger.ts'
import type {
  BreakerReport,
  BreakerRules,
  BreakerStatus,
  BreakerStore,
} from '../../supabase/functions/_shared/resilience/stores/breakerStore.ts'
import { MemoryBreakerStore } from '../../supabase/functions/_shared/resilience/stores/memoryBreakers.ts'
import { FakeTimers } from './fakeTimers.ts'

export interface LoggedLine {
  level: string
  message: string
  [field: string]: unknown
}

export function readableLog(): { log: Logger; lines: LoggedLine[] } {
  const lines: LoggedLine[] = []
  return { log: createLogger({ level: 'debug', write: (_, line) => lines.push(JSON.parse(line)) }), lines }
}

/** The breakers of one isolate. Without a store it is on its own. */
export function isolate(options: CircuitBreakersOptions & { timers: FakeTimers }): {
  breakers: CircuitBreakers
  lines: LoggedLine[]
} {
  const { log, lines } = readableLog()
  return { breakers: createCircuitBreakers({ log, ...options }), lines }
}

/** Another store, over a line that can be cut, slowed and listened to. */
export class TappedBreakerStore implements BreakerStore {
  /** What was sent, in the order of the trips. */
  readonly trips: BreakerReport[][] = []
  /** Every trip fails with it. */
  error: unknown
  /** Every answer takes so long; Infinity: there is none. */
  delayMs = 0
  readonly #store: BreakerStore
  readonly #timers: FakeTimers

  constructor(store: BreakerStore, timers: FakeTimers) {
    this.#store = store
    this.#timers = timers
  }

  exchange(reports: BreakerReport[]): Promise<BreakerStatus[]> {
    this.trips.push(structuredClone(reports))
    return this.#over(() => this.#store.exchange(reports))
  }

  force(name: string, to: 'open' | 'closed' | null, reason: string, rules: BreakerRules) {
    return this.#over(() => this.#store.force(name, to, reason, rules))
  }

  close(): Promise<void> {
    return this.#store.close()
  }

  async #over<T>(work: () => Promise<T>): Promise<T> {
    const { error, delayMs } = this
    if (error !== undefined) throw error
    if (delayMs === Infinity) return await new Promise<T>(() => {})
    if (delayMs > 0) await new Promise<void>((resolve) => this.#timers.set(resolve, delayMs))
    return await work()
  }
}

export const down = () => Promise.reject(new Error('The service is down'))
export const up = () => Promise.resolve('up')

/** What became of a call: its value, or the code or the message of its error. */
export async function outcomeOf(call: Promise<unknown>): Promise<unknown> {
  try {
    return await call
  } catch (error) {
    return (error as { code?: string }).code ?? (error as Error).message
  }
}

export const refreshMs = 1_000

/** So many isolates with a breaker for the same service, each with a line of its own to the store they share. */
export function fleet(count: number, options: CircuitBreakerOptions = {}) {
  const timers = new FakeTimers()
  const store = new MemoryBreakerStore({ timers })
  const isolates = Array.from({ length: count }, () => {
    const line = new TappedBreakerStore(store, timers)
    const { breakers, lines } = isolate({ timers, store: line, refreshMs })
    return { line, lines, breakers, breaker: breakers.get('service', options) }
  })
  return { timers, store, isolates, other: (store: BreakerStore) => isolate({ timers, store, refreshMs }) }
}

/** Lets that many calls fail, one after another. */
export async function fail(breaker: CircuitBreaker, calls: number): Promise<void> {
  for (let call = 0; call < calls; call++) await outcomeOf(breaker.execute(down))
}

/**
 * Leaving a sick service alone, in all isolates at once: what one of them finds out the others know within a second.
 * Each decides from its own memory; the store hears of it in the background.
 */
import { type Clock, systemClock } from '../core/clock.ts'
import { env } from '../core/env.ts'
import { createLogger, type Logger } from '../observability/logger.ts'
import { type BreakerSurroundings, CircuitBreaker } from './breaker/breaker.ts'
import { BreakerExchange, type BreakerTrip } from './breaker/breakerExchange.ts'
import type { BreakerHealth } from './breaker/breakerHealth.ts'
import {
  type BreakerSettings,
  type CircuitBreakerOptions,
  differenceOf,
  settingsOf,
} from './breaker/breakerOptions.ts'
import { coarseClock } from './coarseClock.ts'
import type { Work } from './breaker/guardedCall.ts'
import type { BreakerStore } from './stores/breakerStore.ts'
import { requireDuration, systemTimers, type Timers } from './timers.ts'

export type { CircuitBreaker } from './breaker/breaker.ts'
export type { BreakerTrip } from './breaker/breakerExchange.ts'
export type { BreakerHealth } from './breaker/breakerHealth.ts'
export { isFailure } from './breaker/breakerOptions.ts'
export type { CallEvent, CallOutcome, CircuitBreakerOptions, StateChange } from './breaker/breakerOptions.ts'
export { BulkheadFullError, CircuitOpenError } from './breaker/circuitErrors.ts'
export type { Call, Work } from './breaker/guardedCall.ts'

export interface CircuitBreakersOptions {
  /** What the isolates share, or how to come by it when it is first needed. @default none: each is on its own */
  store?: BreakerStore | (() => Promise<BreakerStore | undefined>)
  /** How old what is known may be while calls come. @default 1_000 */
  refreshMs?: number
  /** @default the system's */
  timers?: Timers
  /** For what is shown, never for a decision. @default the system's */
  now?: Clock
  /** For changes of state and outages of the store. @default a new logger */
  log?: Logger
}

export interface CircuitBreakers {
  /**
   * The breaker of that name, the same wherever it is asked for. `TypeError` where it was made with other options, which
   * are compared unless none are given; functions are the first one's. `RangeError` for options out of range.
   */
  get(name: string, options?: CircuitBreakerOptions): CircuitBreaker
  /** From memory, by name. */
  getAllHealth(): Record<string, BreakerHealth>
  /**
   * For whoever goes to the store's database anyway: reports to take along, undefined when none are due. What the store
   * answers must be handed to the trip's `arrived`, or the reason why there is no answer to its `failed`.
   */
  outgoing(): BreakerTrip | undefined
  /** Resolves when nothing is on its way to the store. */
  settled(): Promise<void>
  /** Closes the store. The breakers go on, each on its own. */
  close(): Promise<void>
}

/** `RangeError` for options out of range. Opens nothing. */
export function createCircuitBreakers(options: CircuitBreakersOptions = {}): CircuitBreakers {
  return new Registry(options)
}

class Registry implements CircuitBreakers {
  readonly #breakers = new Map<string, { breaker: CircuitBreaker; settings: BreakerSettings }>()
  readonly #around: BreakerSurroundings

  constructor(
    { store, refreshMs = 1_000, timers = systemTimers, now = systemClock, log }: CircuitBreakersOptions,
  ) {
    requireDuration('Cannot make circuit breakers: refreshMs', refreshMs)
    let logger = log
    const lazyLog = () => logger ??= createLogger()
    const source = store === undefined || typeof store === 'function' ? store : () => Promise.resolve(store)
    this.#around = {
      exchange: new BreakerExchange({ store: source, refreshMs, timers, log: lazyLog }),
      timers,
      now: coarseClock(timers),
      wallClock: now,
      log: lazyLog,
    }
  }

  get(name: string, options?: CircuitBreakerOptions): CircuitBreaker {
    const known = this.#breakers.get(name)
    if (known === undefined) {
      const settings = settingsOf(name, options ?? {})
      const breaker = new CircuitBreaker(name, settings, options ?? {}, this.#around)
      this.#breakers.set(name, { breaker, settings })
      return breaker
    }
    if (options !== undefined) {
      const difference = differenceOf(known.settings, settingsOf(name, options))
      if (difference !== undefined) {
        throw new TypeError(`Cannot share the circuit breaker "${name}": ${difference}`)
      }
    }
    return known.breaker
  }

  getAllHealth(): Record<string, BreakerHealth> {
    return Object.fromEntries([...this.#breakers].map(([name, { breaker }]) => [name, breaker.health()]))
  }

  outgoing(): BreakerTrip | undefined {
    return this.#around.exchange.outgoing()
  }

  settled(): Promise<void> {
    return this.#around.exchange.settled()
  }

  close(): Promise<void> {
    return this.#around.exchange.close()
  }
}

/** This isolate's. They share their state through PostgreSQL where there is a database, loaded with the first call. */
export const circuitBreakers: CircuitBreakers = createCircuitBreakers({
  store: async () => {
    if (env().databaseUrl === undefined) return undefined
    const [{ PostgresBreakerStore }, { db }] = await Promise.all([
      import('./stores/postgresBreakers.ts'),
      import('../db/client.ts'),
    ])
    return new PostgresBreakerStore(db)
  },
})

/** A call whose outcome is a value. The breaker is `circuitBreakers.get(name, options)`. */
export async function withCircuitBreaker<T>(
  name: string,
  work: Work<T>,
  options?: CircuitBreakerOptions,
): Promise<{ success: true; data: T } | { success: false; error: unknown }> {
  const breaker = circuitBreakers.get(name, options)
  try {
    return { success: true, data: await breaker.execute(work) }
  } catch (error) {
    return { success: false, error }
  }
}

/**
 * A bound on retries for each dependency: at most a share of its calls may be retries. When a service is weak, every
 * caller that tries three times triples its load; with a budget of a tenth it gets a tenth more.
 */
import { systemTimers, type Timers } from './timers.ts'

export interface RetryBudgetOptions {
  /** Retries allowed for each call. In (0, 1]. @default 0.1 */
  ratio?: number
  /** Retries allowed besides in each minute, so that a dependency which is rarely called can retry at all. @default 10 */
  perMinute?: number
  /** Unused retries that are kept, and that it begins with. At least 1. @default 10 */
  reserve?: number
}

const defaults = { ratio: 0.1, perMinute: 10, reserve: 10 }

/** Ten tenths are a little less than one. */
const one = 1 - 1e-9

/**
 * Counts in this isolate's memory. Each isolate keeps to its own share; the share of all of them together is the same,
 * the retries per minute and the reserve are per isolate.
 */
export class RetryBudget {
  readonly #settings: Required<RetryBudgetOptions>
  readonly #timers: Timers
  #retries: number
  #countedAt: number

  /** `RangeError` for options out of range. */
  constructor(options: RetryBudgetOptions = {}, timers: Timers = systemTimers) {
    const settings = this.#settings = { ...defaults, ...options }
    if (!(settings.ratio > 0 && settings.ratio <= 1)) throw outOfRange('ratio', 'in (0, 1]', settings.ratio)
    if (!(settings.perMinute >= 0 && settings.perMinute < Infinity)) {
      throw outOfRange('perMinute', '0 or more', settings.perMinute)
    }
    if (!(settings.reserve >= 1 && settings.reserve < Infinity)) {
      throw outOfRange('reserve', '1 or more', settings.reserve)
    }
    this.#timers = timers
    this.#retries = settings.reserve
    this.#countedAt = timers.now()
  }

  /** A call begins, its first attempt. */
  deposit(): void {
    this.#add(this.#settings.ratio)
  }

  /** Whether a retry may be made now; if so, it is counted. */
  withdraw(): boolean {
    const now = this.#timers.now()
    this.#add((now - this.#countedAt) * this.#settings.perMinute / 60_000)
    this.#countedAt = now
    if (this.#retries < one) return false
    this.#retries -= 1
    return true
  }

  /** Whether these are its options. */
  isMadeWith(options: RetryBudgetOptions): boolean {
    return Object.entries({ ...defaults, ...options })
      .every(([name, value]) => this.#settings[name as keyof RetryBudgetOptions] === value)
  }

  #add(retries: number): void {
    this.#retries = Math.min(this.#settings.reserve, this.#retries + retries)
  }
}

const budgets = new Map<string, RetryBudget>()

/**
 * The budget of that dependency in this isolate, the same wherever it is asked for by this name. `TypeError` where it
 * was made with other options: two places would each believe in a bound that does not hold.
 */
export function retryBudget(dependency: string, options?: RetryBudgetOptions): RetryBudget {
  const known = budgets.get(dependency)
  if (known === undefined) {
    const budget = new RetryBudget(options)
    budgets.set(dependency, budget)
    return budget
  }
  if (options !== undefined && !known.isMadeWith(options)) {
    throw new TypeError(`Cannot share the retry budget "${dependency}": it was made with other options`)
  }
  return known
}

function outOfRange(name: string, range: string, value: number): RangeError {
  return new RangeError(`Cannot make a retry budget: ${name} must be ${range}, received ${value}`)
}

/**
 * Trying again what failed for a passing reason: with growing, jittered pauses, within a deadline, and never more than
 * the dependency's budget allows. The error that ended it is rethrown as it is.
 */
import { retryAfterOf } from './retryAfter.ts'
import type { RetryBudget } from './retryBudget.ts'
import { Deadline, untilAborted, withTimeout } from './timeout.ts'
import { longestTimerMs, requireDuration, systemTimers, type Timers, wait } from './timers.ts'
import { isTransient } from './transient.ts'

export interface RetryOptions {
  /** Started executions in all. @default 3 */
  attempts?: number
  /** The pause before the second attempt; it doubles with each. @default 100 */
  initialDelayMs?: number
  /** Longest pause of our own choosing. @default 10_000 */
  maxDelayMs?: number
  /** `full`: a random share of the pause, so that callers who failed together do not return together. @default 'full' */
  jitter?: 'full' | 'none'
  /** Longest pause the other side may ask for. If it asks for more, there is no further attempt. @default 60_000 */
  maxRetryAfterMs?: number
  /** For all attempts and pauses together; the attempt that is running then is given up. @default none */
  timeoutMs?: number
  /** For each attempt, which then counts as failed with `UPSTREAM_TIMEOUT`. @default none */
  attemptTimeoutMs?: number
  /** Shared by all calls of one dependency. @default none */
  budget?: RetryBudget
  /** Which failures are passing. What it throws is rethrown. @default `isTransient` */
  isTransient?: (error: unknown) => boolean
  /** Called before each pause. What it throws, and whether it is done, changes nothing. */
  onRetry?: (event: RetryEvent) => void
  /** In [0, 1). @default Math.random */
  random?: () => number
  /** @default the system's */
  timers?: Timers
}

/** What differs from call to call. */
export interface RetryCall {
  /** Ends it at once, with the signal's reason. */
  signal?: AbortSignal
  /** The time of whoever calls; counts beside `timeoutMs`, the nearer one. */
  deadline?: Deadline
}

export interface RetryEvent {
  error: unknown
  /** The attempt that failed, from 1. */
  attempt: number
  delayMs: number
}

export interface Attempt {
  /** From 1. */
  number: number
  /** Aborted when the attempt is given up. Undefined where nothing can end it: no signal, no time limit. */
  signal: AbortSignal | undefined
  /** The end of all attempts. Undefined without a time limit. */
  deadline: Deadline | undefined
}

export type Work<T> = (attempt: Attempt) => PromiseLike<T>

export type Retry = <T>(work: Work<T>, call?: RetryCall) => Promise<T>

/** A policy, checked once and used for many calls. `RangeError` for options out of range. */
export function createRetry(options?: RetryOptions): Retry {
  const policy = new Policy(options)
  return (work, call) => policy.run(work, call)
}

/** One call with its own options. Rejects with `RangeError`, and starts nothing, when one is out of range. */
export function retry<T>(work: Work<T>, options?: RetryOptions & RetryCall): Promise<T> {
  try {
    const policy = options === undefined ? defaultPolicy ??= new Policy() : new Policy(options)
    return policy.run(work, options)
  } catch (error) {
    return Promise.reject(error)
  }
}

let defaultPolicy: Policy | undefined

class Policy {
  readonly #attempts: number
  readonly #backoff: Backoff
  readonly #maxRetryAfterMs: number
  readonly #timeoutMs: number | undefined
  readonly #attemptTimeoutMs: number | undefined
  readonly #budget: RetryBudget | undefined
  readonly #isTransient: (error: unknown) => boolean
  readonly #onRetry: ((event: RetryEvent) => void) | undefined
  readonly #timers: Timers

  constructor(options: RetryOptions = {}) {
    const { attempts = 3, maxRetryAfterMs = 60_000, timeoutMs, attemptTimeoutMs } = options
    if (!(Number.isSafeInteger(attempts) && attempts > 0)) {
      throw new RangeError(`Cannot retry: attempts must be a positive whole number, received ${attempts}`)
    }
    requireDuration('Cannot retry: maxRetryAfterMs', maxRetryAfterMs)
    if (timeoutMs !== undefined) requireDuration('Cannot retry: timeoutMs', timeoutMs)
    if (attemptTimeoutMs !== undefined) requireDuration('Cannot retry: attemptTimeoutMs', attemptTimeoutMs)
    this.#attempts = attempts
    this.#backoff = backoffOf(options)
    this.#maxRetryAfterMs = maxRetryAfterMs
    this.#timeoutMs = timeoutMs
    this.#attemptTimeoutMs = attemptTimeoutMs
    this.#budget = options.budget
    this.#isTransient = options.isTransient ?? isTransient
    this.#onRetry = options.onRetry
    this.#timers = options.timers ?? systemTimers
  }

  async run<T>(work: Work<T>, call?: RetryCall): Promise<T> {
    const signal = call?.signal
    if (signal?.aborted) throw signal.reason
    this.#budget?.deposit()
    const deadline = this.#deadline(call?.deadline)
    for (let number = 1;; number++) {
      try {
        const pending = this.#start(work, { number, signal, deadline })
        if (signal === undefined) return await pending
        // Listening costs more than all the rest, and work that has its result at once needs nobody to listen.
        const result = Promise.resolve(pending)
        let done: { value: T } | undefined
        result.then((value) => {
          done = { value }
        }, () => {})
        await undefined
        return done === undefined ? await untilAborted(result, signal) : done.value
      } catch (error) {
        if (signal?.aborted) throw signal.reason
        const delayMs = this.#delayBeforeNext(error, number, deadline)
        if (delayMs === undefined) throw error
        this.#tell({ error, attempt: number, delayMs })
        await wait(delayMs, signal, this.#timers)
        // A timer may be late.
        if (deadline?.remainingMs() === 0) throw error
      }
    }
  }

  #start<T>(work: Work<T>, attempt: Attempt): PromiseLike<T> {
    const { signal, deadline } = attempt
    const timeoutMs = this.#attemptTimeoutMs
    if (deadline === undefined && timeoutMs === undefined) return work(attempt)
    const limits = { timeoutMs, deadline, signal, timers: this.#timers }
    return withTimeout((signal) => work({ ...attempt, signal }), limits)
  }

  #deadline(given: Deadline | undefined): Deadline | undefined {
    if (this.#timeoutMs === undefined) return given
    return given?.shrink({ timeoutMs: this.#timeoutMs }) ?? Deadline.in(this.#timeoutMs, this.#timers)
  }

  /** Undefined when there is to be no next attempt. Counts the retry. */
  #delayBeforeNext(error: unknown, attempt: number, deadline: Deadline | undefined): number | undefined {
    if (attempt >= this.#attempts || !this.#isTransient(error)) return undefined
    const asked = askedFor(error)
    if (asked > this.#maxRetryAfterMs) return undefined
    const delayMs = nextDelayMs(attempt, asked, this.#backoff)
    if (deadline !== undefined && delayMs >= deadline.remainingMs()) return undefined
    if (this.#budget?.withdraw() === false) return undefined
    return delayMs
  }

  #tell(event: RetryEvent): void {
    try {
      // Whoever gives an async function gets it called, and nobody waits for it.
      const result: unknown = this.#onRetry?.(event)
      if (result instanceof Promise) result.catch(() => {})
    } catch {
      // An observer cannot break the work.
    }
  }
}

export interface Backoff {
  initialDelayMs: number
  maxDelayMs: number
  jitter: 'full' | 'none'
  random: () => number
}

function backoffOf(options: RetryOptions): Backoff {
  const { initialDelayMs = 100, maxDelayMs = 10_000, jitter = 'full', random = Math.random } = options
  requireDuration('Cannot retry: initialDelayMs', initialDelayMs)
  requireDuration('Cannot retry: maxDelayMs', maxDelayMs)
  if (jitter !== 'full' && jitter !== 'none') {
    throw new RangeError(`Cannot retry: jitter must be 'full' or 'none', received ${jitter}`)
  }
  return { initialDelayMs, maxDelayMs, jitter, random }
}

/**
 * The pause after attempt number `attempt`. What the other side asked for comes first and our own pause behind it, so
 * that all who were told the same second do not return in the same instant.
 */
export function nextDelayMs(attempt: number, askedMs: number, backoff: Backoff): number {
  const longest = Math.min(backoff.maxDelayMs, backoff.initialDelayMs * 2 ** (attempt - 1))
  const own = backoff.jitter === 'full' ? backoff.random() * longest : longest
  return Math.min(longestTimerMs, askedMs + own)
}

/** In milliseconds, 0 where nothing is asked: of a response, alone or behind an error, or by the error itself. */
function askedFor(error: unknown): number {
  if (error instanceof Response) return retryAfterOf(error) ?? 0
  if (!(error instanceof Error)) return 0
  const { retryAfterMs, context } = error as { retryAfterMs?: unknown; context?: unknown }
  if (typeof retryAfterMs === 'number' && retryAfterMs > 0) return retryAfterMs
  return context instanceof Response ? retryAfterOf(context) ?? 0 : 0
}

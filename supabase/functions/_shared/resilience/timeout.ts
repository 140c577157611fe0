/** Time limits, and how what is called gets less time than whoever calls. */
import { HoldfastError } from '../core/errors.ts'
import { requireDuration, systemTimers, type Timers } from './timers.ts'

export interface TimeoutOptions {
  /** In milliseconds, above 0. @default what the deadline leaves */
  timeoutMs?: number
  /** The time ends with it, where it is nearer than `timeoutMs`. */
  deadline?: Deadline
  /** The caller's own; when it is aborted first, the call rejects with its reason. */
  signal?: AbortSignal
  /** @default the system's */
  timers?: Timers
}

/**
 * Runs `work` and rejects with `UPSTREAM_TIMEOUT` when it takes longer, or with the reason of `signal`. In both cases
 * the signal that `work` was given is aborted; work that ignores it goes on, and nobody looks at what becomes of it.
 * Nothing is started when the deadline has passed. `RangeError` for a time out of range, `TypeError` for none at all.
 */
export async function withTimeout<T>(
  work: (signal: AbortSignal) => PromiseLike<T>,
  { timeoutMs, deadline, signal, timers = systemTimers }: TimeoutOptions,
): Promise<T> {
  if (timeoutMs === undefined && deadline === undefined) {
    throw new TypeError('Cannot limit a call: neither timeoutMs nor a deadline is given')
  }
  if (timeoutMs !== undefined) requireDuration('Cannot limit a call: timeoutMs', timeoutMs)
  signal?.throwIfAborted()
  const leftMs = Math.min(timeoutMs ?? Infinity, deadline?.remainingMs() ?? Infinity)
  if (leftMs <= 0) throw tooLate()

  const controller = new AbortController()
  const abort = () => controller.abort(signal!.reason)
  const timer = timers.set(() => controller.abort(timedOut(leftMs)), leftMs)
  signal?.addEventListener('abort', abort, { once: true })
  try {
    return await untilAborted(work(controller.signal), controller.signal)
  } finally {
    timers.clear(timer)
    signal?.removeEventListener('abort', abort)
  }
}

/**
 * The promise's value, or a rejection with the signal's reason as soon as it is aborted. What the promise does after
 * that is not looked at. Leaves no listener.
 */
export function untilAborted<T>(promise: PromiseLike<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    const stopListening = () => signal.removeEventListener('abort', abort)
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort, { once: true })
    promise.then((value) => {
      stopListening()
      resolve(value)
    }, (error) => {
      stopListening()
      reject(error)
    })
  })
}

/** A moment by which an answer has to be there, by a clock that is never set back. */
export class Deadline {
  readonly #endsAt: number
  readonly #timers: Timers

  private constructor(endsAt: number, timers: Timers) {
    this.#endsAt = endsAt
    this.#timers = timers
  }

  /** So many milliseconds from now. `RangeError` for a time out of range. */
  static in(timeoutMs: number, timers: Timers = systemTimers): Deadline {
    requireDuration('Cannot set a deadline: timeoutMs', timeoutMs)
    return new Deadline(timers.now() + timeoutMs, timers)
  }

  /** The deadline of a request, of its route's context: its time began when it arrived. */
  static of(context: { deadlineAt: number }, timers: Timers = systemTimers): Deadline {
    if (!Number.isFinite(context.deadlineAt)) {
      throw new RangeError(`Cannot set a deadline: deadlineAt must be a time, received ${context.deadlineAt}`)
    }
    return new Deadline(timers.now() + context.deadlineAt - Date.now(), timers)
  }

  /** Milliseconds left; 0 when it has passed. */
  remainingMs(): number {
    return Math.max(0, this.#endsAt - this.#timers.now())
  }

  /**
   * For something called on the way: never later than this one, `reserveMs` before it, so that time is left to answer,
   * and at most `timeoutMs` from now. `RangeError` for times out of range.
   */
  shrink({ timeoutMs, reserveMs }: { timeoutMs?: number; reserveMs?: number }): Deadline {
    if (timeoutMs !== undefined) requireDuration('Cannot shrink a deadline: timeoutMs', timeoutMs)
    if (reserveMs !== undefined) requireDuration('Cannot shrink a deadline: reserveMs', reserveMs)
    const endsAt = Math.min(this.#endsAt - (reserveMs ?? 0), this.#timers.now() + (timeoutMs ?? Infinity))
    return new Deadline(endsAt, this.#timers)
  }

  /** For what takes a number: whole milliseconds, at least 1. Throws `UPSTREAM_TIMEOUT` when it has passed. */
  timeoutMs(): number {
    const leftMs = this.remainingMs()
    if (leftMs <= 0) throw tooLate()
    return Math.ceil(leftMs)
  }
}

function timedOut(ms: number): HoldfastError {
  return new HoldfastError('UPSTREAM_TIMEOUT', `Cannot finish the call: no answer within ${Math.ceil(ms)} ms`)
}

function tooLate(): HoldfastError {
  return new HoldfastError('UPSTREAM_TIMEOUT', 'Cannot begin the call: its deadline has passed')
}

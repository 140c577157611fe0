/**
 * Asks a store that may be away. After a failure nobody asks for a while, so that calls do not wait for a dead store one
 * after another; then one call asks again, and with its answer all are back.
 */
import type { Logger } from '../observability/logger.ts'
import { HoldfastError } from '../core/errors.ts'
import { isAway } from './idempotencyErrors.ts'
import type { Timers } from './timers.ts'

/** Shared by all who ask the same store. */
interface Outage {
  /** Undefined while the store answers. */
  since: number | undefined
  askAgainAt: number
}

export interface StoreWatchOptions {
  /** What is asked, as logs call it: `the store of rate limits`. */
  what: string
  /** Longest wait for an answer. */
  timeoutMs: number
  /** Between two questions while the store is away. */
  pauseMs: number
  timers: Timers
  log: Pick<Logger, 'info' | 'warn' | 'error'>
}

interface Waiting {
  until: number
  giveUp(): void
  isOver: boolean
  before: Waiting | undefined
  after: Waiting | undefined
}

const outages = new WeakMap<object, Outage>()

export class StoreWatch {
  readonly #outage: Outage
  readonly #options: StoreWatchOptions
  /** In the order in which they began, which is that in which their time is over. One timer serves them all. */
  #first: Waiting | undefined
  #last: Waiting | undefined
  #timer: unknown

  /** `store`: whoever gives the same one here shares what is known of it. */
  constructor(store: object, options: StoreWatchOptions) {
    let outage = outages.get(store)
    if (outage === undefined) outages.set(store, outage = { since: undefined, askAgainAt: 0 })
    this.#outage = outage
    this.#options = options
  }

  /**
   * `given` of the answer, or `otherwise` where there is none: the store is away, fails, or takes too long. What either
   * throws is rethrown.
   */
  ask<Answer, Result>(
    question: () => Promise<Answer>,
    given: (answer: Answer) => Result,
    otherwise: () => Result,
  ): Promise<Result> {
    const { timers, timeoutMs, pauseMs } = this.#options
    const outage = this.#outage
    if (outage.since !== undefined) {
      const now = timers.now()
      if (now < outage.askAgainAt) return settled(otherwise)
      // This call asks; the others go on without until it has its answer.
      outage.askAgainAt = now + pauseMs + timeoutMs
    }
    return new Promise((resolve, reject) => {
      const settle = (result: () => Result) => {
        try {
          resolve(result())
        } catch (error) {
          reject(error)
        }
      }
      const waiting = this.#begin(() => {
        this.#failed(
          new HoldfastError('UPSTREAM_TIMEOUT', `Cannot wait for an answer: none came in ${timeoutMs} ms`),
        )
        settle(otherwise)
      })
      let asked: Promise<Answer>
      try {
        asked = question()
      } catch (error) {
        asked = Promise.reject(error)
      }
      asked.then((answer) => {
        if (!this.#end(waiting)) return
        this.#answered()
        settle(() => given(answer))
      }, (error) => {
        if (!this.#end(waiting)) return
        this.#failed(error)
        settle(otherwise)
      })
    })
  }

  #answered(): void {
    const outage = this.#outage
    if (outage.since === undefined) return
    const { what, log, timers } = this.#options
    log.info(`${what} is back`, { awayMs: Math.round(timers.now() - outage.since) })
    outage.since = undefined
  }

  #failed(error: unknown): void {
    const { what, log, timers, pauseMs } = this.#options
    const outage = this.#outage
    const now = timers.now()
    outage.askAgainAt = now + pauseMs
    if (outage.since !== undefined) return
    outage.since = now
    // What is no outage does not pass by itself.
    if (isAway(error)) log.warn(`${what} is away, this isolate decides alone`, { error })
    else log.error(`${what} fails, this isolate decides alone`, { error })
  }

  #begin(giveUp: () => void): Waiting {
    const { timers, timeoutMs } = this.#options
    const last = this.#last
    const waiting: Waiting = {
      until: timers.now() + timeoutMs,
      giveUp,
      isOver: false,
      before: last,
      after: undefined,
    }
    if (last === undefined) this.#first = waiting
    else last.after = waiting
    this.#last = waiting
    this.#timer ??= timers.set(this.#expire, timeoutMs)
    return waiting
  }

  /** False when it was given up before. Leaves no timer behind the last one. */
  #end(waiting: Waiting): boolean {
    if (!this.#remove(waiting)) return false
    if (this.#first === undefined) {
      this.#options.timers.clear(this.#timer)
      this.#timer = undefined
    }
    return true
  }

  #remove(waiting: Waiting): boolean {
    if (waiting.isOver) return false
    waiting.isOver = true
    const { before, after } = waiting
    if (before === undefined) this.#first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    waiting.before = waiting.after = undefined
    return true
  }

  #expire = (): void => {
    const { timers } = this.#options
    this.#timer = undefined
    const now = timers.now()
    for (let waiting = this.#first; waiting !== undefined; waiting = this.#first) {
      if (waiting.until > now) {
        this.#timer = timers.set(this.#expire, waiting.until - now)
        return
      }
      this.#remove(waiting)
      waiting.giveUp()
    }
  }
}

/** What the work returns or throws, as a promise. */
async function settled<T>(work: () => T): Promise<T> {
  return await work()
}

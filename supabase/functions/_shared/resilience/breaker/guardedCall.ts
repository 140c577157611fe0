/** One call through a breaker that has more to it than its work: a time limit, a place in a bulkhead, a fallback. */
import { HoldfastError } from '../../core/errors.ts'
import type { Bulkhead, Waiting } from './bulkhead.ts'
import type { ProbeRight } from './breakerView.ts'
import type { CallOutcome } from './breakerOptions.ts'
import type { CallTimeouts, TimedCall } from './callTimeouts.ts'
import type { Deadline } from '../timeout.ts'
import type { Timers } from '../timers.ts'

/** What is called. It is given a signal if it declares a parameter: making one costs more than all the rest. */
export type Work<T> = (signal: AbortSignal) => PromiseLike<T> | T

/** What differs from call to call. */
export interface Call<T> {
  /** Its value instead of a refusal, a failure or a late answer. Not for what the caller did wrong, or gave up. */
  fallback?: (error: unknown) => PromiseLike<T> | T
  /** Ends it at once, with the signal's reason. Says nothing about the service. */
  signal?: AbortSignal
  /** The time of whoever calls; counts beside `timeoutMs`, the nearer one. */
  deadline?: Deadline
}

/** What it needs of its breaker. */
export interface CallHost {
  readonly name: string
  readonly timers: Timers
  readonly timeouts: CallTimeouts | undefined
  readonly timeoutMs: number | undefined
  readonly bulkhead: Bulkhead | undefined
  now(): number
  /** The machine's: results of calls that began in another one count for nothing. */
  readonly epoch: number
  /** Undefined: go on. Otherwise what a call that has waited for its place is refused with by now. */
  refusal(): unknown
  outcomeOf(error: unknown): CallOutcome
  /** Counts it. A promise where there is somebody to tell first. */
  over(call: GuardedCall<unknown>, outcome: CallOutcome, error: unknown): Promise<void> | undefined
}

export class GuardedCall<T> implements TimedCall, Waiting {
  endsAt = 0
  before: TimedCall | undefined
  after: TimedCall | undefined
  readonly promise: Promise<T>
  readonly startedAt: number
  readonly right: ProbeRight | undefined
  /** The machine's, when the work began. */
  epoch = 0
  readonly #host: CallHost
  readonly #work: Work<T>
  readonly #call: Call<T> | undefined
  #resolve!: (value: T | PromiseLike<T>) => void
  #reject!: (error: unknown) => void
  #controller: AbortController | undefined
  #ownTimer: unknown
  #place: 'none' | 'waiting' | 'taken' = 'none'
  #isOver = false

  constructor(
    host: CallHost,
    work: Work<T>,
    call: Call<T> | undefined,
    startedAt: number,
    right: ProbeRight | undefined,
  ) {
    this.#host = host
    this.#work = work
    this.#call = call
    this.startedAt = startedAt
    this.right = right
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  /** Runs it, now or when there is room. `full` makes what it is refused with when there is none. */
  start(full: () => unknown): Promise<T> {
    const { bulkhead } = this.#host
    this.#call?.signal?.addEventListener('abort', this, { once: true })
    if (bulkhead === undefined) this.#run()
    else if (bulkhead.tryEnter()) this.#enterAndRun()
    else if (this.right !== undefined) {
      bulkhead.enterAnyway()
      this.#enterAndRun()
    } else if (bulkhead.tryQueue(this)) this.#wait()
    else this.#end('bulkhead_full', full())
    return this.promise
  }

  /** Its turn in the bulkhead. */
  enter(): void {
    this.#place = 'taken'
    this.#clearTimer()
    this.reconsider()
    if (!this.#isOver) this.#run()
  }

  /** The breaker has changed its state while this waited. */
  reconsider(): void {
    const refusal = this.#host.refusal()
    if (refusal !== undefined) this.#end('refused', refusal)
  }

  timeOut(): void {
    this.#tooLate(this.#host.timeoutMs!)
  }

  /** The caller's signal is aborted. */
  handleEvent(): void {
    if (this.#isOver) return
    const { reason } = this.#call!.signal!
    this.#end('aborted', reason)
    this.#controller?.abort(reason)
  }

  #enterAndRun(): void {
    this.#place = 'taken'
    this.#run()
  }

  #run(): void {
    const { timeouts, timeoutMs } = this.#host
    this.epoch = this.#host.epoch
    const leftMs = this.#call?.deadline?.remainingMs() ?? Infinity
    if (leftMs <= 0) return this.#end('out_of_time', passed(this.#host.name))
    if (leftMs < (timeoutMs ?? Infinity)) this.#setTimer(leftMs, () => this.#tooLate(leftMs))
    else timeouts?.add(this, this.#host.now())
    try {
      const work = this.#work
      const result = work.length === 0 ? (work as () => PromiseLike<T> | T)() : work(this.#signal())
      if (typeof (result as PromiseLike<T> | null | undefined)?.then === 'function') {
        ;(result as PromiseLike<T>).then(
          (value) => this.#succeed(value),
          (error) => this.#fail(error),
        )
      } else this.#succeed(result as T)
    } catch (error) {
      this.#fail(error)
    }
  }

  #wait(): void {
    this.#place = 'waiting'
    const { deadline } = this.#call ?? {}
    if (deadline === undefined) return
    this.#setTimer(deadline.remainingMs(), () => this.#end('out_of_time', passed(this.#host.name)))
  }

  #setTimer(ms: number, end: () => void): void {
    this.#clearTimer()
    this.#ownTimer = this.#host.timers.set(end, Math.ceil(ms))
  }

  #clearTimer(): void {
    if (this.#ownTimer !== undefined) this.#host.timers.clear(this.#ownTimer)
    this.#ownTimer = undefined
  }

  #signal(): AbortSignal {
    const { signal, deadline } = this.#call ?? {}
    if (signal !== undefined && deadline === undefined && this.#host.timeouts === undefined) return signal
    this.#controller = new AbortController()
    return this.#controller.signal
  }

  #succeed(value: T): void {
    if (this.#isOver) return
    const telling = this.#over('succeeded', undefined)
    if (telling === undefined) this.#resolve(value)
    else void telling.then(() => this.#resolve(value))
  }

  #fail(error: unknown): void {
    if (!this.#isOver) this.#end(this.#host.outcomeOf(error), error)
  }

  #tooLate(ms: number): void {
    if (this.#isOver) return
    const error = new HoldfastError(
      'UPSTREAM_TIMEOUT',
      `Cannot finish the call of "${this.#host.name}": no answer within ${Math.ceil(ms)} ms`,
    )
    // A service that was given less than half of its time by a caller in a hurry is not to blame.
    this.#end(ms * 2 < (this.#host.timeoutMs ?? 0) ? 'out_of_time' : 'timed_out', error)
    this.#controller?.abort(error)
  }

  #end(outcome: CallOutcome, error: unknown): void {
    const telling = this.#over(outcome, error)
    const fallback = outcome === 'excused' || outcome === 'aborted' ? undefined : this.#call?.fallback
    const settle = () => {
      if (fallback === undefined) this.#reject(error)
      else this.#resolve(settled(() => fallback(error)))
    }
    if (telling === undefined) settle()
    else void telling.then(settle)
  }

  #over(outcome: CallOutcome, error: unknown): Promise<void> | undefined {
    this.#isOver = true
    // Counted before its place is free: whoever waits for the place should know.
    const telling = this.#host.over(this as GuardedCall<unknown>, outcome, error)
    this.#leave()
    return telling
  }

  #leave(): void {
    this.#host.timeouts?.remove(this)
    this.#clearTimer()
    this.#call?.signal?.removeEventListener('abort', this)
    if (this.#place === 'taken') this.#host.bulkhead!.leave()
    else if (this.#place === 'waiting') this.#host.bulkhead!.giveUp(this)
    this.#place = 'none'
  }
}

/** The caller's time was over before the service was asked. */
export function passed(name: string): HoldfastError {
  return new HoldfastError('UPSTREAM_TIMEOUT', `Cannot call "${name}": the deadline has passed`)
}

async function settled<T>(work: () => PromiseLike<T> | T): Promise<T> {
  return await work()
}

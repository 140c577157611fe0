/** One circuit breaker, as whoever calls the service sees it. */
import type { Clock } from '../../core/clock.ts'
import type { Logger } from '../../observability/logger.ts'
import { count, type Counter, counter } from '../../observability/metrics.ts'
import type { BreakerExchange } from './breakerExchange.ts'
import { type BreakerHealth, healthOf } from './breakerHealth.ts'
import {
  type BreakerSettings,
  type CallOutcome,
  type CircuitBreakerOptions,
  isAbort,
  isFailure,
  type StateChange,
} from './breakerOptions.ts'
import { BreakerView, type ProbeRight, type ViewChange } from './breakerView.ts'
import { Bulkhead } from './bulkhead.ts'
import { CallTimeouts } from './callTimeouts.ts'
import { BulkheadFullError, CircuitOpenError } from './circuitErrors.ts'
import { type Call, type CallHost, GuardedCall, passed, type Work } from './guardedCall.ts'
import type { ProbeOutcome } from './breakerState.ts'
import { untilAborted } from '../timeout.ts'
import type { Timers } from '../timers.ts'

/** What the breakers of one isolate share. */
export interface BreakerSurroundings {
  exchange: BreakerExchange
  timers: Timers
  /** As `timers.now`, for those who ask at every call. */
  now: () => number
  wallClock: Clock
  log: () => Logger
}

/** When to come back while a probe is under way. */
const answeredSoonMs = 1_000

const outcomes: readonly CallOutcome[] = [
  'succeeded',
  'failed',
  'timed_out',
  'excused',
  'aborted',
  'out_of_time',
  'refused',
  'bulkhead_full',
]

export class CircuitBreaker {
  readonly name: string
  readonly #settings: BreakerSettings
  readonly #options: CircuitBreakerOptions
  readonly #around: BreakerSurroundings
  readonly #now: () => number
  readonly #exchange: BreakerExchange
  readonly #view: BreakerView
  readonly #host: CallHost
  readonly #bulkhead: Bulkhead | undefined
  readonly #timeouts: CallTimeouts | undefined
  readonly #calls: Record<CallOutcome, Counter>
  /** The store has spoken, or will not. */
  #isReady: boolean
  /** Calls flow, and nothing has to be done for them but to count. */
  #isPlain = false
  #epoch!: number
  #lastNow = 0
  #forced: 'open' | 'closed' | null = null
  #succeed!: <T>(value: T) => T
  #fail!: (error: unknown) => never
  #refusal: CircuitOpenError | undefined
  #full: BulkheadFullError | undefined

  /** Made by `circuitBreakers.get`. */
  constructor(
    name: string,
    settings: BreakerSettings,
    options: CircuitBreakerOptions,
    around: BreakerSurroundings,
  ) {
    const { timeoutMs, maxConcurrent, maxQueued } = settings
    this.name = name
    this.#settings = settings
    this.#options = options
    this.#around = around
    this.#now = around.now
    this.#exchange = around.exchange
    this.#view = new BreakerView(name, settings.rules, (change) => this.#changed(change), around.wallClock)
    this.#bulkhead = maxConcurrent === undefined ? undefined : new Bulkhead(maxConcurrent, maxQueued)
    this.#timeouts = timeoutMs === undefined ? undefined : new CallTimeouts(timeoutMs, around.timers)
    this.#calls = Object.fromEntries(
      outcomes.map((
        outcome,
      ) => [outcome, counter('circuit_breaker_calls_total', { breaker: name, outcome })]),
    ) as Record<CallOutcome, Counter>
    this.#host = this.#hostOfCalls()
    this.#isReady = this.#exchange.isAlone
    this.#exchange.add(this.#view)
    this.#renew()
  }

  /**
   * Calls `work` and settles as it does. Rejects with `CircuitOpenError` or `BulkheadFullError`, without having called
   * it, with `UPSTREAM_TIMEOUT` when it takes longer than `timeoutMs`, and with the signal's reason when the caller gives
   * up; with a fallback, its value takes the place of what the service is to blame for.
   */
  execute<T>(work: Work<T>, call?: Call<T>): Promise<T> {
    const now = this.#lastNow = this.#now()
    this.#view.touched = true
    if (!this.#isPlain || call !== undefined || work.length > 0) return this.#guarded(work, call, now)
    if (now >= this.#exchange.dueAt) this.#exchange.look(now)
    let result: PromiseLike<T> | T
    try {
      result = (work as () => PromiseLike<T> | T)()
    } catch (error) {
      result = Promise.reject(error)
    }
    if (!(result instanceof Promise)) result = Promise.resolve(result)
    return (result as Promise<T>).then(this.#succeed, this.#fail)
  }

  /**
   * Throws the `CircuitOpenError` that a call would be refused with now. Asks for nothing: where a call could become a
   * probe, it does not throw.
   */
  requireAvailable(): void {
    const now = this.#now()
    this.#view.touched = true
    if (now >= this.#exchange.dueAt) this.#exchange.look(now)
    const refusal = this.#refusalAt(now)
    if (refusal === undefined) return
    this.#calls.refused.add()
    throw refusal
  }

  /**
   * Refuses all calls, in all isolates, until it is forced closed or reset. Rejects with the store's error, and changes
   * nothing, when the store is away.
   */
  forceOpen(reason: string): Promise<void> {
    return this.#exchange.force(this.#view, 'open', reason)
  }

  /** Lets all calls through, whatever becomes of them, until it is forced open or reset. Otherwise as `forceOpen`. */
  forceClose(reason = 'Held closed by hand'): Promise<void> {
    return this.#exchange.force(this.#view, 'closed', reason)
  }

  /** Closed, and by its rules again; what was counted is forgotten. Otherwise as `forceOpen`. */
  reset(): Promise<void> {
    return this.#exchange.force(this.#view, null, 'Reset by hand')
  }

  /** From memory. */
  health(): BreakerHealth {
    return healthOf(this.#view, {
      now: this.#around.timers.now(),
      isLocal: this.#exchange.isLocal || !this.#view.heard,
      running: this.#bulkhead?.running,
      queued: this.#bulkhead?.queued,
    })
  }

  #guarded<T>(work: Work<T>, call: Call<T> | undefined, now: number): Promise<T> {
    if (call?.signal?.aborted) return Promise.reject(call.signal.reason)
    if (call?.deadline?.remainingMs() === 0) {
      return this.#turnAway('out_of_time', passed(this.name), call, now)
    }
    if (!this.#isReady) {
      const first = this.#view.heard ? Promise.resolve() : this.#exchange.first(this.#view)
      return untilGivenUp(first, call?.signal).then(() => {
        this.#isReady = true
        this.#renew()
        return this.execute(work, call)
      })
    }
    const { state } = this.#view.machine
    const spare = state === 'closed' ? undefined : this.#view.takeSpare(now)
    if (state === 'closed' || spare !== undefined) {
      if (now >= this.#exchange.dueAt) this.#exchange.look(now)
      return this.#run(work, call, now, spare)
    }
    const isRefused = this.#refusalAt(now) !== undefined
    // A question travels at once, and not behind a trip that is merely due.
    if (!isRefused && !this.#exchange.isLocal) return this.#askFirst(work, call, now)
    if (now >= this.#exchange.dueAt) this.#exchange.look(now)
    const right = isRefused ? undefined : this.#view.probeLocally(now)
    return right === undefined ? this.#refuse(call, now) : this.#run(work, call, now, right)
  }

  async #askFirst<T>(work: Work<T>, call: Call<T> | undefined, startedAt: number): Promise<T> {
    const { timers } = this.#around
    const asking = this.#exchange.ask(this.#view)
    let right: ProbeRight | undefined
    try {
      right = await untilGivenUp(asking, call?.signal)
    } catch (reason) {
      void asking.then((right) => right && this.#view.keepSpare(right, timers.now()))
      throw reason
    }
    if (right === undefined && this.#exchange.isLocal) right = this.#view.probeLocally(timers.now())
    if (right === undefined && this.#view.machine.state !== 'closed') {
      return this.#refuse(call, startedAt)
    }
    return this.#run(work, call, startedAt, right)
  }

  #run<T>(work: Work<T>, call: Call<T> | undefined, now: number, right: ProbeRight | undefined): Promise<T> {
    return new GuardedCall(this.#host, work, call, now, right).start(() => this.#fullRefusal())
  }

  #refuse<T>(call: Call<T> | undefined, startedAt: number): Promise<T> {
    return this.#turnAway('refused', this.#sharedRefusal(), call, startedAt)
  }

  /** Without having called the service. */
  #turnAway<T>(
    outcome: CallOutcome,
    error: unknown,
    call: Call<T> | undefined,
    startedAt: number,
  ): Promise<T> {
    this.#calls[outcome].add()
    if (this.#options.onCall !== undefined) this.#tellCall(outcome, startedAt, false, error)
    return call?.fallback === undefined ? Promise.reject(error) : fallBack(call.fallback, error)
  }

  /** Undefined where a call goes through, or may ask to probe. */
  #refusalAt(now: number): CircuitOpenError | undefined {
    const { machine } = this.#view
    if (machine.state === 'closed') return undefined
    const mayProbe = machine.forced === null && machine.retryInMs(now) <= 0
    const isAsking = this.#view.wantsProbe && !this.#exchange.isLocal
    return mayProbe && !isAsking ? undefined : this.#sharedRefusal()
  }

  #sharedRefusal(): CircuitOpenError {
    const { machine } = this.#view
    const found = machine.forced === 'open' ? 'it is held open' : `it is ${machine.state.replace('_', '-')}`
    return this.#refusal ??= new CircuitOpenError(
      this.name,
      machine.reason === null ? found : `${found}: ${machine.reason}`,
      () => {
        const inMs = machine.retryInMs(this.#around.timers.now())
        // Somebody is looking by now, and a lease is longer than most answers take.
        return machine.state === 'open' && inMs > 0 ? inMs : Math.min(inMs || answeredSoonMs, answeredSoonMs)
      },
    )
  }

  #fullRefusal(): BulkheadFullError {
    return this.#full ??= new BulkheadFullError(this.name, this.#bulkhead!)
  }

  #hostOfCalls(): CallHost {
    const epoch = () => this.#epoch
    return {
      name: this.name,
      timers: this.#around.timers,
      timeouts: this.#timeouts,
      timeoutMs: this.#settings.timeoutMs,
      bulkhead: this.#bulkhead,
      get epoch() {
        return epoch()
      },
      now: this.#now,
      refusal: () => this.#view.machine.state === 'closed' ? undefined : this.#sharedRefusal(),
      outcomeOf: (error) => this.#outcomeOf(error),
      over: (call, outcome, error) => this.#over(call, outcome, error),
    }
  }

  #over(call: GuardedCall<unknown>, outcome: CallOutcome, error: unknown): Promise<void> | undefined {
    this.#calls[outcome].add()
    if (this.#options.onCall !== undefined) {
      this.#tellCall(outcome, call.startedAt, call.right !== undefined, error)
    }
    if (call.right === undefined) this.#count(outcome, call.epoch)
    else return this.#settleProbe(call.right, outcome)
  }

  #count(outcome: CallOutcome, epoch: number): void {
    if (epoch !== this.#epoch || isNeutral(outcome)) return
    if (isGood(outcome)) this.#view.succeeded(this.#lastNow)
    else {
      this.#view.failed(this.#around.timers.now())
      this.#exchange.tell(this.#view)
    }
  }

  #settleProbe(right: ProbeRight, outcome: CallOutcome): Promise<void> | undefined {
    const told: ProbeOutcome = isNeutral(outcome) ? 'abandoned' : isGood(outcome) ? 'succeeded' : 'failed'
    const settle = () => this.#view.settleProbe(right, told, this.#around.timers.now())
    if (right.local) return void settle()
    this.#view.tellProbe(right, told)
    // Until the store has heard it, other calls stay refused: the lease may have ended.
    return this.#exchange.told().then(() => {
      if (this.#exchange.isLocal) settle()
    })
  }

  #outcomeOf(error: unknown): CallOutcome {
    try {
      if (!(this.#options.isFailure ?? isFailure)(error)) return isAbort(error) ? 'aborted' : 'excused'
    } catch {
      // What throws while it is asked is no excuse.
    }
    return 'failed'
  }

  #changed({ from, source }: ViewChange): void {
    const { state: to, forced, reason } = this.#view.machine
    this.#renew()
    this.#bulkhead?.reconsider()
    if (from === to && forced === this.#forced) return
    this.#forced = forced
    const change: StateChange = { breaker: this.name, from, to, reason, forced, source }
    count('circuit_breaker_changes_total', { breaker: this.name, to })
    this.#around.log()[to === 'open' ? 'warn' : 'info'](`Circuit breaker "${this.name}" is ${to}`, {
      ...change,
    })
    this.#tell(this.#options.onStateChange, change)
  }

  /** What depends on the state. Results of calls that began before are told by their handlers being others. */
  #renew(): void {
    const epoch = this.#epoch = this.#view.machine.epoch
    const { timeoutMs, maxConcurrent } = this.#settings
    this.#refusal = undefined
    this.#isPlain = this.#isReady && this.#view.machine.state === 'closed' && timeoutMs === undefined &&
      maxConcurrent === undefined && this.#options.onCall === undefined
    this.#succeed = (value) => {
      this.#calls.succeeded.add()
      if (epoch === this.#epoch) this.#view.succeeded(this.#lastNow)
      return value
    }
    this.#fail = (error) => {
      const outcome = this.#outcomeOf(error)
      this.#calls[outcome].add()
      this.#count(outcome, epoch)
      throw error
    }
  }

  #tellCall(outcome: CallOutcome, startedAt: number, probe: boolean, error: unknown): void {
    const durationMs = this.#around.timers.now() - startedAt
    this.#tell(this.#options.onCall, { breaker: this.name, outcome, durationMs, probe, error })
  }

  /** An observer cannot break the work. Whoever gives an async function gets it called, and nobody waits for it. */
  #tell<Event>(observer: ((event: Event) => unknown) | undefined, event: Event): void {
    const failed = (error: unknown) =>
      this.#around.log().warn(`An observer of the circuit breaker "${this.name}" failed`, { error })
    try {
      const result = observer?.(event)
      if (result instanceof Promise) result.catch(failed)
    } catch (error) {
      failed(error)
    }
  }
}

const isGood = (outcome: CallOutcome) => outcome === 'succeeded' || outcome === 'excused'

/** Says nothing about the service, which may not have been asked. */
const isNeutral = (outcome: CallOutcome) =>
  outcome === 'aborted' || outcome === 'out_of_time' || outcome === 'refused' || outcome === 'bulkhead_full'

function untilGivenUp<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return signal === undefined ? promise : untilAborted(promise, signal)
}

async function fallBack<T>(fallback: (error: unknown) => PromiseLike<T> | T, error: unknown): Promise<T> {
  return await fallback(error)
}

/** The time limit of many calls by one timer: they all have the same, so whoever began first is over first. */
import type { Timers } from '../timers.ts'

/** A call with a limit; it knows its neighbours, so that it leaves at once wherever it stands. */
export interface TimedCall {
  endsAt: number
  before: TimedCall | undefined
  after: TimedCall | undefined
  timeOut(): void
}

/** The timer ends by itself this soon after the last call, since setting one for each call costs more than the calls. */
const longestHopMs = 250

export class CallTimeouts {
  readonly #timeoutMs: number
  readonly #timers: Timers
  #first: TimedCall | undefined
  #last: TimedCall | undefined
  #timer: unknown

  constructor(timeoutMs: number, timers: Timers) {
    this.#timeoutMs = timeoutMs
    this.#timers = timers
  }

  /** Calls `timeOut` when the time is over, unless the call was removed. */
  add(call: TimedCall, now: number): void {
    call.endsAt = now + this.#timeoutMs
    call.before = this.#last
    if (this.#last === undefined) this.#first = call
    else this.#last.after = call
    this.#last = call
    if (this.#timer === undefined) this.#hop(this.#timeoutMs)
  }

  remove(call: TimedCall): void {
    const { before, after } = call
    if (before === undefined) {
      if (this.#first !== call) return
      this.#first = after
    } else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    call.before = call.after = undefined
  }

  #hop(leftMs: number): void {
    this.#timer = this.#timers.set(this.#look, Math.ceil(Math.min(leftMs, longestHopMs)))
  }

  readonly #look = () => {
    this.#timer = undefined
    const now = this.#timers.now()
    while (this.#first !== undefined && this.#first.endsAt <= now) {
      const call = this.#first
      this.remove(call)
      call.timeOut()
    }
    if (this.#first !== undefined && this.#timer === undefined) this.#hop(this.#first.endsAt - now)
  }
}

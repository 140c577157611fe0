/** The time a transaction has, as its client counts it. The server counts as well, by its own clock. */
import type { Clock } from '../core/clock.ts'

export interface DeadlineOptions {
  timeoutMs: number
  /** The caller's own. */
  signal?: AbortSignal
  clock: Clock
}

export class Deadline {
  readonly #controller = new AbortController()
  readonly #clock: Clock
  readonly #endsAt: number
  readonly #signal: AbortSignal | undefined
  readonly #timer: ReturnType<typeof setTimeout>
  #expired = false
  /** Called once, when the time is over; it gives the reason to abort with. */
  onExpiry: () => unknown = () => undefined
  /** Called once, when the caller's signal is aborted before that. */
  onAbort: (reason: unknown) => void = () => {}

  constructor({ timeoutMs, signal, clock }: DeadlineOptions) {
    this.#clock = clock
    this.#endsAt = clock() + timeoutMs
    this.#signal = signal
    this.#timer = setTimeout(() => {
      this.#expired = true
      this.#controller.abort(this.onExpiry())
    }, timeoutMs)
    signal?.addEventListener('abort', this.#abort, { once: true })
  }

  /** Aborted when the time is over, or by the caller's signal, with the reason. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get expired(): boolean {
    return this.#expired
  }

  leftMs(): number {
    return this.#endsAt - this.#clock()
  }

  /** The promise's value, or a rejection with the signal's reason. What comes later is not looked at. */
  async race<T>(promise: Promise<T>): Promise<T> {
    const { signal } = this
    const aborted = Promise.withResolvers<never>()
    const stop = () => aborted.reject(signal.reason)
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
    promise.catch(() => {})
    try {
      return await Promise.race([promise, aborted.promise])
    } finally {
      signal.removeEventListener('abort', stop)
    }
  }

  /** Leaves no timer and no listener behind. */
  clear(): void {
    clearTimeout(this.#timer)
    this.#signal?.removeEventListener('abort', this.#abort)
  }

  readonly #abort = (): void => {
    this.onAbort(this.#signal!.reason)
    this.#controller.abort(this.#signal!.reason)
  }
}

/** Time that passes when a test says so. */
import type { Timers } from '../../supabase/functions/_shared/resilience/timers.ts'

/** The clock of `resilience/`: `settle` lets as much time pass as the work needs, `advance` as much as it is told. */
export class FakeTimers implements Timers {
  /** Every time that was waited for, in the order in which the waits began. */
  readonly waits: number[] = []
  #nowMs = 5_000
  #nextId = 1
  readonly #timers = new Map<number, { at: number; callback: () => void }>()

  /** Timers that are neither over nor cleared. */
  get pending(): number {
    return this.#timers.size
  }

  now(): number {
    return this.#nowMs
  }

  set(callback: () => void, ms: number): unknown {
    this.waits.push(ms)
    this.#timers.set(this.#nextId, { at: this.#nowMs + ms, callback })
    return this.#nextId++
  }

  clear(timer: unknown): void {
    this.#timers.delete(timer as number)
  }

  /** Lets `ms` pass, with all that is due on the way. */
  async advance(ms: number): Promise<void> {
    const until = this.#nowMs + ms
    await microtasks()
    for (let next = this.#next(); next !== undefined && next.at <= until; next = this.#next()) {
      await this.#fire(next)
    }
    this.#nowMs = until
    await microtasks()
  }

  /** The clock alone: timers that are due now are late. */
  jump(ms: number): void {
    this.#nowMs += ms
  }

  /** The promise's outcome, with the time that it needs. It must wait for nothing but these timers. */
  async settle<T>(promise: Promise<T>): Promise<T> {
    let settled = false
    const settle = () => {
      settled = true
    }
    promise.then(settle, settle)
    await microtasks()
    while (!settled) {
      const next = this.#next()
      if (next === undefined) throw new Error('The promise waits for something else than these timers')
      await this.#fire(next)
    }
    return await promise
  }

  #next(): { id: number; at: number; callback: () => void } | undefined {
    const [next] = [...this.#timers].map(([id, timer]) => ({ id, ...timer })).sort((a, b) => a.at - b.at)
    return next
  }

  async #fire({ id, at, callback }: { id: number; at: number; callback: () => void }): Promise<void> {
    this.#timers.delete(id)
    this.#nowMs = Math.max(this.#nowMs, at)
    callback()
    await microtasks()
  }
}

/** More than any chain of promises here is long. */
async function microtasks(): Promise<void> {
  for (let count = 0; count < 50; count++) await undefined
}

/** Waits that are over at once, for work that does real things in between. */
export class InstantTimers implements Timers {
  readonly waits: number[] = []
  #passedMs = 0

  now(): number {
    return performance.now() + this.#passedMs
  }

  set(callback: () => void, ms: number): unknown {
    this.waits.push(ms)
    this.#passedMs += ms
    return setTimeout(callback, 0)
  }

  clear(timer: unknown): void {
    clearTimeout(timer as ReturnType<typeof setTimeout>)
  }

  /** The clock alone. */
  jump(ms: number): void {
    this.#passedMs += ms
  }
}

/** How many listeners of `signal` are left, from now on. */
export function countListeners(signal: AbortSignal): () => number {
  let count = 0
  const add = signal.addEventListener
  const remove = signal.removeEventListener
  signal.addEventListener = function (...args: unknown[]) {
    count++
    Reflect.apply(add, this, args)
  }
  signal.removeEventListener = function (...args: unknown[]) {
    count--
    Reflect.apply(remove, this, args)
  }
  signal.addEventListener('abort', () => count = 0)
  count = 0
  return () => count
}

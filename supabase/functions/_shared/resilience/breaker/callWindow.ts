/** How many calls succeeded and failed within the last while. */

/** A count leaves when its tenth of the window does: after nine tenths of `windowMs` at least, and `windowMs` at most. */
const buckets = 10

export class CallWindow {
  #bucketMs: number
  readonly #successes = new Array<number>(buckets).fill(0)
  readonly #failures = new Array<number>(buckets).fill(0)
  #current = 0
  #currentEndsAt = -Infinity

  constructor(windowMs: number) {
    this.#bucketMs = windowMs / buckets
  }

  add(successes: number, failures: number, now: number): void {
    if (now >= this.#currentEndsAt) this.#turn(now)
    this.#successes[this.#current]! += successes
    this.#failures[this.#current]! += failures
  }

  sum(now: number): { successes: number; failures: number } {
    if (now >= this.#currentEndsAt) this.#turn(now)
    return { successes: sumOf(this.#successes), failures: sumOf(this.#failures) }
  }

  clear(): void {
    this.#successes.fill(0)
    this.#failures.fill(0)
  }

  /** What was counted stays, as if it had happened in the tenth of the window that is passing. */
  resize(windowMs: number): void {
    if (windowMs / buckets === this.#bucketMs) return
    const successes = sumOf(this.#successes)
    const failures = sumOf(this.#failures)
    this.clear()
    this.#bucketMs = windowMs / buckets
    this.#successes[this.#current] = successes
    this.#failures[this.#current] = failures
    // Begins anew with the next look.
    this.#currentEndsAt = -Infinity
  }

  #turn(now: number): void {
    const index = Math.floor(now / this.#bucketMs)
    const last = Math.round(this.#currentEndsAt / this.#bucketMs) - 1
    const passed = Number.isFinite(last) ? Math.min(index - last, buckets) : 0
    for (let turn = 0; turn < passed; turn++) {
      this.#current = (this.#current + 1) % buckets
      this.#successes[this.#current] = 0
      this.#failures[this.#current] = 0
    }
    this.#currentEndsAt = (index + 1) * this.#bucketMs
  }
}

function sumOf(counts: readonly number[]): number {
  let sum = 0
  for (const count of counts) sum += count
  return sum
}

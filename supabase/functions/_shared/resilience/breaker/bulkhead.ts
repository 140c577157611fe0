/** A bound on the calls that run at once, and on those that wait for their turn. */

export interface Waiting {
  /** It has a place. */
  enter(): void
  reconsider(): void
}

/** First come, first served. */
export class Bulkhead {
  readonly maxConcurrent: number
  readonly maxQueued: number
  #running = 0
  readonly #queue = new Set<Waiting>()
  #isLettingIn = false

  constructor(maxConcurrent: number, maxQueued: number) {
    this.maxConcurrent = maxConcurrent
    this.maxQueued = maxQueued
  }

  get running(): number {
    return this.#running
  }

  get queued(): number {
    return this.#queue.size
  }

  /** Takes a place, if one is free. Whoever has one must `leave`. */
  tryEnter(): boolean {
    if (this.#running >= this.maxConcurrent) return false
    this.#running++
    return true
  }

  /** A place beyond the bound, for a probe: calls that hang must not keep it from finding out that they need not. */
  enterAnyway(): void {
    this.#running++
  }

  /** False when the queue is full too. Otherwise `waiting.enter` is called once, with a place taken, unless it gives up. */
  tryQueue(waiting: Waiting): boolean {
    if (this.#queue.size >= this.maxQueued) return false
    this.#queue.add(waiting)
    return true
  }

  giveUp(waiting: Waiting): void {
    this.#queue.delete(waiting)
  }

  /** Asks all who wait whether they still want to. */
  reconsider(): void {
    for (const waiting of [...this.#queue]) waiting.reconsider()
  }

  leave(): void {
    this.#running--
    // Whoever is let in may leave at once, which would bring us here again for each that waits.
    if (this.#isLettingIn) return
    this.#isLettingIn = true
    while (this.#queue.size > 0 && this.#running < this.maxConcurrent) {
      const [next] = this.#queue
      this.#queue.delete(next!)
      this.#running++
      next!.enter()
    }
    this.#isLettingIn = false
  }
}

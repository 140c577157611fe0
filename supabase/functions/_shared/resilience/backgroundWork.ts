/** Work that nobody waits for. */

/** The hosted platform ends an isolate without regard for what it was not told of. */
const platform = globalThis as { EdgeRuntime?: { waitUntil?(work: Promise<unknown>): unknown } }

export class BackgroundWork {
  readonly #running = new Set<Promise<void>>()

  /** What becomes of it is its own business: a failure is not looked at. */
  add(work: Promise<unknown>): void {
    const done: Promise<void> = work.then(() => {}, () => {}).then(() => void this.#running.delete(done))
    this.#running.add(done)
    try {
      platform.EdgeRuntime?.waitUntil?.(done)
    } catch {
      // Outside of a request there may be nothing to prolong.
    }
  }

  /** Resolves when nothing is running. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
  }
}

/** A storm: faults and observations that go on side by side for a bounded time, each counted. */
import type { Random } from './random.ts'

type Action = () => unknown

export class Storm {
  readonly random: Random
  /** How often each thing happened. */
  readonly counts: Record<string, number> = {}
  readonly #starters: (() => Promise<void>)[] = []
  readonly #over = new AbortController()

  constructor(random: Random) {
    this.random = random
  }

  /**
   * Does it again and again, with a pause of `min` to `max` milliseconds before each time. It counts under its name,
   * if it has one, unless it gives false.
   */
  every(name: string, [min, max]: [min: number, max: number], action: Action): void {
    this.#starters.push(async () => {
      while (await this.pause(this.random.between(min, max))) await this.#do(name, action)
    })
  }

  /** Does it once, that long after the start. */
  at(name: string, ms: number, action: Action): void {
    this.#starters.push(async () => {
      if (await this.pause(ms)) await this.#do(name, action)
    })
  }

  /**
   * Lets it blow that long, and on a slow machine on until `enough` has been done in it, at most three times as long.
   * Then waits for what is under way. Rejects at once when an action fails.
   */
  async blow(ms: number, enough: () => boolean): Promise<void> {
    const startedAt = performance.now()
    const timer = setInterval(() => {
      const lastedMs = performance.now() - startedAt
      if (lastedMs >= 3 * ms || (lastedMs >= ms && enough())) this.#over.abort()
    }, 100)
    const running = this.#starters.map((start) => start())
    try {
      await Promise.all(running)
    } finally {
      this.#over.abort()
      clearInterval(timer)
      await Promise.allSettled(running)
      this.counts.ms = Math.round(performance.now() - startedAt)
    }
  }

  count(name: string, by = 1): void {
    this.counts[name] = (this.counts[name] ?? 0) + by
  }

  /** Resolves after that time, to false as soon as the storm is over. */
  pause(ms: number): Promise<boolean> {
    const { signal } = this.#over
    return new Promise((resolve) => {
      if (signal.aborted) return resolve(false)
      const settle = () => {
        clearTimeout(timer)
        signal.removeEventListener('abort', settle)
        resolve(!signal.aborted)
      }
      const timer = setTimeout(settle, ms)
      signal.addEventListener('abort', settle)
    })
  }

  async #do(name: string, action: Action): Promise<void> {
    if (await action() !== false && name !== '') this.count(name)
  }
}

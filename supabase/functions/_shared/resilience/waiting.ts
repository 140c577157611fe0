/** Waiting for a request that runs elsewhere: looks at growing distances, holding nothing in between. */
import { pause } from '../db/pause.ts'

const firstPauseMs = 15
const longestPauseMs = 250

export class Waiting {
  readonly #deadlineAt: number
  readonly #signal?: AbortSignal
  #pauseMs = firstPauseMs

  constructor(waitMs: number, signal?: AbortSignal) {
    this.#deadlineAt = performance.now() + waitMs
    this.#signal = signal
  }

  /** Resolves when it is time to look again; to false, at once, when the time is over. Rejects when aborted. */
  async again(): Promise<boolean> {
    const leftMs = this.#deadlineAt - performance.now()
    if (leftMs <= 0) return false
    // A random part, so that those who wait in several isolates do not look all at once.
    await pause(Math.min(leftMs, this.#pauseMs * (0.5 + Math.random() / 2)), this.#signal)
    this.#pauseMs = Math.min(this.#pauseMs * 1.5, longestPauseMs)
    return true
  }
}

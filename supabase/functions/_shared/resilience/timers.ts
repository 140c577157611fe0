/** Time that passes and time that is waited for, as whoever retries and limits sees it. */

/** What the system offers, or what a test puts in its place. */
export interface Timers {
  /** Milliseconds since some moment. Never set back: a wall clock that is corrected changes no wait. */
  now(): number
  set(callback: () => void, ms: number): unknown
  clear(timer: unknown): void
}

export const systemTimers: Timers = {
  now: () => performance.now(),
  set: (callback, ms) => setTimeout(callback, ms),
  clear: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout>),
}

/** A longer timer would fire at once. */
export const longestTimerMs = 2_147_483_647

/** `RangeError` unless it is a time that a timer can wait for: above 0, and no more than 24 days. */
export function requireDuration(what: string, ms: number): void {
  if (!(typeof ms === 'number' && ms > 0 && ms <= longestTimerMs)) {
    throw new RangeError(`${what} must be above 0 and at most ${longestTimerMs}, received ${ms}`)
  }
}

/** Resolves after `ms`; rejects with the signal's reason as soon as it is aborted. Leaves no timer and no listener. */
export function wait(ms: number, signal: AbortSignal | undefined, timers: Timers): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const abort = () => {
      timers.clear(timer)
      reject(signal!.reason)
    }
    const timer = timers.set(() => {
      signal?.removeEventListener('abort', abort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', abort, { once: true })
  })
}

/** One value in an isolate's memory, and what may be done with it when. */

export interface EntryTimes {
  /** From here on a get loads it anew in the background. Not after `freshUntil`. */
  refreshAt: number
  /** From here on the shared tier has to be asked whether it is still there. */
  localUntil: number
  freshUntil: number
  /** Until then it is served while it is loaded anew. */
  staleUntil: number
  /** Until then it is served when loading fails. */
  errorUntil: number
}

export class Entry<V> {
  readonly key: string
  readonly value: V
  /** What every hit is given: made once. */
  readonly hit: Promise<V>
  /** That it was loaded under. */
  readonly version: string | undefined
  readonly tags: readonly string[]
  /** About the bytes of its value; 0 where nobody counts them. */
  readonly size: number
  readonly times: EntryTimes
  /** Before this moment there is nothing to decide. */
  readonly checkAt: number
  /** Loading it has failed: nobody tries again before. */
  quietUntil = 0
  /** Asked for since the hand of `CacheEntries` has passed. */
  visited = false
  /** Neighbours in the list of `CacheEntries`. */
  newer: Entry<V> | undefined
  older: Entry<V> | undefined

  constructor(
    key: string,
    value: V,
    { version, tags, size, times }: {
      version: string | undefined
      tags: readonly string[]
      size: number
      times: EntryTimes
    },
  ) {
    this.key = key
    this.value = value
    this.hit = Promise.resolve(value)
    this.version = version
    this.tags = tags
    this.size = size
    this.times = times
    this.checkAt = Math.min(times.refreshAt, times.localUntil)
  }
}

export interface Lifetime {
  /** Left of its time to live; below 0 when that is over. */
  freshMs: number
  ttlMs: number
  /** The part of the time to live, at its end, in which it is loaded anew. */
  earlyRefresh: number
  staleMs: number
  staleIfErrorMs: number
  /** Longest before the shared tier is asked. Infinity without one. */
  localTtlMs: number
  /** The value says that there is none. */
  negative: boolean
}

/**
 * `random`, in [0, 1), draws the moment of the early refresh once for each isolate, so that those who loaded a value
 * together do not load it together again. That there is none is served for its time and no longer.
 */
export function entryTimes(now: number, lifetime: Lifetime, random: () => number): EntryTimes {
  const { freshMs, ttlMs, earlyRefresh, staleMs, staleIfErrorMs, localTtlMs, negative } = lifetime
  const freshUntil = now + freshMs
  const staleUntil = freshUntil + (negative ? 0 : staleMs)
  return {
    refreshAt: freshUntil - (negative ? 0 : random() * earlyRefresh * ttlMs),
    localUntil: now + localTtlMs,
    freshUntil,
    staleUntil,
    errorUntil: negative ? freshUntil : Math.max(staleUntil, freshUntil + staleIfErrorMs),
  }
}

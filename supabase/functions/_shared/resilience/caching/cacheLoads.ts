/** The loads that are under way in one isolate: one for each key. */
import type { Invalidation } from './cacheShared.ts'
import type { Outcome } from './cacheStats.ts'

export interface Answer<V> {
  value: V
  from: Outcome
}

export interface Loaded {
  key: string
  version: string | undefined
  tags: readonly string[]
}

export interface Running<V> {
  readonly of: Loaded
  /** Nobody waits for it. */
  readonly background: boolean
  /** Invalidated since it began, or followed by another: what it gives is not to be kept. */
  dropped: boolean
  readonly answer: Promise<Answer<V>>
}

export class CacheLoads<V> {
  readonly #running = new Map<string, Running<V>>()

  /** One that was not dropped. */
  get(key: string): Running<V> | undefined {
    return this.#running.get(key)
  }

  /** In the place of the one that is running. `work` begins at once; its answer is shared by all who join. */
  begin(of: Loaded, background: boolean, work: (running: Running<V>) => Promise<Answer<V>>): Running<V> {
    const { key } = of
    const former = this.#running.get(key)
    if (former !== undefined) former.dropped = true
    const { promise, resolve } = Promise.withResolvers<Answer<V>>()
    const running: Running<V> = { of, background, dropped: false, answer: promise }
    // Known before it begins: a load may ask the cache at once, for the same key too.
    this.#running.set(key, running)
    const end = () => {
      if (this.#running.get(key) === running) this.#running.delete(key)
    }
    promise.then(end, end)
    resolve(work(running))
    return running
  }

  /** They go on for those who wait; the next who asks begins another. */
  drop({ keys = [], tags = [], all = false }: Invalidation): void {
    for (const [key, running] of this.#running) {
      if (!all && !keys.includes(key) && !running.of.tags.some((tag) => tags.includes(tag))) continue
      running.dropped = true
      this.#running.delete(key)
    }
  }
}

/** Shared entries in the memory of one process: for tests, and for several caches of one process. */
import { systemTimers, type Timers } from '../timers.ts'
import type { CacheAnswer, CacheQuestion, CacheStore, CacheWrite, SharedEntry } from './cacheStore.ts'

export interface MemoryCacheOptions {
  /** Entries at most; beyond them the oldest are forgotten. @default 10_000 */
  maxEntries?: number
  timers?: Timers
}

interface Row {
  cache: string
  key: string
  version: string
  tags: ReadonlySet<string>
  value?: { json: string | null; freshUntil: number; expiresAt: number }
  /** Lowest token that may still store. */
  fence: number
  lease?: { token: number; until: number }
}

/** `RangeError` for a bound that is no positive whole number. */
export class MemoryCacheStore implements CacheStore {
  readonly #rows = new Map<string, Row>()
  readonly #maxEntries: number
  readonly #timers: Timers
  #lastToken = 0

  constructor({ maxEntries = 10_000, timers = systemTimers }: MemoryCacheOptions = {}) {
    if (!Number.isSafeInteger(maxEntries) || maxEntries < 1) {
      throw new RangeError(
        `Cannot share a cache in memory: maxEntries must be a positive whole number, received ${maxEntries}`,
      )
    }
    this.#maxEntries = maxEntries
    this.#timers = timers
  }

  read(question: CacheQuestion): Promise<CacheAnswer> {
    const entry = this.#entry(question)
    if (question.leaseMs === 0 || (entry !== undefined && entry.freshMs > question.refreshBelowMs)) {
      return Promise.resolve({ entry, token: undefined, busy: false })
    }
    const token = this.#lease(question)
    return Promise.resolve({ entry, token, busy: token === undefined })
  }

  write({ cache, key, version, tags, token, json, ttlMs, keepMs }: CacheWrite): Promise<boolean> {
    const row = this.#rows.get(idOf(cache, key))
    if (row === undefined || row.version !== version || row.fence > token) return Promise.resolve(false)
    const freshUntil = this.#timers.now() + ttlMs
    row.value = { json, freshUntil, expiresAt: freshUntil + keepMs }
    row.tags = new Set(tags)
    row.fence = token + 1
    row.lease = undefined
    return Promise.resolve(true)
  }

  release(cache: string, key: string, token: number): Promise<void> {
    const row = this.#rows.get(idOf(cache, key))
    if (row?.lease?.token === token) row.lease = undefined
    return Promise.resolve()
  }

  invalidate(cache: string, keys: readonly string[]): Promise<void> {
    for (const key of keys) this.#rows.delete(idOf(cache, key))
    return Promise.resolve()
  }

  invalidateTags(cache: string, tags: readonly string[]): Promise<void> {
    return this.#deleteWhere((row) => row.cache === cache && tags.some((tag) => row.tags.has(tag)))
  }

  clear(cache: string): Promise<void> {
    return this.#deleteWhere((row) => row.cache === cache)
  }

  close(): Promise<void> {
    this.#rows.clear()
    return Promise.resolve()
  }

  #entry({ cache, key, version }: CacheQuestion): SharedEntry | undefined {
    const row = this.#rows.get(idOf(cache, key))
    const now = this.#timers.now()
    if (row?.value === undefined || row.version !== version || row.value.expiresAt <= now) return undefined
    return { json: row.value.json, freshMs: row.value.freshUntil - now }
  }

  #lease({ cache, key, version, tags, leaseMs }: CacheQuestion): number | undefined {
    const now = this.#timers.now()
    const known = this.#rows.get(idOf(cache, key))
    const same = known?.version === version ? known : undefined
    if (same?.lease !== undefined && same.lease.until > now) return undefined
    const token = ++this.#lastToken
    if (known === undefined && this.#rows.size >= this.#maxEntries) {
      this.#rows.delete(this.#rows.keys().next().value!)
    }
    this.#rows.set(idOf(cache, key), {
      cache,
      key,
      version,
      tags: new Set([...same?.tags ?? [], ...tags]),
      value: same?.value,
      fence: same?.fence ?? token,
      lease: { token, until: now + leaseMs },
    })
    return token
  }

  #deleteWhere(isMeant: (row: Row) => boolean): Promise<void> {
    for (const [id, row] of this.#rows) {
      if (isMeant(row)) this.#rows.delete(id)
    }
    return Promise.resolve()
  }
}

/** No name has a NUL. */
function idOf(cache: string, key: string): string {
  return `${cache}\0${key}`
}

/**
 * What keeps the entries that isolates share. Every duration is of the store's own clock. Whoever may load a key holds
 * a lease on it; what was loaded is stored only if nobody invalidated the entry since the lease was given.
 */

/** Names of caches, keys, versions and tags have 1 to 255 characters (a version may be empty), none of them NUL. */
export interface CacheQuestion {
  cache: string
  key: string
  /** An entry of another version is absent. */
  version: string
  /** Of what is going to be loaded: an invalidation by tag ends the lease, too. */
  tags: readonly string[]
  /** A lease is wanted where the entry is fresh for no longer than this. 0: where it is not fresh. */
  refreshBelowMs: number
  /** For how long the lease is wanted. 0: only a look, no lease. */
  leaseMs: number
}

export interface SharedEntry {
  /** What was loaded, as JSON; null where that was `undefined`. */
  json: string | null
  /** Until it stops being fresh; below 0 when it has. */
  freshMs: number
}

export interface CacheAnswer {
  /** Fresh, or kept for a while behind that. */
  entry?: SharedEntry
  /** The lease was given: load it, then `write` or `release`. */
  token?: number
  /** A lease was wanted, and somebody else has it. */
  busy: boolean
}

export interface CacheWrite {
  cache: string
  key: string
  version: string
  tags: readonly string[]
  token: number
  json: string | null
  ttlMs: number
  /** How long it is kept behind its time to live, for whoever serves stale entries. */
  keepMs: number
}

/** Each method is one round trip at most, and atomic for each entry. Rejects when the store cannot be reached. */
export interface CacheStore {
  read(question: CacheQuestion): Promise<CacheAnswer>
  /** False where the entry was invalidated, or stored by a later lease, since: nothing is stored then. */
  write(entry: CacheWrite): Promise<boolean>
  /** Ends a lease that is still held under this token, so that another may load. */
  release(cache: string, key: string, token: number): Promise<void>
  /** When it resolves, no read finds the entries, and no lease given before can store one. */
  invalidate(cache: string, keys: readonly string[]): Promise<void>
  /** As `invalidate`, for each entry and lease that has one of the tags. */
  invalidateTags(cache: string, tags: readonly string[]): Promise<void>
  /** As `invalidate`, for all of the cache. */
  clear(cache: string): Promise<void>
  close(): Promise<void>
}

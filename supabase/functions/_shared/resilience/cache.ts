/**
 * Values that are loaded once and served for a while: from this isolate's memory, and from a tier that isolates share
 * where there is one. One load for each key at a time; an entry is served only under the version of the schema that it
 * was loaded under. How old a value may be is said by the options, and by nothing else.
 */
import { type CacheOptions, cacheSettings } from './caching/cacheOptions.ts'
import type { CacheStats } from './caching/cacheStats.ts'
import { TieredCache } from './caching/tieredCache.ts'

export { type CacheOptions, ttlByVolatility, type Volatility } from './caching/cacheOptions.ts'
export type { CacheStats } from './caching/cacheStats.ts'
export type { CacheStore } from './stores/cacheStore.ts'

/** The signal is aborted when the load has taken too long. That a caller has left is no reason to end it. */
export type Load<V> = (signal: AbortSignal) => V | PromiseLike<V>

export interface GetOptions {
  /** By which it can be invalidated together with others. */
  tags?: readonly string[]
  /** In place of the cache's own. */
  ttlMs?: number
  /** Ends this caller's waiting, with its reason; the load goes on. */
  signal?: AbortSignal
  /** In place of the cache's own `version()`. */
  version?: string
}

export interface Cache<V> {
  /**
   * What is kept for the key, else what `load` gives; whoever asks meanwhile waits for the same load. A load that fails
   * is not kept: all who wait for it are rejected with its error. null and undefined say that there is none, and are
   * kept for `negativeTtlMs`. The value belongs to all who get it: do not change it.
   */
  get(key: string, load: Load<V>, options?: GetOptions): Promise<V>
  /**
   * From the moment it resolves this isolate serves nothing that was loaded before, other isolates their own copy for
   * at most `localTtlMs`. False where the shared tier is away: it will hear of it when it is back. A load that runs
   * meanwhile serves those who waited for it, and is not kept.
   */
  invalidate(keys: string | readonly string[]): Promise<boolean>
  /** As `invalidate`, for all that was loaded with one of the tags. */
  invalidateTags(tags: string | readonly string[]): Promise<boolean>
  /** As `invalidate`, for everything. */
  clear(): Promise<boolean>
  stats(): CacheStats
  /** Forgets what is in memory and waits for what runs in the background. The shared store is its owner's to close. */
  close(): Promise<void>
}

/** `TypeError` or `RangeError` for options that make no sense. Starts nothing. */
export function createCache<V>(options: CacheOptions<V>): Cache<V> {
  return new TieredCache(cacheSettings(options))
}

/** How a cache does: for its own `stats()`, and for the metrics. */
import { type Counter, counter } from '../../observability/metrics.ts'

/** How a get was answered. */
const outcomes = {
  /** From this isolate's memory. */
  hit: 'hits',
  /** From memory, behind its time to live, while it is loaded anew. */
  stale: 'staleHits',
  /** From the shared tier. */
  shared: 'sharedHits',
  /** By the load of another caller, for whom it waited. */
  joined: 'joined',
  /** By a load of its own. */
  loaded: 'loads',
  /** With a value behind its time to live, since loading failed. */
  stale_on_error: 'staleOnError',
  /** Not at all: the load failed. */
  failed: 'failures',
} as const

export type Outcome = keyof typeof outcomes

export interface CacheStats {
  hits: number
  staleHits: number
  sharedHits: number
  joined: number
  loads: number
  staleOnError: number
  failures: number
  /** Loads in the background, and how many of them failed. */
  refreshes: number
  refreshFailures: number
  /** Entries that went for lack of room. */
  evictions: number
  /** In memory now. */
  entries: number
  bytes: number
  /** Share of the gets that were answered from memory or the shared tier, stale answers included; 0 before the first. */
  hitRate: number
}

type Counts = Omit<CacheStats, 'entries' | 'bytes' | 'hitRate'>

export class CacheCounts {
  readonly #counts: Counts = {
    hits: 0,
    staleHits: 0,
    sharedHits: 0,
    joined: 0,
    loads: 0,
    staleOnError: 0,
    failures: 0,
    refreshes: 0,
    refreshFailures: 0,
    evictions: 0,
  }
  readonly #gets: Record<Outcome, Counter>
  readonly #hits: Counter
  readonly #refreshes: Counter
  readonly #refreshFailures: Counter
  readonly #evictions: Counter

  constructor(cache: string) {
    const names = Object.keys(outcomes) as Outcome[]
    this.#gets = Object.fromEntries(
      names.map((outcome) => [outcome, counter('cache_gets_total', { cache, outcome })]),
    ) as Record<Outcome, Counter>
    this.#hits = this.#gets.hit
    this.#refreshes = counter('cache_refreshes_total', { cache })
    this.#refreshFailures = counter('cache_refresh_failures_total', { cache })
    this.#evictions = counter('cache_evictions_total', { cache })
  }

  hit(): void {
    this.#counts.hits++
    this.#hits.add()
  }

  get(outcome: Outcome): void {
    this.#counts[outcomes[outcome]]++
    this.#gets[outcome].add()
  }

  refresh(): void {
    this.#counts.refreshes++
    this.#refreshes.add()
  }

  refreshFailure(): void {
    this.#counts.refreshFailures++
    this.#refreshFailures.add()
  }

  eviction(): void {
    this.#counts.evictions++
    this.#evictions.add()
  }

  stats(memory: { entries: number; bytes: number }): CacheStats {
    const { hits, staleHits, sharedHits, joined, loads, staleOnError, failures } = this.#counts
    const found = hits + staleHits + sharedHits + staleOnError
    const gets = found + joined + loads + failures
    return { ...this.#counts, ...memory, hitRate: gets === 0 ? 0 : found / gets }
  }
}

/** What a store of rate limits is asked and what it answers; the Postgres, Redis and memory stores share a suite. */

/**
 * `gcra`: a token bucket, kept as one time. `fixed`: windows that begin with a key's first call. `sliding`: never more
 * than the quota in any span of `windowMs`, counted in tenths of it.
 */
export type Algorithm = 'gcra' | 'fixed' | 'sliding'

/** One limit of a key. All numbers are whole and positive; `rateLimitPolicy.ts` has their bounds. */
export interface RateLimitWindow {
  /** Named to clients, and different from that of the key's other windows. */
  name: string
  algorithm: Algorithm
  /** Tokens in `windowMs`. */
  quota: number
  windowMs: number
  /** Tokens that may be taken at once. Another number than `quota` with `gcra` only. */
  burst: number
}

export interface RateLimitQuestion {
  /**
   * What is counted: the limiter's name, its windows and the partition key, at most 255 characters. Equal keys have
   * equal windows, so questions of one key and one cost may be merged.
   */
  key: string
  windows: readonly RateLimitWindow[]
  /** Tokens for each call, at least 1. Where it is more than a window's `burst`, no call is ever admitted. */
  cost: number
  /** Identical calls that are asked for together. 0 asks how things stand: nothing is taken, nothing is blocked. */
  count: number
  /** When a call is refused, the key is blocked for this long from then on. 0: it is not. */
  blockMs: number
}

export interface RateLimitAnswer {
  /** Of `count`, the first ones. 0 while the key is blocked. */
  admitted: number
  /** In the question's order, after the last admitted call. Milliseconds are rounded up. */
  windows: RateLimitWindowAnswer[]
  /** How long the key is still blocked; 0 when it is not. A block is not made longer by calls that it refuses. */
  blockedMs: number
}

export interface RateLimitWindowAnswer {
  /** Whole tokens that could be taken now, at least 0. */
  remaining: number
  /** Until nothing is counted any more. */
  resetMs: number
  /** Until this window admits one more call of this cost; 0: now. */
  retryAfterMs: number
}

/**
 * Decides as `rateLimitDecide.ts` says, by its own clock. Rejects with `SERVICE_UNAVAILABLE` when it cannot be reached;
 * whether tokens were taken is then unknown.
 */
export interface RateLimitStore {
  /**
   * One trip; answers in the order of the questions. All windows of a question are decided atomically: a call takes its
   * cost from each of them, or is refused and takes nothing. A key may stand more than once: its questions are
   * answered one after another.
   */
  decide(questions: RateLimitQuestion[]): Promise<RateLimitAnswer[]>
  /**
   * Takes the cost of `count` calls whether there are as many tokens or not; whoever owes tokens waits until they have
   * come back. Neither begins a block nor minds one.
   */
  penalize(question: RateLimitQuestion): Promise<RateLimitAnswer>
  /** Refuses the key for `ms` from now on, in place of what is left of an earlier block. 0 ends a block. */
  block(key: string, ms: number): Promise<void>
  /** Forgets what was counted, and ends a block. */
  reset(key: string): Promise<void>
  close(): Promise<void>
}

/** A store whose answers are here already. */
export interface InstantRateLimitStore extends RateLimitStore {
  decideNow(question: RateLimitQuestion): RateLimitAnswer
}

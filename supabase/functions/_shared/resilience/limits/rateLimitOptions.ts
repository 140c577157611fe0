/** What a limiter is made with, checked where it is made. */
import type { Logger } from '../../observability/logger.ts'
import {
  isLimiterName,
  largestCost,
  longestWindowMs,
  nameRule,
  type Policy,
  windowsOf,
} from './rateLimitPolicy.ts'
import { configuredRateLimitStore } from './rateLimitStores.ts'
import type { Algorithm, RateLimitStore, RateLimitWindow } from '../stores/rateLimitStore.ts'
import { longestTimerMs, requireDuration, systemTimers, type Timers } from '../timers.ts'
import type { LeaseOptions } from './tokenLeases.ts'

export interface RateLimiterOptions {
  /**
   * Whose limit it is, in headers, metrics and keys: 1 to 80 printable ASCII characters, no space and none of
   * `" \ |`. Limiters with one name and equal
   * windows count together, in whichever isolate or function they are.
   */
  name: string
  /** `'60/min'`, several like `['10/s', '500/h']`, or objects; with s, min, h and d. @default '60/min' */
  policy?: Policy
  /** @default 'gcra' */
  algorithm?: Algorithm
  /** Calls at once, with `gcra`. @default the quota */
  burst?: number
  /** @default this isolate's, as RATE_LIMIT_STORE says */
  store?: RateLimitStore | (() => Promise<RateLimitStore>)
  /**
   * While the store is away: `local` counts this isolate's share of the quota in memory, `open` allows everything,
   * `closed` nothing. @default 'local'
   */
  onUnavailable?: OnUnavailable
  /** The share that each isolate grants by itself. In (0, 1]. @default 0.25 */
  localShare?: number
  /** Longest wait for the store's answer; then the call is decided as if it was away. @default 3_000 */
  storeTimeoutMs?: number
  /** Longest a refusal is repeated from memory; a key that is reset elsewhere stays refused so long. 0: never. @default 5_000 */
  denyCacheMs?: number
  /** A key that is refused stays refused for this long. 0: only as long as it has to. @default 0 */
  blockMs?: number
  /** Takes tokens ahead, and gives them out without asking. @default none */
  lease?: LeaseOptions
  /** @default this isolate's */
  log?: Pick<Logger, 'info' | 'warn' | 'error'>
  /** @default the system's */
  timers?: Timers
}

export type OnUnavailable = 'open' | 'closed' | 'local'

export interface LimiterSettings {
  name: string
  windows: readonly RateLimitWindow[]
  store: RateLimitStore | (() => Promise<RateLimitStore>)
  onUnavailable: OnUnavailable
  localShare: number
  storeTimeoutMs: number
  denyCacheMs: number
  blockMs: number
  lease: Required<LeaseOptions> | undefined
  timers: Timers
}

const reactions: readonly string[] = ['open', 'closed', 'local'] satisfies OnUnavailable[]

/** `TypeError` and `RangeError` say what was received. */
export function resolveLimiter(options: RateLimiterOptions): LimiterSettings {
  const {
    name,
    policy = '60/min',
    algorithm,
    burst,
    store = configuredRateLimitStore,
    onUnavailable = 'local',
    localShare = 0.25,
    storeTimeoutMs = 3_000,
    denyCacheMs = 5_000,
    blockMs = 0,
    lease,
    timers = systemTimers,
  } = options
  if (!isLimiterName(name)) throw new TypeError(`Cannot make a rate limit: ${nameRule}, received ${name}`)
  const what = `Cannot make the rate limit "${name}"`
  const windows = windowsOf(name, policy, { algorithm, burst })
  if (typeof store !== 'function' && typeof store?.decide !== 'function') {
    throw new TypeError(`${what}: store must be a store or a function that opens one, received ${store}`)
  }
  if (!reactions.includes(onUnavailable)) {
    throw new TypeError(
      `${what}: onUnavailable must be one of ${reactions.join(', ')}, received ${onUnavailable}`,
    )
  }
  if (!(typeof localShare === 'number' && localShare > 0 && localShare <= 1)) {
    throw new RangeError(`${what}: localShare must be in (0, 1], received ${localShare}`)
  }
  requireDuration(`${what}: storeTimeoutMs`, storeTimeoutMs)
  requireUpTo(what, 'denyCacheMs', denyCacheMs, longestTimerMs)
  requireUpTo(what, 'blockMs', blockMs, longestWindowMs)
  return {
    name,
    windows,
    store,
    onUnavailable,
    localShare,
    storeTimeoutMs,
    denyCacheMs,
    blockMs,
    lease: lease === undefined ? undefined : resolveLease(what, lease, windows),
    timers,
  }
}

function resolveLease(
  what: string,
  { tokens, maxAgeMs = 1_000 }: LeaseOptions,
  windows: readonly RateLimitWindow[],
) {
  const most = largestCost(windows)
  if (!Number.isSafeInteger(tokens) || tokens < 1 || tokens > most) {
    throw new RangeError(
      `${what}: lease.tokens must be a whole number from 1 to ${most}, as many as there are at once, received ${tokens}`,
    )
  }
  requireDuration(`${what}: lease.maxAgeMs`, maxAgeMs)
  return { tokens, maxAgeMs }
}

function requireUpTo(what: string, name: string, value: number, most: number): void {
  if (!Number.isSafeInteger(value) || value < 0 || value > most) {
    throw new RangeError(`${what}: ${name} must be a whole number from 0 to ${most}, received ${value}`)
  }
}

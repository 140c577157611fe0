/** What a route, or a whole function, declares about how often it may be called. */
import type { Actor, RequestInfo } from '../core/caller.ts'
import { type RateLimiterOptions, resolveLimiter } from '../resilience/limits/rateLimitOptions.ts'
import { largestCost } from '../resilience/limits/rateLimitPolicy.ts'

/** What is known of a request when its limit is decided. */
export interface LimitedRequest extends Required<Actor> {
  request: RequestInfo
  headers: Headers
  raw: Request
}

/**
 * Whom a limit counts. `ip`: the client's address, as the trusted proxies have it (`TRUSTED_PROXY_HOPS`), of IPv6 its
 * network; all whose address is not known count as one. `user`: the signed-in user. `apiKey`: the key that was shown and verified. Whoever
 * has no user or key counts by address. A function names the key itself; it is stored as it is, so digest secrets.
 */
export type LimitBy = 'ip' | 'user' | 'apiKey' | ((request: LimitedRequest) => string)

export interface LimitOptions extends Omit<RateLimiterOptions, 'name' | 'log' | 'timers'> {
  /** Routes with one name and equal windows count together. @default the route, or for `defineApi` the function */
  name?: string
  /** @default 'ip' */
  by?: LimitBy
  /** Tokens that a call takes. @default 1 */
  cost?: number
}

/** A declaration that has been checked. */
export interface ResolvedLimit {
  readonly name: string
  readonly by: LimitBy
  readonly cost: number
  readonly options: RateLimiterOptions
}

const modes: readonly unknown[] = ['ip', 'user', 'apiKey']

/** `TypeError` and `RangeError`, naming what declares it, for what makes no sense. */
export function resolveLimit(declared: LimitOptions, where: string, defaultName: string): ResolvedLimit {
  if (typeof declared !== 'object' || declared === null) {
    throw new TypeError(`${where}: limit must be an object like { policy: '60/min' }, received ${declared}`)
  }
  const { name = defaultName, by = 'ip', cost = 1, ...rest } = declared
  if (!modes.includes(by) && typeof by !== 'function') {
    throw new TypeError(`${where}: limit.by must be ip, user, apiKey or a function, received ${by}`)
  }
  const options = { ...rest, name }
  const { windows } = resolveLimiter(options)
  const most = largestCost(windows)
  if (!Number.isSafeInteger(cost) || cost < 1 || cost > most) {
    throw new RangeError(`${where}: limit.cost must be a whole number from 1 to ${most}, received ${cost}`)
  }
  return { name, by, cost, options }
}

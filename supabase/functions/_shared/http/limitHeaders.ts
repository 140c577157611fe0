/** The `RateLimit` headers (draft-ietf-httpapi-ratelimit-headers), rules RL1 to RL4 of CONFORMANCE.md. */
import type { RateLimitDecision } from '../resilience/rateLimit.ts'
import type { RateLimitWindow } from '../resilience/stores/rateLimitStore.ts'

/** RL1. The names have gone through `isLimiterName`, so none needs to be escaped. */
export function policyHeader(windows: readonly RateLimitWindow[]): string {
  return windows.map(({ name, quota, windowMs }) => `"${name}";q=${quota};w=${seconds(windowMs)}`).join(', ')
}

/**
 * RL2. `t` is when a window's quota is whole again; in a window that has refused, when it admits such a call again, which
 * `Retry-After` then does not name a moment before (RL4). No partition key: it might be an address.
 */
export function standingHeader({ windows, violated, retryAfterMs }: RateLimitDecision): string {
  return windows.map((window) => {
    const refusedMs = window.retryAfterMs > 0 ? window.retryAfterMs : retryAfterMs
    const t = seconds(violated.includes(window.name) ? refusedMs : window.resetMs)
    return `"${window.name}";r=${Math.floor(window.remaining)};t=${t}`
  }).join(', ')
}

function seconds(ms: number): number {
  return Math.ceil(ms / 1_000)
}

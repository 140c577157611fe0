/** A rate limit in front of what is behind an adapter. */
import type { Actor } from '../core/caller.ts'
import { RequestLimit } from '../http/limit.ts'
import { type LimitOptions, resolveLimit } from '../http/limitOptions.ts'
import { createLogger, type Logger } from '../observability/logger.ts'
import type { RateLimitDecision } from '../resilience/rateLimit.ts'
import { type Around, errorResponse } from './exchange.ts'

/** As a route's `limit`. */
export interface RateLimitOptions extends LimitOptions {
  /** Those with one name and equal windows count together. */
  name: string
  /** Where failures of ours are logged. @default JSON lines on standard output */
  log?: Logger
}

/**
 * Admits the request and gives the handler the decision, or answers 429 `RATE_LIMITED` with `Retry-After`, and 503 where
 * nobody can count and `onUnavailable` is `closed`. The `RateLimit` headers stand on either answer.
 */
export function createRateLimitAround(options: RateLimitOptions): Around<RateLimitDecision> {
  const { log = createLogger(), ...declared } = options
  const resolved = resolveLimit(declared, 'Cannot set up withRateLimit', '')
  const { by } = resolved
  const limit = new RequestLimit(resolved, log)

  return async ({ request, actor }, next) => {
    let headers: Record<string, string>
    let decision: RateLimitDecision
    try {
      const shown = by === 'apiKey' ? verifiedHeaders(actor, request) : request.headers
      const limited = await limit.ask({ ...actor, headers: shown, raw: request })
      if (limited.refusal !== undefined) {
        return withHeaders(errorResponse(limited.refusal, request, log), limited.headers)
      }
      headers = limited.headers
      decision = limited.decision
    } catch (error) {
      return errorResponse(error, request, log)
    }
    return withHeaders((await next(decision)).response, headers)
  }
}

/** Whoever has verified a user's token has not looked at the key beside it, which may be made up. */
function verifiedHeaders({ caller }: Actor, { headers }: Request): Headers {
  if (caller.kind !== 'user') return headers
  const verified = new Headers(headers)
  verified.delete('apikey')
  return verified
}

/** A response that came from elsewhere may have headers that cannot be changed. */
function withHeaders(response: Response, more: Record<string, string>): Response {
  const headers = new Headers(response.headers)
  for (const name in more) headers.set(name, more[name]!)
  return new Response(response.body, { status: response.status, headers })
}

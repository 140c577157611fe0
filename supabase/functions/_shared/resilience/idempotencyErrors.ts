/** What a request with an idempotency key is refused with. */
import { HoldfastError, isHoldfastError } from '../core/errors.ts'
import { DatabaseError } from '../db/databaseError.ts'
import { count } from '../observability/metrics.ts'
import type { IdempotencyRequest } from './stores/store.ts'

/** The page for clients that sent no key, where the application names none of its own. */
export const specificationUrl = 'https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/'

/** IK2. */
export function keyRequired(docsUrl: string): HoldfastError {
  return new HoldfastError(
    'IDEMPOTENCY_KEY_REQUIRED',
    'This needs the header Idempotency-Key: a new value for each intended action, the same one when it is repeated',
    { details: { documentation: docsUrl }, headers: { link: `<${docsUrl}>; rel="describedby"` } },
  )
}

/** IK3. */
export function reused({ route }: IdempotencyRequest): HoldfastError {
  count('idempotency_total', { route, outcome: 'reused' })
  return new HoldfastError(
    'IDEMPOTENCY_KEY_REUSED',
    'Cannot run the request: its idempotency key was used for another one; make a new key for each intended action',
  )
}

/** IK4. A lease may last long, its holder seldom does: ask again soon. */
export function inUse({ route }: IdempotencyRequest, leaseLeftMs: number, cause?: unknown): HoldfastError {
  count('idempotency_total', { route, outcome: 'in_use' })
  return new HoldfastError(
    'IDEMPOTENCY_KEY_IN_USE',
    'Cannot answer yet: a request with the same idempotency key is still running',
    { retryable: true, retryAfterMs: Math.min(Math.max(leaseLeftMs, 1_000), 5_000), cause },
  )
}

export function tooLarge(
  { route }: IdempotencyRequest,
  maxStoredBytes: number,
  cause?: unknown,
): HoldfastError {
  return new HoldfastError(
    'INTERNAL_ERROR',
    `Cannot store the answer of ${route} for its idempotency key: it is larger than ${maxStoredBytes} bytes; ` +
      'answer with less, raise maxStoredBytes, or take idempotency off the route',
    { cause },
  )
}

/** The store could not be reached, or did not answer in time. */
export function isAway(error: unknown): boolean {
  return isHoldfastError(error) && ['SERVICE_UNAVAILABLE', 'UPSTREAM_TIMEOUT'].includes(error.code)
}

export function sqlStateOf(error: unknown): string | undefined {
  return error instanceof DatabaseError ? error.sqlState : undefined
}

const encoder = new TextEncoder()

/** Whether a body fits, in bytes of UTF-8. */
export function fits(body: string, maxBytes: number): boolean {
  // A UTF-16 unit becomes one to three bytes.
  if (body.length * 3 <= maxBytes) return true
  return body.length <= maxBytes && encoder.encode(body).length <= maxBytes
}

/** The one base of every error Holdfast raises, and the codes a client can meet. */

/** Status by code. Every refusal a client sees carries one of these, or a code of the application's own. */
export const errorCodes = {
  VALIDATION_ERROR: 400,
  IDEMPOTENCY_KEY_REQUIRED: 400,
  IDEMPOTENCY_KEY_INVALID: 400,
  FILTER_REQUIRED: 400,
  UNKNOWN_TABLE: 400,
  UNKNOWN_COLUMN: 400,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  METHOD_NOT_ALLOWED: 405,
  CONFLICT: 409,
  IDEMPOTENCY_KEY_IN_USE: 409,
  PAYLOAD_TOO_LARGE: 413,
  UNSUPPORTED_MEDIA_TYPE: 415,
  IDEMPOTENCY_KEY_REUSED: 422,
  RATE_LIMITED: 429,
  INTERNAL_ERROR: 500,
  TRANSACTION_CLOSED: 500,
  UPSTREAM_ERROR: 502,
  CIRCUIT_OPEN: 503,
  BULKHEAD_FULL: 503,
  SERVICE_UNAVAILABLE: 503,
  COMMIT_UNKNOWN: 503,
  UPSTREAM_TIMEOUT: 504,
  TRANSACTION_TIMED_OUT: 504,
} as const

export type ErrorCode = keyof typeof errorCodes

export interface HoldfastErrorOptions {
  /** Facts for the client: which field, which sku. Sent as they are, so nothing secret. */
  details?: unknown
  /** HTTP status. @default the code's own, 500 for a code that is not in `errorCodes` */
  status?: number
  /** The same call may succeed later, unchanged. @default true for 408, 425, 429, 502, 503 and 504 */
  retryable?: boolean
  /** When to try again, in milliseconds from now; becomes `Retry-After`. */
  retryAfterMs?: number
  /** Further response headers. */
  headers?: Record<string, string>
  /** What was caught. Logged, never sent. */
  cause?: unknown
}

const retryableStatuses = new Set([408, 425, 429, 502, 503, 504])
const brand = Symbol.for('holdfast.error')

/**
 * An error with a code. The message is for the client when the status is below 500, and for the log alone
 * otherwise: say what was tried, then what was found.
 */
export class HoldfastError extends Error {
  override name = 'HoldfastError'
  readonly code: string
  readonly status: number
  readonly details?: unknown
  readonly retryable: boolean
  readonly retryAfterMs?: number
  readonly headers?: Record<string, string>
  readonly [brand] = true

  constructor(
    code: ErrorCode | (string & Record<never, never>),
    message: string,
    options: HoldfastErrorOptions = {},
  ) {
    super(
      message,
      options.cause === undefined ? undefined : { cause: options.cause },
    )
    this.code = code
    this.status = options.status ??
      (Object.hasOwn(errorCodes, code) ? errorCodes[code as ErrorCode] : 500)
    this.details = options.details
    this.retryable = options.retryable ?? retryableStatuses.has(this.status)
    this.retryAfterMs = options.retryAfterMs
    this.headers = options.headers
  }
}

/** Told by a brand rather than by class, since two bundles may each carry a copy of this file. */
export function isHoldfastError(error: unknown): error is HoldfastError {
  return error instanceof Error && brand in error
}

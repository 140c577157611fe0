/** The headers every response carries: security, CORS, the request's id. */

/** An API answers data, never a page: nothing in it may run, be framed, or be guessed at. */
export function setSecurityHeaders(headers: Headers): void {
  headers.set('content-security-policy', "default-src 'none'; frame-ancestors 'none'")
  headers.set('x-frame-options', 'DENY')
  headers.set('x-content-type-options', 'nosniff')
  headers.set('referrer-policy', 'strict-origin-when-cross-origin')
  headers.set('strict-transport-security', 'max-age=31536000; includeSubDomains')
}

const allowedMethods = 'GET, POST, PUT, PATCH, DELETE, OPTIONS'

/** What supabase-js sends, and what Holdfast reads. */
const allowedHeaders = [
  'authorization',
  'x-client-info',
  'apikey',
  'content-type',
  'accept',
  'x-region',
  'x-retry-count',
  'x-supabase-api-version',
  'idempotency-key',
  'x-request-id',
  'traceparent',
  'tracestate',
  'baggage',
].join(', ')

/** What a script in a browser must be able to read to behave well. */
const exposedHeaders = [
  'x-request-id',
  'retry-after',
  'ratelimit',
  'ratelimit-policy',
  'ratelimit-store',
  'idempotency-replayed',
  'idempotency-store',
  'location',
  'deprecation',
  'sunset',
  'link',
  'sb-error-code',
].join(', ')

/** Lets a browser's script read the answer, where its origin is allowed; `vary` where the answer depends on it. */
export function setCorsHeaders(headers: Headers, request: Headers, allowedOrigins: readonly string[]): void {
  let allowed: string | null = '*'
  if (!allowedOrigins.includes('*')) {
    headers.set('vary', 'origin')
    allowed = request.get('origin')
    if (allowed === null || !allowedOrigins.includes(allowed)) return
  }
  headers.set('access-control-allow-origin', allowed)
  headers.set('access-control-expose-headers', exposedHeaders)
}

/** What a preflight is told besides. Browsers cap the hour at their own limits. */
export const preflightHeaders = {
  'access-control-allow-methods': allowedMethods,
  'access-control-allow-headers': allowedHeaders,
  'access-control-max-age': '3600',
} as const

/** The caller's own request id if it is a sane one, else a new one. */
export function requestIdOf(headers: Headers): string {
  const given = headers.get('x-request-id')
  return given !== null && /^[\w.:-]{1,128}$/.test(given) ? given : crypto.randomUUID()
}

/**
 * The client's address: the entry that the outermost trusted proxy appended to `x-forwarded-for`. Entries left
 * of it were sent by the client and prove nothing. Undefined when fewer proxies than expected have spoken.
 */
export function clientIp(headers: Headers, trustedHops: number): string | undefined {
  if (trustedHops === 0) return undefined
  return headers.get('x-forwarded-for')?.split(',').at(-trustedHops)?.trim() || undefined
}

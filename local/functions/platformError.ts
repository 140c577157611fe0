/** The answers that the platform gives in a function's stead: JSON `{ code, message }` and `sb-error-code`. */

/** Codes and their statuses as hosted Supabase documents them; `NOT_IMPLEMENTED` is ours, for what cannot run locally. */
const platformStatus = {
  NOT_FOUND: 404,
  METHOD_NOT_ALLOWED: 405,
  WORKER_ERROR: 500,
  NOT_IMPLEMENTED: 501,
  BOOT_ERROR: 503,
  SERVICE_UNAVAILABLE: 503,
  IDLE_TIMEOUT: 504,
  WORKER_LIMIT: 546,
  UNAUTHORIZED_NO_AUTH_HEADER: 401,
  UNAUTHORIZED_INVALID_JWT_FORMAT: 401,
  UNAUTHORIZED_LEGACY_JWT: 401,
  UNAUTHORIZED_ASYMMETRIC_JWT: 401,
  UNAUTHORIZED_UNSUPPORTED_TOKEN_ALGORITHM: 401,
} as const

export type PlatformCode = keyof typeof platformStatus

/**
 * One platform answer. Browsers may read it whatever the function's own CORS rules are, since no function
 * ran that could have said so.
 */
export function platformError(
  code: PlatformCode,
  message: string,
  headers: Record<string, string> = {},
): Response {
  return Response.json({ code, message }, {
    status: platformStatus[code],
    headers: {
      'sb-error-code': code,
      'access-control-allow-origin': '*',
      'access-control-expose-headers': 'sb-error-code, x-request-id',
      ...headers,
    },
  })
}

/** The platform's own check of a caller's JWT, for functions that ask for it with `verify_jwt`. */
import { decodeProtectedHeader, jwtVerify } from 'jose'
import type { PlatformCode } from './platformError.ts'
import { platformError } from './platformError.ts'

/**
 * The platform's refusal, or undefined when the request carries a valid token: in `Authorization: Bearer`, or in
 * `apikey` where there is no bearer or it is an API key. The algorithm is pinned to the shared secret's own.
 */
export async function refuseInvalidJwt(headers: Headers, jwtSecret: string): Promise<Response | undefined> {
  const authorization = headers.get('authorization')
  const apikey = headers.get('apikey')
  if (authorization === null && apikey === null) {
    return refusal('UNAUTHORIZED_NO_AUTH_HEADER', 'Missing authorization header')
  }
  const token = bearerOf(authorization) ?? apikey
  const algorithm = token === null ? undefined : algorithmOf(token)
  if (token === null || algorithm === undefined) {
    return refusal('UNAUTHORIZED_INVALID_JWT_FORMAT', 'Invalid JWT format')
  }
  if (algorithm === 'ES256' || algorithm === 'RS256') {
    return refusal('UNAUTHORIZED_ASYMMETRIC_JWT', 'Invalid JWT')
  }
  if (algorithm !== 'HS256') {
    return refusal('UNAUTHORIZED_UNSUPPORTED_TOKEN_ALGORITHM', `Unsupported JWT algorithm ${algorithm}`)
  }
  try {
    await jwtVerify(token, new TextEncoder().encode(jwtSecret), { algorithms: ['HS256'] })
    return undefined
  } catch {
    return refusal('UNAUTHORIZED_LEGACY_JWT', 'Invalid JWT')
  }
}

function bearerOf(authorization: string | null): string | null {
  const token = /^bearer\s+(\S+)$/i.exec(authorization?.trim() ?? '')?.[1] ?? null
  return token?.startsWith('sb_') === true ? null : token
}

function algorithmOf(token: string): string | undefined {
  try {
    return token.split('.').length === 3 ? decodeProtectedHeader(token).alg : undefined
  } catch {
    return undefined
  }
}

function refusal(code: PlatformCode, message: string): Response {
  return platformError(code, message)
}

/** Who is calling, as verified. Everything below HTTP takes this, never a token. */

/** The claims of a verified JWT. Only what Holdfast reads is named. */
export interface Claims {
  sub?: string
  role?: string
  email?: string
  exp?: number
  app_metadata?: Record<string, unknown>
  [claim: string]: unknown
}

/** A signed-in person. SQL runs as `authenticated` with their claims. */
export interface UserCaller {
  kind: 'user'
  role: 'authenticated'
  userId: string
  claims: Claims
}

/** An application that showed a publishable key. SQL runs as `anon`. */
export interface PublishableCaller {
  kind: 'publishable'
  role: 'anon'
  userId?: undefined
  claims: Claims
}

/** A server that showed a secret key. SQL runs as `service_role`, past row level security. */
export interface SecretCaller {
  kind: 'secret'
  role: 'service_role'
  userId?: undefined
  claims: Claims
}

/** Nobody was asked. SQL runs as `anon`. */
export interface AnonymousCaller {
  kind: 'none'
  role: 'anon'
  userId?: undefined
  claims: Claims
}

export type Caller =
  | UserCaller
  | PublishableCaller
  | SecretCaller
  | AnonymousCaller

export const anonymousCaller: AnonymousCaller = {
  kind: 'none',
  role: 'anon',
  claims: { role: 'anon' },
}

/** The request on whose behalf SQL runs; recorded beside what it changes. */
export interface RequestInfo {
  requestId: string
  functionName: string
  method: string
  /** Path without the query. */
  path: string
  ip?: string
  userAgent?: string
}

/** Who acts, and for which request. A route's context is one. */
export interface Actor {
  caller: Caller
  request?: RequestInfo
}

/**
 * Who is calling, proved: users' tokens and the project's keys are verified here and nowhere else.
 *
 * A credential that is present but wrong is refused, also where a weaker one would have been enough.
 */
import { createLocalJWKSet, decodeProtectedHeader, errors, type JWTPayload, jwtVerify } from 'jose'
import type { Caller, Claims, PublishableCaller, SecretCaller, UserCaller } from '../core/caller.ts'
import { anonymousCaller } from '../core/caller.ts'
import { type Env, env } from '../core/env.ts'
import { HoldfastError } from '../core/errors.ts'

/** What a route asks for: a signed-in user, a publishable key (a secret one will do), a secret key, or nothing. */
export type AuthMode = 'user' | 'publishable' | 'secret' | 'none'

/** The caller a route with this mode is given. */
export type CallerOf<Mode extends AuthMode> = Mode extends 'user' ? UserCaller
  : Mode extends 'publishable' ? PublishableCaller | SecretCaller
  : Mode extends 'secret' ? SecretCaller
  : Caller

export interface CredentialOptions {
  keys?: Pick<Env, 'publishableKeys' | 'secretKeys' | 'jwks' | 'jwtSecret'>
  /** Clocks may differ by this much when a token's times are checked. @default 5 */
  clockToleranceSeconds?: number
}

/** Verifies a request's headers for one mode; rejects with `UNAUTHENTICATED`. */
export type CredentialVerifier = (headers: Headers, mode: AuthMode) => Promise<Caller>

const asymmetricAlgorithms = ['ES256', 'RS256', 'EdDSA']

/** Reads keys once. The token's own `alg` never chooses the kind of key: each algorithm goes with one kind alone. */
export function createCredentialVerifier(options: CredentialOptions = {}): CredentialVerifier {
  const { keys = env(), clockToleranceSeconds = 5 } = options
  const publicKeys = keys.jwks.keys.length > 0
    ? createLocalJWKSet({ keys: keys.jwks.keys as never })
    : undefined
  const sharedKey = keys.jwtSecret === undefined ? undefined : new TextEncoder().encode(keys.jwtSecret)
  const secretDigests = Promise.all(Object.values(keys.secretKeys).map(digest))
  const publishableDigests = Promise.all(Object.values(keys.publishableKeys).map(digest))
  const checks = { clockTolerance: clockToleranceSeconds, requiredClaims: ['exp'] }

  async function verifyToken(token: string): Promise<Claims> {
    try {
      const { alg } = decodeProtectedHeader(token)
      if (publicKeys !== undefined && asymmetricAlgorithms.includes(alg ?? '')) {
        return claimsOf(await jwtVerify(token, publicKeys, { ...checks, algorithms: asymmetricAlgorithms }))
      }
      if (sharedKey !== undefined && alg === 'HS256') {
        return claimsOf(await jwtVerify(token, sharedKey, { ...checks, algorithms: ['HS256'] }))
      }
      throw new errors.JOSEAlgNotAllowed(`no key of this project signs with ${alg}`)
    } catch (cause) {
      throw refusal(
        cause instanceof errors.JWTExpired ? 'The access token has expired' : 'The access token is not valid',
        cause,
      )
    }
  }

  /** The role a key stands for; refuses a key that is none of ours. */
  async function roleOfKey(key: string): Promise<'anon' | 'service_role'> {
    const candidate = await digest(key)
    if (isOneOf(candidate, await secretDigests)) return 'service_role'
    if (isOneOf(candidate, await publishableDigests)) return 'anon'
    // Older clients use a JWT as their key, and any the project signed for a role is as good as the listed one.
    if (isToken(key)) {
      const { role } = await verifyToken(key)
      if (role === 'anon' || role === 'service_role') return role
    }
    throw refusal('The apikey is not a key of this project')
  }

  return async (headers, mode) => {
    if (mode === 'none') return anonymousCaller
    const apikey = headers.get('apikey')
    const keyRole = apikey === null ? undefined : await roleOfKey(apikey)

    if (mode === 'user') {
      const token = bearerToken(headers)
      if (token === undefined) throw refusal('This needs the access token of a signed-in user')
      // Clients that nobody has signed in to send their key as the bearer.
      if (!isToken(token)) throw refusal('This needs the access token of a signed-in user; received a key')
      const claims = await verifyToken(token)
      if (claims.role !== 'authenticated' || !claims.sub) {
        throw refusal('This needs the access token of a signed-in user; received one of another role')
      }
      return { kind: 'user', role: 'authenticated', userId: claims.sub, claims }
    }

    const role = keyRole ?? await roleOfBearer(headers)
    if (mode === 'secret') {
      if (role !== 'service_role') {
        throw new HoldfastError('FORBIDDEN', 'This needs a secret key; received a publishable one')
      }
      return { kind: 'secret', role, claims: { role } }
    }
    return role === 'service_role'
      ? { kind: 'secret', role, claims: { role } }
      : { kind: 'publishable', role, claims: { role } }
  }

  /** A key sent as the bearer alone, as curl users do. */
  async function roleOfBearer(headers: Headers): Promise<'anon' | 'service_role'> {
    const bearer = bearerToken(headers)
    if (bearer === undefined) throw refusal('This needs a key of the project in the apikey header')
    return await roleOfKey(bearer)
  }
}

function claimsOf({ payload }: { payload: JWTPayload }): Claims {
  return payload as Claims
}

function bearerToken(headers: Headers): string | undefined {
  const header = headers.get('authorization')
  if (header === null) return undefined
  const match = /^Bearer +(\S+)$/i.exec(header.trim())
  if (match === null) throw refusal('The Authorization header is not of the form "Bearer <token>"')
  return match[1]
}

function isToken(text: string): boolean {
  return text.split('.').length === 3
}

function refusal(message: string, cause?: unknown): HoldfastError {
  return new HoldfastError('UNAUTHENTICATED', message, { cause, headers: { 'www-authenticate': 'Bearer' } })
}

/** Compares all of every digest, so that the time taken tells nothing about any key. */
function isOneOf(candidate: Uint8Array, digests: Uint8Array[]): boolean {
  let found = false
  for (const known of digests) {
    let difference = 0
    for (let i = 0; i < known.length; i++) difference |= candidate[i]! ^ known[i]!
    found = difference === 0 || found
  }
  return found
}

async function digest(text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)))
}

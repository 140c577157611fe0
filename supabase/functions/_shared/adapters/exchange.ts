/** What the adapters share: one request and who it comes from, and how a failure of ours is answered. */
import type { Actor, Caller, Claims, RequestInfo } from '../core/caller.ts'
import { anonymousCaller } from '../core/caller.ts'
import { env } from '../core/env.ts'
import { HoldfastError, isHoldfastError } from '../core/errors.ts'
import { clientIp, requestIdOf } from '../http/headers.ts'
import { errorAnswer } from '../http/responses.ts'
import type { Logger } from '../observability/logger.ts'

/** One request behind an adapter. */
export interface Exchange {
  request: Request
  actor: Required<Actor>
  /** The request's body; whoever is behind the adapter can still read it. */
  readBody(): Promise<ArrayBuffer>
  /** What was set on the answer before the handler: this request's own, hence neither stored nor replayed. */
  ownHeaders?: Headers
}

/** How the handler ended, where it did not throw. */
export interface Handled {
  response: Response
  /** What it threw, where somebody has already made a response of that. */
  error?: unknown
}

/** Runs what is behind the adapter, with what the adapter gives it; once at most. */
export type Next<Given> = (given: Given) => Promise<Handled>

/** Resolves to the response to send; rejects with what `next` threw, and with nothing else. */
export type Around<Given> = (exchange: Exchange, next: Next<Given>) => Promise<Response>

/** The actor's own `request` counts, where it has one, in all that is said of this request. */
export function exchangeOf(
  request: Request,
  actor: Actor,
  rest: Pick<Exchange, 'readBody' | 'ownHeaders'>,
): Exchange {
  if (actor.request !== undefined) infos.set(request, actor.request)
  return { ...rest, request, actor: { caller: actor.caller, request: requestInfoOf(request) } }
}

/** What `@supabase/server` says of a request it has verified: `authMode` only where `withSupabase` has run. */
export interface VerifiedContext {
  jwtClaims: Claims | null
  authMode?: 'none' | 'publishable' | 'secret' | 'user'
}

/**
 * The caller of a request that `withSupabase`, `withClaims` or `withRequiredClaims` has verified. Throws `FORBIDDEN`
 * for a token that is not a signed-in user's. Trusts its argument: never pass claims that were only decoded.
 */
export function callerOf({ jwtClaims, authMode }: VerifiedContext): Caller {
  if (authMode === 'secret') return { kind: 'secret', role: 'service_role', claims: { role: 'service_role' } }
  if (authMode === 'publishable') return { kind: 'publishable', role: 'anon', claims: { role: 'anon' } }
  if (authMode === 'none' || jwtClaims === null) return anonymousCaller
  if (jwtClaims.role !== 'authenticated' || !jwtClaims.sub) {
    throw new HoldfastError(
      'FORBIDDEN',
      'This needs the access token of a signed-in user; received one of another role',
    )
  }
  return { kind: 'user', role: 'authenticated', userId: jwtClaims.sub, claims: jwtClaims }
}

const infos = new WeakMap<Request, RequestInfo>()

/** The same for all adapters of a request, so that they all say the same request id. */
function requestInfoOf(request: Request): RequestInfo {
  let info = infos.get(request)
  if (info === undefined) {
    const { pathname } = new URL(request.url)
    info = {
      requestId: requestIdOf(request.headers),
      functionName: pathname.split('/')[1] || 'function',
      method: request.method,
      path: pathname,
      ip: clientIp(request.headers, env().trustedProxyHops),
      userAgent: request.headers.get('user-agent') ?? undefined,
    }
    infos.set(request, info)
  }
  return info
}

/**
 * A failure as our envelope, or as problem details where `Accept` asks for them. What is our fault is logged and says
 * only its code. Meant for an application's own error handler as well.
 */
export function errorResponse(thrown: unknown, request: Request, log: Logger): Response {
  const error = isHoldfastError(thrown) ? thrown : new HoldfastError(
    'INTERNAL_ERROR',
    thrown instanceof Error ? thrown.message : 'A value was thrown that is no error',
    { cause: thrown },
  )
  const { requestId, method, path } = requestInfoOf(request)
  const { status, code } = error
  if (status >= 500) log.error(`${method} ${path} ${status}`, { requestId, method, status, code, error })
  const { headers, body } = errorAnswer(error, requestId, request.headers.get('accept'))
  return new Response(body, { status, headers: [...headers, ['x-request-id', requestId]] })
}

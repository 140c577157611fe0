/**
 * `withTransaction`, `withIdempotency`, `withBreaker` and `withRateLimit` as Hono middleware.
 *
 *     app.post('/orders', withIdempotency({ mode: 'atomic', as: (c) => … }), async (c) => { await c.var.tx.query(…) … })
 */
import type { Context, MiddlewareHandler } from 'hono'
import { type Actor, anonymousCaller } from '../core/caller.ts'
import { isHoldfastError } from '../core/errors.ts'
import type { Tx } from '../db/client.ts'
import type { ManagedTx } from '../db/transactionManager.ts'
import { createLogger, type Logger } from '../observability/logger.ts'
import type { CircuitBreaker } from '../resilience/circuitBreaker.ts'
import type { RateLimitDecision } from '../resilience/rateLimit.ts'
import { type BreakerOptions, createBreakerAround } from './breaker.ts'
import { type Around, errorResponse, exchangeOf } from './exchange.ts'
import {
  type AtomicOptions,
  createAtomicAround,
  createLeasedAround,
  type LeasedCall,
  type LeasedOptions,
} from './idempotency.ts'
import { createRateLimitAround, type RateLimitOptions } from './rateLimit.ts'
import { createTransactionAround, type TransactionOptions } from './transaction.ts'

export { callerOf, errorResponse, type VerifiedContext } from './exchange.ts'
export type { AtomicOptions, LeasedCall, LeasedOptions } from './idempotency.ts'
export type { BreakerOptions } from './breaker.ts'
export type { RateLimitOptions } from './rateLimit.ts'
export type { TransactionOptions } from './transaction.ts'

export interface ActorOption {
  /**
   * Who acts, as verified by what ran before: with `@supabase/server/adapters/hono`,
   * `(c) => ({ caller: callerOf(c.var.supabaseContext) })`.
   */
  // deno-lint-ignore no-explicit-any
  as: (c: Context<any>) => Actor | Promise<Actor>
}

/**
 * Gives the handler `c.var.tx`, which opens with its first statement. Commits before the answer leaves when that is
 * below 400, and rolls back when the handler threw or answered 400 and above. A commit that fails is the answer.
 */
export function withTransaction(
  options: TransactionOptions & ActorOption,
): MiddlewareHandler<{ Variables: { tx: ManagedTx } }> {
  return middleware('tx', options, createTransactionAround(options))
}

/** In mode `atomic` the handler is given `c.var.tx`, in mode `leased` `c.var.idempotency`; docs/adapters.md says when. */
export function withIdempotency(
  options: AtomicOptions & ActorOption,
): MiddlewareHandler<{ Variables: { tx: Tx } }>
export function withIdempotency(
  options: LeasedOptions & ActorOption,
): MiddlewareHandler<{ Variables: { idempotency: LeasedCall } }>
export function withIdempotency(options: (AtomicOptions | LeasedOptions) & ActorOption): MiddlewareHandler {
  return options.mode === 'atomic'
    ? middleware('tx', options, createAtomicAround(options))
    : middleware('idempotency', options, createLeasedAround(options))
}

/**
 * Runs the handler within a breaker, and gives it `c.var.breaker`. What it throws and its answers of 500 and above
 * count; while the breaker is open it does not run, and the answer is 503 `CIRCUIT_OPEN`.
 */
export function withBreaker(
  options: BreakerOptions,
): MiddlewareHandler<{ Variables: { breaker: CircuitBreaker } }> {
  return middleware('breaker', { ...options, as: nobody }, createBreakerAround(options))
}

/**
 * Answers 429 `RATE_LIMITED` to whoever calls too often, before the handler runs, and gives it `c.var.rateLimit`, the
 * decision. By `user` and `apiKey` it needs `as`.
 */
export function withRateLimit(
  { as, ...options }: RateLimitOptions & Partial<ActorOption>,
): MiddlewareHandler<{ Variables: { rateLimit: RateLimitDecision } }> {
  if (as === undefined && (options.by === 'user' || options.by === 'apiKey')) {
    throw new TypeError(`Cannot count by ${options.by}: give withRateLimit as, which says who is calling`)
  }
  return middleware('rateLimit', { as: as ?? nobody, log: options.log }, createRateLimitAround(options))
}

/** Who is calling does not matter. */
const nobody = () => ({ caller: anonymousCaller })

function middleware<Given>(
  key: string,
  { as, log = createLogger() }: ActorOption & { log?: Logger },
  around: Around<Given>,
): MiddlewareHandler {
  if (typeof as !== 'function') {
    throw new TypeError('Cannot set up the middleware: give it as, which says who acts')
  }
  return async (c, next) => {
    const request = c.req.raw
    const ownHeaders = new Headers(c.res.headers)
    const respond = (response: Response) => {
      if (response === c.res) return
      // Hono would merge what the handler has set into what takes its place.
      c.res = undefined
      c.res = withHeaders(response, ownHeaders)
    }
    let actor: Actor
    try {
      actor = await as(c)
    } catch (error) {
      if (!isHoldfastError(error)) throw error
      return respond(errorResponse(error, request, log))
    }
    const readBody = () => c.req.arrayBuffer()
    respond(
      await around(exchangeOf(request, actor, { readBody, ownHeaders }), async (given) => {
        c.set(key, given)
        await next()
        // Hono has made a response of what the handler threw, by the application's `onError`.
        return { response: c.res, error: c.error }
      }),
    )
  }
}

/** Those that the request had before come first; the response's own win. */
function withHeaders(response: Response, first: Headers): Response {
  const headers = new Headers(first)
  for (const [name, value] of response.headers) {
    if (name === 'set-cookie') headers.append(name, value)
    else headers.set(name, value)
  }
  return new Response(response.body, { status: response.status, headers })
}

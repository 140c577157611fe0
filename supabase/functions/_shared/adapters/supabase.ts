/**
 * `withTransaction`, `withIdempotency`, `withBreaker` and `withRateLimit` for pipelines of `@supabase/middleware`. The only file that imports it.
 *
 *     pipeline([withSupabase({ auth: 'user' }), withIdempotency({ mode: 'atomic' })], async (request, ctx) => …)
 */
import { type BaseContext, defineMiddleware, type Middleware } from '@supabase/middleware'
import { type Actor, anonymousCaller, type Claims } from '../core/caller.ts'
import { isHoldfastError } from '../core/errors.ts'
import type { Tx } from '../db/client.ts'
import type { ManagedTx } from '../db/transactionManager.ts'
import { createLogger, type Logger } from '../observability/logger.ts'
import type { CircuitBreaker } from '../resilience/circuitBreaker.ts'
import type { RateLimitDecision } from '../resilience/rateLimit.ts'
import { type BreakerOptions, createBreakerAround } from './breaker.ts'
import {
  type Around,
  callerOf,
  errorResponse,
  exchangeOf,
  type Handled,
  type VerifiedContext,
} from './exchange.ts'
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

/** Who acts, where it is not whom `withSupabase` has verified. */
export interface ActorOption {
  as: (request: Request, context: Record<string, unknown>) => Actor | Promise<Actor>
}

/** `withSupabase`, `withClaims` or `withRequiredClaims`, further out, says who is calling. */
export interface NeedsClaims {
  jwtClaims: Claims | null
}

interface NoActor {
  as?: undefined
}

type NoNeeds = Record<never, never>

export type WithTransaction =
  & Middleware<'tx', TransactionOptions & ActorOption, NoNeeds, ManagedTx>
  & Middleware<'tx', (TransactionOptions & NoActor) | undefined, NeedsClaims, ManagedTx>

export type WithIdempotency =
  & Middleware<'tx', AtomicOptions & ActorOption, NoNeeds, Tx>
  & Middleware<'tx', AtomicOptions & NoActor, NeedsClaims, Tx>
  & Middleware<'idempotency', LeasedOptions & ActorOption, NoNeeds, LeasedCall>
  & Middleware<'idempotency', LeasedOptions & NoActor, NeedsClaims, LeasedCall>

/**
 * Gives the handler `ctx.tx`, which opens with its first statement. Commits before the answer leaves when that is below
 * 400, and rolls back when the handler threw or answered 400 and above. A commit that fails is the answer.
 */
export const withTransaction = defineMiddleware({
  key: 'tx',
  run: (options: TransactionOptions & Partial<ActorOption> = {}) =>
    seam('tx', options, createTransactionAround(options)),
}) as unknown as WithTransaction

const withAtomic = defineMiddleware({
  key: 'tx',
  run: (options: AtomicOptions & Partial<ActorOption>) => seam('tx', options, createAtomicAround(options)),
})

const withLeased = defineMiddleware({
  key: 'idempotency',
  run: (options: LeasedOptions & Partial<ActorOption>) =>
    seam('idempotency', options, createLeasedAround(options)),
})

/** In mode `atomic` the handler is given `ctx.tx`, in mode `leased` `ctx.idempotency`; docs/adapters.md says when. */
export const withIdempotency =
  ((options: AtomicOptions | LeasedOptions, ...handler: []) =>
    options.mode === 'atomic'
      ? withAtomic(options, ...handler)
      : withLeased(options, ...handler)) as WithIdempotency

/**
 * Runs the handler within a breaker, and gives it `ctx.breaker`. What it throws and its answers of 500 and above count;
 * while the breaker is open it does not run, and the answer is 503 `CIRCUIT_OPEN`.
 */
export const withBreaker = defineMiddleware({
  key: 'breaker',
  run: (options: BreakerOptions) => seam('breaker', { ...options, as: nobody }, createBreakerAround(options)),
}) as unknown as Middleware<'breaker', BreakerOptions, NoNeeds, CircuitBreaker>

/** Whom it counts by itself; a user or a key are known where `withSupabase` stands in front. */
type CountsAnybody = RateLimitOptions & { by?: Exclude<RateLimitOptions['by'], 'user' | 'apiKey'> }

export type WithRateLimit =
  & Middleware<'rateLimit', CountsAnybody | (RateLimitOptions & ActorOption), NoNeeds, RateLimitDecision>
  & Middleware<'rateLimit', RateLimitOptions & NoActor, NeedsClaims, RateLimitDecision>

/**
 * Answers 429 `RATE_LIMITED` to whoever calls too often, before the handler runs, and gives it `ctx.rateLimit`, the
 * decision. By `user` and `apiKey` it stands behind `withSupabase`, or takes `as`.
 */
export const withRateLimit = defineMiddleware({
  key: 'rateLimit',
  run: ({ as, ...options }: RateLimitOptions & Partial<ActorOption>) => {
    const named = options.by === 'user' || options.by === 'apiKey'
    return seam(
      'rateLimit',
      { as: as ?? (named ? undefined : whoever), log: options.log },
      createRateLimitAround(options),
    )
  },
}) as unknown as WithRateLimit

/** Who is calling does not matter. */
const nobody = () => ({ caller: anonymousCaller })

/** A function that names the key may want to know, where somebody does. */
const whoever: ActorOption['as'] = (_request, context) =>
  'jwtClaims' in context ? { caller: callerOf(verified(context)) } : nobody()

/** What runs around a callback, as a generator: the callback is what happens while it is suspended. */
function seam<Key extends string, Given>(
  key: Key,
  { as, log = createLogger() }: Partial<ActorOption> & { log?: Logger },
  around: Around<Given>,
) {
  return async function* (
    request: Request,
    context: BaseContext,
  ): AsyncGenerator<{ [K in Key]: Given }, Response, Response> {
    let actor: Actor
    try {
      actor = as === undefined
        ? { caller: callerOf(verified(context)) }
        : await as(request, context as Record<string, unknown>)
    } catch (error) {
      if (!isHoldfastError(error)) throw error
      return errorResponse(error, request, log)
    }
    const readBody = () => request.arrayBuffer()
    const given = Promise.withResolvers<{ value: Given } | undefined>()
    const handled = Promise.withResolvers<Handled>()
    // Nobody may be waiting any more: the transaction has its own deadline.
    handled.promise.catch(() => {})
    const done = around(exchangeOf(request, actor, { readBody }), (value) => {
      given.resolve({ value })
      return handled.promise
    })
    const ended = () => given.resolve(undefined)
    done.then(ended, ended)

    const begun = await given.promise
    if (begun === undefined) return await done
    try {
      handled.resolve({ response: yield { [key]: begun.value } as { [K in Key]: Given } })
    } catch (error) {
      handled.reject(error)
    }
    return await done
  }
}

function verified(context: BaseContext): VerifiedContext {
  if ('jwtClaims' in context) return context as VerifiedContext
  throw new TypeError(
    'Cannot tell who is calling: put withSupabase in front in the pipeline, or give the option as',
  )
}

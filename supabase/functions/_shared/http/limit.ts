/**
 * The limit in front of a route: whom it counts, when it is asked, and what the answer says of it. Loaded with the first
 * request that has one: other routes pay nothing for it.
 */
import type { Caller } from '../core/caller.ts'
import { env } from '../core/env.ts'
import { HoldfastError } from '../core/errors.ts'
import { db } from '../db/client.ts'
import type { Logger } from '../observability/logger.ts'
import { digestOf } from '../resilience/fingerprint.ts'
import { createGuardTrip, type EnterGuards } from '../resilience/guardTrip.ts'
import type { Claim, IdempotencyRequest, LeasedOptions, Refused } from '../resilience/idempotency.ts'
import { isAway } from '../resilience/idempotencyErrors.ts'
import {
  createRateLimiter,
  type RateLimitCall,
  type RateLimitDecision,
  type RateLimiter,
  refusalOf,
} from '../resilience/rateLimit.ts'
import { policyHeader, standingHeader } from './limitHeaders.ts'
import { PostgresIdempotencyStore } from '../resilience/stores/postgres.ts'
import type { ClaimOptions } from '../resilience/stores/store.ts'
import type { LimitedRequest, ResolvedLimit } from './limitOptions.ts'
import { networkOf } from './networkOf.ts'
import type { Route } from './route.ts'

/** A request, and the headers that its answer will have, whatever becomes of it. */
export interface LimitedExchange extends LimitedRequest {
  limitHeaders: Record<string, string> | undefined
}

/** The limit of one request, asked as the request gets on. */
export interface LimitGate {
  /** Nobody has been asked who they are. */
  arrived(): Promise<void> | undefined
  identified(): Promise<void> | undefined
  /** The claim of an idempotency key with which the question travels; undefined where it goes by itself. */
  readonly claim: LeasedOptions['claim']
  /** For a request that has no key to claim after all. */
  unclaimed(): Promise<void> | undefined
}

export type OpenGate = (exchange: LimitedExchange, route: Route, declared: ResolvedLimit) => LimitGate

/**
 * One for an isolate. A limit that is refused rejects with `RATE_LIMITED`, or with `SERVICE_UNAVAILABLE` where nobody can
 * count and `onUnavailable` is `closed`. `travels`: leased keys are where `IDEMPOTENCY_STORE` says.
 */
export function createLimits(log: Logger, { travels }: { travels: boolean }): OpenGate {
  const limits = new Map<ResolvedLimit, RequestLimit>()
  const { rateLimitStore, idempotencyStore } = env()
  const together = travels && rateLimitStore === 'postgres' && idempotencyStore === 'postgres'
  let shared: Trip | undefined
  return (exchange, route, declared) => {
    let limit = limits.get(declared)
    if (limit === undefined) limits.set(declared, limit = new RequestLimit(declared, log))
    const canTravel = together && route.idempotency?.mode === 'leased' && declared.options.store === undefined
    return limit.open(exchange, canTravel ? shared ??= openTrip() : undefined)
  }
}

/** The limit and the claim in one, where both are in PostgreSQL. */
interface Trip {
  enter: EnterGuards
  /** Gives back a claim that came too late to be of use. */
  giveBack(request: IdempotencyRequest, claim: Claim | undefined): Promise<unknown> | undefined
}

function openTrip(): Trip {
  const keys = new PostgresIdempotencyStore(db)
  return {
    enter: createGuardTrip({ db }),
    giveBack: (request, claim) =>
      claim?.outcome === 'claimed' ? keys.release(request, claim.token) : undefined,
  }
}

/** What a limit says of a request: the headers of its answer, and how it is refused, if it is. */
export interface Limited {
  decision: RateLimitDecision
  headers: Record<string, string>
  refusal: HoldfastError | undefined
}

export class RequestLimit {
  readonly #declared: ResolvedLimit
  readonly #limiter: RateLimiter
  readonly #policy: string

  constructor(declared: ResolvedLimit, log: Logger) {
    this.#declared = declared
    this.#limiter = createRateLimiter({ ...declared.options, log })
    this.#policy = policyHeader(this.#limiter.windows)
  }

  open(exchange: LimitedExchange, trip: Trip | undefined): LimitGate {
    // Whoever is answered before the limit is asked, or joins a request that has asked, is told of it at least.
    exchange.limitHeaders = { 'ratelimit-policy': this.#policy }
    const consume = () => this.#consume(exchange)
    // What is to travel with a claim need not set out where a refusal is remembered.
    const ask = trip === undefined ? consume : () => this.#refuseKnown(exchange)
    const isFirst = this.#declared.by === 'ip'
    return {
      arrived: () => isFirst ? ask() : undefined,
      identified: () => isFirst ? undefined : ask(),
      claim: trip && ((request, options) => this.#claim(exchange, trip, request, options)),
      unclaimed: () => trip && consume(),
    }
  }

  /** Takes the request's cost, or says why not. */
  async ask(request: LimitedRequest, ask?: RateLimitCall['ask']): Promise<Limited> {
    const { cost } = this.#declared
    return this.#limited(await this.#limiter.consume(await this.#keyOf(request), { cost, ask }))
  }

  async #consume(exchange: LimitedExchange): Promise<void> {
    conclude(exchange, await this.ask(exchange))
  }

  async #refuseKnown(exchange: LimitedExchange): Promise<void> {
    const denied = this.#limiter.denied(await this.#keyOf(exchange), this.#declared.cost)
    if (denied !== undefined) conclude(exchange, this.#limited(denied))
  }

  /** Made only if the limit admits the request. */
  async #claim(
    exchange: LimitedExchange,
    { enter, giveBack }: Trip,
    request: IdempotencyRequest,
    options: ClaimOptions,
  ): Promise<Claim | Refused> {
    const claim = { request, ...options }
    let claimed: Promise<Claim | undefined> | undefined
    const { headers, refusal } = await this.ask(exchange, async (limit) => {
      const entered = enter({ limit, claim })
      claimed = entered.then(({ claim }) => claim)
      // The limit may have been decided without it by then.
      claimed.catch(() => {})
      return (await entered).limit!
    })
    exchange.limitHeaders = headers
    if (refusal !== undefined) {
      claimed?.then((late) => giveBack(request, late)).catch(() => {})
      return { outcome: 'refused', error: refusal }
    }
    // Where nobody had to be asked, or the limit has failed, the claim is still to be made; where the answer is late, it is
    // still on its way.
    return await claimed?.catch(requireRefused) ?? (await enter({ claim })).claim!
  }

  #limited(decision: RateLimitDecision): Limited {
    return {
      decision,
      headers: {
        'ratelimit-policy': this.#policy,
        'ratelimit': standingHeader(decision),
        ...(isAlone(decision) && { 'ratelimit-store': 'local' }),
      },
      refusal: decision.allowed ? undefined : refusalOf(decision),
    }
  }

  async #keyOf(exchange: LimitedRequest): Promise<string> {
    const { by } = this.#declared
    if (typeof by === 'function') return textOf(by(exchange), this.#limiter.name)
    const { caller, headers, request } = exchange
    if (by === 'user' && caller.userId !== undefined) return `user:${caller.userId}`
    const key = by === 'apiKey' ? keyOf(caller, headers) : undefined
    if (key !== undefined) return `key:${(await digestOf([key])).slice(0, 32)}`
    return `ip:${request.ip === undefined ? 'unknown' : networkOf(request.ip)}`
  }
}

/** Only a key that was verified: whoever makes up keys, or ways to write one, would get past the limit. */
function keyOf({ kind }: Caller, headers: Headers): string | undefined {
  if (kind === 'none') return undefined
  // A user's bearer is no key.
  const key = headers.get('apikey') ??
    (kind === 'user' ? undefined : headers.get('authorization')?.replace(/^Bearer +/i, ''))
  // The signature of a token can be written in many ways, all of which verify; what it signs in one alone.
  return key?.split('.', 2).join('.')
}

function conclude(exchange: LimitedExchange, { headers, refusal }: Limited): void {
  exchange.limitHeaders = headers
  if (refusal !== undefined) throw refusal
}

/** A statement that was refused has claimed nothing. Rethrows where there was no answer: it may have. */
function requireRefused(error: unknown): undefined {
  if (isAway(error)) throw error
}

function isAlone({ decidedBy }: RateLimitDecision): boolean {
  return decidedBy === 'local' || decidedBy === 'unavailable'
}

function textOf(key: unknown, name: string): string {
  if (typeof key === 'string' && key !== '') return key
  throw new HoldfastError(
    'INTERNAL_ERROR',
    `Cannot count a request for the limit "${name}": by gave no text, but ${key === '' ? "''" : typeof key}`,
  )
}

/**
 * The way of a request through a route that declares `idempotency`: its key, what it comes down to, and the mode.
 * What happens to the key is decided in `resilience/idempotency.ts`, what the handler answers in `handlerRun.ts`.
 *
 * Loaded with the first request that needs it: other routes pay nothing for it.
 */
import { env } from '../core/env.ts'
import { HoldfastError } from '../core/errors.ts'
import { db } from '../db/client.ts'
import type { Logger } from '../observability/logger.ts'
import { digestOf, identityOf } from '../resilience/fingerprint.ts'
import {
  createIdempotency,
  type Idempotency,
  type IdempotencyRequest,
  type IdempotencyStore,
  lastStatement,
  leaseMarginMs,
  type Outcome,
} from '../resilience/idempotency.ts'
import { keyRequired, specificationUrl } from '../resilience/idempotencyErrors.ts'
import { keyOf } from '../resilience/idempotencyKey.ts'
import { MemoryIdempotencyStore } from '../resilience/stores/memory.ts'
import { PostgresIdempotencyStore } from '../resilience/stores/postgres.ts'
import { HandlerRun, type IdempotentExchange } from './handlerRun.ts'
import type { ResolvedIdempotency } from './idempotencyOptions.ts'
import type { LimitGate } from './limit.ts'
import type { IdempotentRoute, Route } from './route.ts'

export interface IdempotencySettings {
  /** Where leased keys are kept; atomic ones are always in PostgreSQL. @default what `IDEMPOTENCY_STORE` says */
  store?: IdempotencyStore
  /** The page for clients that sent no key. @default the specification of the header */
  docsUrl?: string
}

/** What the client sent, before any schema has changed it. */
export interface SentInput {
  params: Record<string, string>
  /** Without the field that names the key; undefined where the route reads no body. */
  body: unknown
  /** That field. */
  keyField: unknown
}

/** The answer to send, and what the log says of it. */
export interface IdempotentAnswer extends Outcome {
  resumed: boolean
  refused?: HoldfastError
}

/** Rejects with the `IDEMPOTENCY_` codes, and with failures of the handler that are not stored. */
export type RunIdempotently = (
  exchange: IdempotentExchange,
  route: IdempotentRoute,
  sent: SentInput,
  gate?: LimitGate,
) => Promise<IdempotentAnswer>

/** One for an isolate: requests with one key that reach it at the same time join in its memory. */
export async function createIdempotentRoutes(
  log: Logger,
  { store, docsUrl = specificationUrl }: IdempotencySettings = {},
): Promise<RunIdempotently> {
  const inPostgres = createIdempotency({ store: new PostgresIdempotencyStore(db), log })
  const chosen = store ?? await configuredStore()
  const inStore = chosen === undefined ? inPostgres : createIdempotency({ store: chosen, log })

  return async (exchange, route, sent, gate) => {
    const key = keyOf(exchange.headers.get('idempotency-key'), sent.keyField)
    if (key === undefined && route.idempotency.required) throw keyRequired(docsUrl)
    const request = key === undefined ? undefined : await describe(exchange, route, sent, key)
    const run = new HandlerRun(exchange, route, key)
    const outcome = route.idempotency.mode === 'atomic'
      ? await runAtomic(inPostgres, request, run, exchange, route.idempotency)
      : await runLeased(inStore, request, run, exchange, route, gate)
    return { ...outcome, resumed: run.resumed, refused: outcome.replayed ? undefined : run.refused }
  }
}

/** As `IDEMPOTENCY_STORE` says, undefined for PostgreSQL. Redis is loaded by those alone who ask for it. */
async function configuredStore(): Promise<IdempotencyStore | undefined> {
  const { idempotencyStore, redisUrl } = env()
  if (idempotencyStore === 'memory') return new MemoryIdempotencyStore()
  if (idempotencyStore !== 'redis') return undefined
  const { RedisIdempotencyStore } = await import('../resilience/stores/redis.ts')
  return new RedisIdempotencyStore({ url: redisUrl! })
}

/** IK6: whose key it is and for which route; the fingerprint adds what exactly was asked. */
async function describe(
  { caller, functionName, requestId, raw }: IdempotentExchange,
  { method, path }: Route,
  { params, body }: SentInput,
  key: string,
): Promise<IdempotencyRequest> {
  const who = identityOf(caller)
  const route = `${method} /${functionName}${path === '/' ? '' : path}`
  const query = new URL(raw.url).searchParams
  query.sort()
  const [id, fingerprint] = await Promise.all([
    digestOf([who, route, key]),
    digestOf([who, route, params, [...query], body === undefined ? [] : [body]]),
  ])
  return { id, fingerprint, route, callerId: caller.userId ?? null, requestId }
}

async function runAtomic(
  idempotency: Idempotency,
  request: IdempotencyRequest | undefined,
  run: HandlerRun,
  exchange: IdempotentExchange,
  { isolation, waitMs, ttlMs, maxStoredBytes }: ResolvedIdempotency,
): Promise<Outcome> {
  const { signal } = exchange
  const timeoutMs = Math.max(1, exchange.deadlineAt - Date.now())
  if (request === undefined) return await runOnce(run, exchange, { isolation, timeoutMs })
  const options = { db: db(), actor: exchange, isolation, timeoutMs, waitMs, ttlMs, maxStoredBytes, signal }
  try {
    return await idempotency.atomic(request, options, (tx) => run.inTransaction(tx))
  } catch (error) {
    // Refused by the statement that travelled with the commit: to be kept like a refusal of the handler's.
    if (!run.deferred) throw error
    const answer = run.refuse(error)
    return await idempotency.atomic(request, options, () => Promise.resolve({ answer, store: true }))
  }
}

/** A request without a key, where the route takes such: a transaction like any other. */
async function runOnce(
  run: HandlerRun,
  exchange: IdempotentExchange,
  options: { isolation: ResolvedIdempotency['isolation']; timeoutMs: number },
): Promise<Outcome> {
  const tx = db().begin(exchange, options)
  try {
    const { answer, deferred } = await run.inTransaction(tx)
    if (answer.status >= 400) await tx.rollback()
    else if (deferred === undefined) await tx.commit()
    else {
      const [row] = await tx.commit<{ data: string }>({ last: lastStatement(deferred.last) })
      answer.body = deferred.prefix + row!.data + deferred.suffix
    }
    return { answer, replayed: false }
  } catch (error) {
    await tx.rollback()
    throw error
  }
}

async function runLeased(
  idempotency: Idempotency,
  request: IdempotencyRequest | undefined,
  run: HandlerRun,
  { signal }: IdempotentExchange,
  { timeoutMs, idempotency: { waitMs, ttlMs, maxStoredBytes, onUnavailable } }: IdempotentRoute,
  gate: LimitGate | undefined,
): Promise<Outcome> {
  if (request === undefined) {
    await gate?.unclaimed()
    const alone = { effectId: crypto.randomUUID(), resumed: false, attempt: 1, completeWith: undefined }
    return { ...await run.withClaim(alone), replayed: false }
  }
  const leaseMs = timeoutMs + leaseMarginMs
  const claim = gate?.claim
  const options = { leaseMs, waitMs, ttlMs, maxStoredBytes, onUnavailable, signal, claim }
  return await idempotency.leased(request, options, (claim) => run.withClaim(claim))
}

/**
 * An idempotency key around what is behind an adapter. What happens to the key is decided in
 * `resilience/idempotency.ts`; here a request becomes a claim, and any response an answer that can be stored.
 */
import { HoldfastError, isHoldfastError } from '../core/errors.ts'
import { type Db, db as sharedDb, sql, type Tx } from '../db/client.ts'
import type { ManagedTx } from '../db/transactionManager.ts'
import { type IdempotencyOptions as Declaration, resolveIdempotency } from '../http/idempotencyOptions.ts'
import { createLogger, type Logger } from '../observability/logger.ts'
import {
  createIdempotency,
  type IdempotencyStore,
  type LeasedClaim,
  leaseMarginMs,
  type StoredAnswer,
} from '../resilience/idempotency.ts'
import { specificationUrl } from '../resilience/idempotencyErrors.ts'
import { PostgresIdempotencyStore } from '../resilience/stores/postgres.ts'
import { type Around, errorResponse, type Exchange, type Handled, type Next } from './exchange.ts'
import { keyedRequest } from './idempotentRequest.ts'
import { responseOf, storedAnswerOf } from './storedAnswer.ts'
import { createTransactionAround, requirePositive } from './transaction.ts'

/** As for routes (docs/idempotency.md), and: */
interface CommonOptions extends Pick<Declaration, 'required' | 'waitMs' | 'ttlMs' | 'maxStoredBytes'> {
  /** @default `db()`, from the environment */
  db?: Db | (() => Db)
  /** Longest the handler may take: the transaction ends then, and a lease soon after. @default 30_000 */
  timeoutMs?: number
  /** Largest request body. @default 1_048_576 */
  maxBodyBytes?: number
  /** The page for clients that sent no key. @default the specification of the header */
  docsUrl?: string
  /** Where failures of ours are logged. @default JSON lines on standard output */
  log?: Logger
}

export interface AtomicOptions extends CommonOptions, Pick<Declaration, 'isolation'> {
  mode: 'atomic'
}

export interface LeasedOptions extends CommonOptions, Pick<Declaration, 'onUnavailable'> {
  mode: 'leased'
  /** Where keys are kept. @default PostgreSQL */
  store?: IdempotencyStore
}

/** What the handler of a leased request knows of its key. */
export interface LeasedCall {
  /** Undefined for a request without one. */
  readonly key: string | undefined
  /** The same for every attempt at this key: hand it to the outside service as its idempotency key. */
  readonly effectId: string
  /** An earlier attempt ended without an answer and may have acted: ask the outside service before you act. */
  readonly resumed: boolean
  /** Counted from 1. */
  readonly attempt: number
  /**
   * Puts the answer into a transaction of the handler's, so that one is stored if, and only if, the other commits.
   * Answer with what it resolves to.
   */
  complete(tx: Pick<ManagedTx, 'beforeCommit' | 'afterCommit'>, response: Response): Promise<Response>
}

/** Claim, what the handler writes through `tx`, and its answer commit together; from 400 on the writes are taken back. */
export function createAtomicAround(options: AtomicOptions): Around<Tx> {
  const settings = settingsOf(options)
  const { timeoutMs, isolation, waitMs, ttlMs, maxStoredBytes, log } = settings
  const { db = sharedDb } = options
  const database = () => typeof db === 'function' ? db() : db
  const idempotency = createIdempotency({ store: new PostgresIdempotencyStore(database), log })
  const aroundUnkeyed = createTransactionAround({ db, timeoutMs, isolation, log })

  return async (exchange, next) => {
    const run = new Run(exchange, next, maxStoredBytes)
    try {
      const request = await keyedRequest(exchange, settings)
      if (request === undefined) return await aroundUnkeyed(exchange, (tx) => run.once(tx))
      const { actor, request: { signal } } = exchange
      const limits = { isolation, timeoutMs, waitMs, ttlMs, maxStoredBytes, signal }
      const outcome = await idempotency.atomic(request, { db: database(), actor, ...limits }, async (tx) => {
        // The claim travels with a first statement, and what is behind an adapter runs once at most: so not before it.
        await tx.query(sql`select 1`)
        return await run.finish(await run.once(run.watched(tx)))
      })
      return responseOf(outcome)
    } catch (error) {
      return run.conclude(error, log)
    }
  }
}

/** The key is claimed first, by a lease, and whoever takes over from one that never finished is told so. */
export function createLeasedAround(options: LeasedOptions): Around<LeasedCall> {
  const settings = settingsOf(options)
  const { timeoutMs, waitMs, ttlMs, maxStoredBytes, onUnavailable, log } = settings
  const { db = sharedDb, store = new PostgresIdempotencyStore(db) } = options
  const idempotency = createIdempotency({ store, log })

  return async (exchange, next) => {
    const run = new Run(exchange, next, maxStoredBytes)
    try {
      const request = await keyedRequest(exchange, settings)
      if (request === undefined) return (await run.once(run.call(alone(), undefined))).response
      const { signal } = exchange.request
      const limits = {
        leaseMs: timeoutMs + leaseMarginMs,
        waitMs,
        ttlMs,
        maxStoredBytes,
        onUnavailable,
        signal,
      }
      const outcome = await idempotency.leased(request, limits, async (claim) => {
        const handled = await run.once(run.call(claim, request.key))
        if (run.completed !== undefined) return { answer: run.completed, store: true, completed: true }
        return await run.finish(handled)
      })
      return responseOf(outcome)
    } catch (error) {
      return run.conclude(error, log)
    }
  }
}

/** The claim of a request without a key, where such are taken. */
function alone(): LeasedClaim {
  return { effectId: crypto.randomUUID(), resumed: false, attempt: 1, completeWith: undefined }
}

function settingsOf(options: AtomicOptions | LeasedOptions) {
  const { timeoutMs = 30_000, maxBodyBytes = 1_048_576, docsUrl = specificationUrl, log = createLogger() } =
    options
  for (const [name, value] of Object.entries({ timeoutMs, maxBodyBytes })) requirePositive(name, value)
  // Every request of the pipeline comes by here, so the declaration is that of no particular route.
  const declared = resolveIdempotency(options, { method: 'POST', path: 'behind withIdempotency' })!
  return { ...declared, timeoutMs, maxBodyBytes, docsUrl, log }
}

/** The one run of the handler, and what came of it. */
class Run<Given> {
  /** What `complete` has stored, once its transaction has committed. */
  completed: StoredAnswer | undefined
  readonly #exchange: Exchange
  readonly #next: Next<Given>
  readonly #maxBytes: number
  #started = false
  #thrown: { error: unknown } | undefined
  /** What the handler answered, where what it did is taken back. */
  #refused: Response | undefined
  #disturbed = false

  constructor(exchange: Exchange, next: Next<Given>, maxBytes: number) {
    this.#exchange = exchange
    this.#next = next
    this.#maxBytes = maxBytes
  }

  /** A transaction that lost to another, or with its connection, is run again elsewhere; this cannot be. */
  async once(given: Given): Promise<Handled> {
    if (this.#started) throw new HoldfastError('SERVICE_UNAVAILABLE', inTheWay, { retryAfterMs: 0 })
    this.#started = true
    try {
      return await this.#next(given)
    } catch (error) {
      this.#thrown = { error }
      throw error
    }
  }

  /** The answer, and whether it stands: what may go otherwise next time is not stored. */
  async finish({ response, error }: Handled): Promise<{ answer: StoredAnswer; store: boolean }> {
    const { status } = response
    if (error !== undefined && status < 400) {
      this.#refused = response
      throw new HoldfastError('INTERNAL_ERROR', 'The handler threw, and its error was answered as a success')
    }
    const answer = await this.#answerOf(response)
    if (status < 400) return { answer, store: true }
    this.#refused = responseOf({ answer, replayed: false })
    const passing = status >= 500 || [408, 425, 429].includes(status) || this.#disturbed ||
      (isHoldfastError(error) && error.retryable)
    return { answer, store: !passing }
  }

  /** Also notices what may go otherwise next time, in case the handler makes a refusal of it. */
  watched(tx: Tx): Tx {
    return {
      query: (query) =>
        tx.query<never>(query).catch((error) => {
          this.#disturbed ||= isHoldfastError(error) && error.retryable
          throw error
        }),
    }
  }

  call({ effectId, resumed, attempt, completeWith }: LeasedClaim, key: string | undefined): LeasedCall {
    return {
      key,
      effectId,
      resumed,
      attempt,
      complete: async (tx, response) => {
        if (completeWith === undefined) return response
        const answer = await this.#answerOf(response)
        tx.beforeCommit(completeWith(answer))
        tx.afterCommit(() => {
          this.completed = answer
        })
        return responseOf({ answer, replayed: false })
      },
    }
  }

  /** What the handler threw is thrown on: whoever is in front of us may know more about it. */
  conclude(error: unknown, log: Logger): Response {
    if (this.#thrown !== undefined) throw this.#thrown.error
    return this.#refused ?? errorResponse(error, this.#exchange.request, log)
  }

  async #answerOf(response: Response): Promise<StoredAnswer> {
    const { request, ownHeaders } = this.#exchange
    const route = `${request.method} ${new URL(request.url).pathname}`
    return await storedAnswerOf(response, { route, maxBytes: this.#maxBytes, ownHeaders })
  }
}

const inTheWay =
  'The transaction was rolled back by a conflict or with its connection; send it again with the same key'

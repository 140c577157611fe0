/**
 * A request with an idempotency key runs once, however often it is sent: rules IK3 to IK8 of CONFORMANCE.md.
 *
 * `atomic`: the claim, the writes and the stored answer are one transaction, so a crash at any instant leaves nothing.
 * `leased`: for effects outside the database; the claim is held by a lease, and whoever takes over from one that
 * never finished is told so.
 *
 * Callers of one isolate join in memory; those of others wait without holding a connection.
 */
import type { Actor } from '../core/caller.ts'
import type { Db, SqlQuery, Tx } from '../db/client.ts'
import type { Isolation } from '../db/transaction.ts'
import type { Logger } from '../observability/logger.ts'
import { RecentIds, runAtomic } from './atomicRun.ts'
import { JoinedCalls } from './joinedCalls.ts'
import { runLeased } from './leasedRun.ts'
import { MemoryIdempotencyStore } from './stores/memory.ts'
import { PostgresIdempotencyStore } from './stores/postgres.ts'
import type { Claim, IdempotencyRequest, IdempotencyStore, StoredAnswer } from './stores/store.ts'

export { lastStatement } from './stores/postgres.ts'
export type { Claim, IdempotencyRequest, IdempotencyStore, StoredAnswer } from './stores/store.ts'

export interface IdempotencyOptions {
  store: IdempotencyStore
  /** Longest wait for the same request that is running elsewhere. @default 5_000 */
  waitMs?: number
  log: Logger
}

/** The body is `prefix`, then the first column of the first row of a statement as JSON, then `suffix`. */
export interface DeferredBody {
  prefix: string
  suffix: string
}

export interface CallOptions {
  /** @default that of the `Idempotency` */
  waitMs?: number
  /** How long a stored answer is replayed. */
  ttlMs: number
  /** Longest body that is stored, in bytes of UTF-8. A longer one is an error, and nothing commits. */
  maxStoredBytes: number
  /** Ends this caller's waiting. A work that runs has its own to end it. */
  signal?: AbortSignal
}

export interface AtomicOptions extends CallOptions {
  db: Db
  actor: Actor
  isolation?: Isolation
  /** Of the whole transaction. */
  timeoutMs?: number
}

/** Below 400 the transaction commits with its answer stored; from 400 on it is rolled back. */
export interface AtomicFinished {
  /** With `deferred` its body is ignored. */
  answer: StoredAnswer
  /** False for what may go otherwise next time (5xx, retryable): no answer is kept. Only from 400 on. */
  store: boolean
  /** The last statement, as the caller: it travels with the stored answer and the commit, and completes the body. */
  deferred?: DeferredBody & { last: SqlQuery }
}

export interface LeasedOptions extends CallOptions {
  /** The function's deadline with a margin: a crash frees the key after this long. */
  leaseMs: number
  /** `closed`: 503. `local`: this isolate's memory decides, which another isolate does not see. */
  onUnavailable: 'closed' | 'local'
  /**
   * Makes the first claim in the store's place, so that it can travel with what else is asked for the request. Rejects as
   * the store does. Callers that join a request that is running never get here.
   */
  claim?: (...given: Parameters<IdempotencyStore['claim']>) => Promise<Claim | Refused>
}

/** What else was asked has refused the request: nothing is claimed. */
export interface Refused {
  outcome: 'refused'
  error: Error
}

export interface LeasedClaim {
  /** UUID, the same for every attempt of this key: what outside services take as their idempotency key. */
  readonly effectId: string
  /** An earlier attempt ended without an answer and may have had its effect: ask before acting. */
  readonly resumed: boolean
  /** From 1. */
  readonly attempt: number
  /**
   * The statement that stores the answer in the business transaction, to run last, as the connection's own role. It
   * raises HF003, and all is rolled back, when the claim was lost; the call then rejects with IN_USE. Otherwise finish
   * with `completed: true`. With `deferred`
   * the body is taken from `lastStatement(…)`, run right before it. Undefined where the answer cannot commit with the
   * transaction: another store than Postgres, or `local`.
   */
  readonly completeWith: ((answer: StoredAnswer, deferred?: DeferredBody) => SqlQuery) | undefined
}

export interface Finished {
  answer: StoredAnswer
  /** False for what may go otherwise next time (5xx, retryable): the key is released, the next attempt `resumed`. */
  store: boolean
  /** The answer has committed by `completeWith`. */
  completed?: boolean
}

export interface Outcome {
  answer: StoredAnswer
  /** This call did not run the work: the answer was stored, or another call of this isolate ran it. */
  replayed: boolean
  /** Decided in this isolate's memory, since the store is away. */
  local?: boolean
}

/** What a lease lasts beyond the work's own time: for answering when that is up, and for clocks that run apart. */
export const leaseMarginMs = 10_000

/**
 * Both reject with IDEMPOTENCY_KEY_REUSED, IDEMPOTENCY_KEY_IN_USE (with `retryAfterMs`), SERVICE_UNAVAILABLE,
 * INTERNAL_ERROR for an answer that is too large, and with whatever the work threw.
 */
export interface Idempotency {
  atomic(
    request: IdempotencyRequest,
    options: AtomicOptions,
    work: (tx: Tx) => Promise<AtomicFinished>,
  ): Promise<Outcome>
  leased(
    request: IdempotencyRequest,
    options: LeasedOptions,
    work: (claim: LeasedClaim) => Promise<Finished>,
  ): Promise<Outcome>
}

/** `RangeError` for a wait that is no number of milliseconds. Opens nothing. */
export function createIdempotency({ store, waitMs = 5_000, log }: IdempotencyOptions): Idempotency {
  requireDuration('create the idempotency', { waitMs })
  const joined = new JoinedCalls<Outcome>()
  const stores = { store, local: new MemoryIdempotencyStore(), log }
  const answered = new RecentIds(10_000)
  return {
    async atomic(request, given, work) {
      if (!(store instanceof PostgresIdempotencyStore)) {
        throw new TypeError(`Cannot run ${request.route} atomically: its keys are not kept in PostgreSQL`)
      }
      const { ttlMs, maxStoredBytes, waitMs } = withWait(given)
      requireDuration(`run ${request.route} atomically`, { ttlMs, maxStoredBytes, waitMs })
      const options = { ...given, waitMs }
      return await joined.run(request, options, () => runAtomic(store, answered, request, options, work))
    },

    async leased(request, given, work) {
      const { ttlMs, maxStoredBytes, leaseMs, waitMs } = withWait(given)
      requireDuration(`run ${request.route} with a lease`, { ttlMs, maxStoredBytes, leaseMs, waitMs })
      const options = { ...given, waitMs }
      return await joined.run(request, options, () => runLeased(stores, request, options, work))
    },
  }

  function withWait<Given extends CallOptions>(given: Given): Given & { waitMs: number } {
    return { ...given, waitMs: given.waitMs ?? waitMs }
  }
}

function requireDuration(what: string, numbers: Record<string, number>): void {
  for (const [name, value] of Object.entries(numbers)) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new RangeError(`Cannot ${what}: ${name} must be a whole number of at least 0, received ${value}`)
    }
  }
}

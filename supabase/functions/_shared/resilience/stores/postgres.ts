/**
 * Idempotency keys in PostgreSQL (`holdfast.idempotency_keys`): the default, and the only store whose answers can
 * commit together with what the request wrote. Everything here runs as the connection's own role.
 */
import { type Db, sql, sqlArray, type SqlQuery } from '../../db/client.ts'
import { batched } from './batch.ts'
import {
  type Claim,
  type ClaimOptions,
  dayMs,
  type IdempotencyRequest,
  type IdempotencyStore,
  type StoredAnswer,
} from './store.ts'

/** What is stored: a body, or pieces of one around the reply of `lastStatement`. */
export type AnswerToStore = Pick<StoredAnswer, 'status' | 'headers'> & {
  body: string | { prefix: string; suffix: string }
}

export interface StorageLimits {
  ttlMs: number
  /** In bytes of UTF-8. */
  maxStoredBytes: number
}

/** What is known of a key that nobody claimed. */
export type Found = Exclude<Claim, { outcome: 'claimed' }> | { outcome: 'absent' }

/** SQLSTATEs that functions of the migration raise. */
export const claimRefused = 'HF010'
export const keyLost = 'HF003'
export const answerTooLarge = 'HF011'

/** The setting in which the result of a last statement stays until the answer is stored. */
const reply = 'holdfast.reply'

interface AnswerRow extends Record<string, unknown> {
  outcome: string
  retry_after_ms: string | number | null
  status: number
  headers: string
  body: string
}

/** What `holdfast.lease_idempotency_key` gives; numbers are text where they come in columns of their own. */
export interface LeaseRow extends AnswerRow {
  effect_id: string
  token: string | number
  attempt: string | number
}

export class PostgresIdempotencyStore implements IdempotencyStore {
  readonly #db: () => Db
  readonly #find: (request: IdempotencyRequest) => Promise<Found>

  /** Opens nothing. Closing it leaves the `Db` open. */
  constructor(db: Db | (() => Db)) {
    this.#db = typeof db === 'function' ? db : () => db
    this.#find = batched((requests) => this.#findAll(requests), { maxItems: 100, maxRunning: 1 })
  }

  async claim(request: IdempotencyRequest, { leaseMs, ttlMs = dayMs }: ClaimOptions): Promise<Claim> {
    const [row] = await this.#db().owner.query<LeaseRow>(sql`
      select * from holdfast.lease_idempotency_key(${bytes(request.id)}, ${bytes(request.fingerprint)},
        ${request.route}, ${request.callerId}, ${request.requestId}, ${leaseMs}, ${ttlMs})`)
    return claimOf(row!)
  }

  async complete(request: IdempotencyRequest, token: number, answer: StoredAnswer, ttlMs: number) {
    const [row] = await this.#db().owner.query<{ completed: boolean }>(sql`
      select holdfast.complete_idempotency_key(${bytes(request.id)}, ${token}, ${answer.status},
        ${answer.headers}, ${answer.body}, ${ttlMs}) as completed`)
    return row!.completed
  }

  async release(request: IdempotencyRequest, token: number): Promise<boolean> {
    const [row] = await this.#db().owner.query<{ released: boolean }>(
      sql`select holdfast.release_idempotency_key(${bytes(request.id)}, ${token}) as released`,
    )
    return row!.released
  }

  /** The `Db` is its owner's to close. */
  close(): Promise<void> {
    return Promise.resolve()
  }

  /**
   * For the transaction of a leased handler, as its last statement: stores the answer. Raises HF003 when the claim
   * was lost and HF011 when the body is too large.
   */
  completion(
    request: IdempotencyRequest,
    token: number,
    { status, headers, body }: AnswerToStore,
    { ttlMs, maxStoredBytes }: StorageLimits,
  ): SqlQuery {
    return sql`select holdfast.require_completed_idempotency_key(${bytes(request.id)}, ${token}, ${status},
      ${headers}, ${bodyOf(body)}, ${ttlMs}, ${maxStoredBytes})`
  }

  /**
   * For the opening of an atomic transaction: claims the key for as long as it lasts. Raises HF010 where the request
   * may not run; `find` then tells more.
   */
  claimExpression({ id, fingerprint }: IdempotencyRequest): SqlQuery {
    return sql`holdfast.claim_idempotency_key(${bytes(id)}, ${bytes(fingerprint)}) as claim`
  }

  /** For the end of an atomic transaction: stores the answer. Raises HF003 when the key has one, HF011 as above. */
  atomicCompletion(
    { id, fingerprint, route, callerId, requestId }: IdempotencyRequest,
    { status, headers, body }: AnswerToStore,
    { ttlMs, maxStoredBytes }: StorageLimits,
  ): SqlQuery {
    return sql`select holdfast.store_idempotent_answer(${bytes(id)}, ${
      bytes(fingerprint)
    }, ${route}, ${callerId},
      ${requestId}, ${status}, ${headers}, ${bodyOf(body)}, ${ttlMs}, ${maxStoredBytes})`
  }

  /** Reads, and writes nothing. Those that ask at the same time share one trip. */
  find(request: IdempotencyRequest): Promise<Found> {
    return this.#find(request)
  }

  async #findAll(requests: IdempotencyRequest[]): Promise<Found[]> {
    const rows = await this.#db().owner.query<AnswerRow & { nth: string }>(sql`
      select * from holdfast.find_idempotent_answers(${sqlArray(requests.map(({ id }) => bytes(id)))},
        ${sqlArray(requests.map(({ fingerprint }) => bytes(fingerprint)))})`)
    const found: Found[] = []
    for (const row of rows) found[Number(row.nth) - 1] = refusalOf(row)
    return found
  }
}

export function claimOf(row: LeaseRow): Claim {
  if (row.outcome !== 'claimed') return refusalOf(row) as Claim
  const attempt = Number(row.attempt)
  return {
    outcome: 'claimed',
    effectId: row.effect_id,
    token: Number(row.token),
    attempt,
    resumed: attempt > 1,
  }
}

/**
 * The statement with its result kept for the answer: `data` is the first column of its row as JSON, and `null` where
 * there is none. More than one row is an error. A statement that changes something inside a `with` of its own cannot
 * be wrapped: PostgreSQL wants those at the top.
 */
export function lastStatement(statement: SqlQuery): SqlQuery {
  return sql`with work (data) as (${statement})
    select set_config(${reply}, coalesce((select to_json(data)::text from work), 'null'), true) as data`
}

/** Why a claim was refused, from the error that `claimRefused` names. */
export function refusalIn(error: unknown): 'replay' | 'in_progress' | 'mismatch' {
  const { detail } = (error as { cause: { detail: 'replay' | 'in_progress' | 'mismatch' } }).cause
  return detail
}

function bodyOf(body: AnswerToStore['body']): unknown {
  if (typeof body === 'string') return body
  return sql`${body.prefix}::text || current_setting(${reply}) || ${body.suffix}::text`
}

function refusalOf({ outcome, retry_after_ms, status, headers, body }: AnswerRow): Found {
  if (outcome === 'replay') return { outcome, answer: { status, headers: JSON.parse(headers), body } }
  if (outcome === 'in_progress') return { outcome, retryAfterMs: Number(retry_after_ms ?? 0) }
  return { outcome: outcome as 'mismatch' | 'absent' }
}

/** A digest as `bytea` reads it. */
function bytes(digest: string): string {
  return `\\x${digest}`
}

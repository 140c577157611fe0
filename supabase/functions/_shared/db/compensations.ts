/**
 * Effects outside the database (a charge) and how they are undone when their transaction does not commit. An effect is
 * on record before it happens; the commit removes the record, and whoever finds it after that undoes the effect: the
 * transaction itself when it fails, the sweep when its isolate died. docs/transactions.md says what happens when.
 */
import type { Actor } from '../core/caller.ts'
import { HoldfastError, isHoldfastError } from '../core/errors.ts'
import type { Logger } from '../observability/logger.ts'
import type { Db, Row } from './client.ts'
import { sql, sqlArray, type SqlQuery } from './sql.ts'

export interface Effect {
  /** Hand this to the outside service as its idempotency key: the same in all attempts that resume it, new once it was undone. */
  effectKey: string
  /** An earlier attempt recorded it and may have caused it: ask before you act, or act with the same key. */
  resumed: boolean
}

export interface CompensationContext {
  effectKey: string
  /** Counted from 1. */
  attempt: number
  /** Aborted when the handler's time is up. What it does after that may overlap with the next attempt. */
  signal: AbortSignal
  /** By the database's clock, as is `ageMs`. The effect came later, if at all. */
  recordedAt: Date
  /** How long ago that was. */
  ageMs: number
}

/**
 * Undoes an effect that may not have happened. Must be safe to run twice, also at once. Resolve when nothing is left
 * to undo, and throw to be tried again later.
 */
// deno-lint-ignore no-explicit-any -- what `record` was given, as JSON; the handler knows its own
export type CompensationHandler = (args: any, context: CompensationContext) => Promise<void>

export interface UndoReport {
  /** Row of `holdfast.compensations`; the effect's key. */
  id: string
  name: string
  effectKey: string
  /** `failed` ones are tried again, unless they were discarded. */
  outcome: 'undone' | 'failed'
  error?: unknown
}

export interface CompensationsOptions {
  db: Db
  /** By the names that `record` takes. */
  handlers: Record<string, CompensationHandler>
  /** The function whose sweep finds them. */
  functionName: string
  log: Logger
  /** Longest a handler may take. @default 20_000 */
  handlerTimeoutMs?: number
}

export interface RecordingTransaction {
  id: string
  /** Of the whole transaction. Its effects are not undone by the sweep before it is over, and a minute more. */
  timeoutMs: number
  actor: Actor
}

/** An effect that is ours to undo, until the lease ends. */
interface Claim extends Row {
  id: string
  name: string
  args: unknown
  status: 'running' | 'discarded'
  attempts: string
  lease_token: string
  last_error: string | null
  recorded_at: Date
  age_ms: number
}

/** A handler that overran still gets this long to say so before another isolate may take over. */
const leaseMarginMs = 10_000
/** The sweep begins nothing new after this; the next ring comes in a minute. */
const sweepForMs = 45_000
/** Transactions that the sweep undoes side by side. */
const lanes = 4

export class Compensations {
  readonly #db: Db
  readonly #handlers: ReadonlyMap<string, CompensationHandler>
  readonly #functionName: string
  readonly #log: Logger
  readonly #handlerTimeoutMs: number

  /** `TypeError` for a handler that is no function, `RangeError` for a time out of range. */
  constructor(options: CompensationsOptions) {
    const { db, handlers, functionName, log, handlerTimeoutMs = 20_000 } = options
    for (const [name, handler] of Object.entries(handlers)) {
      if (typeof handler === 'function' && name !== '') continue
      throw new TypeError(
        `Cannot declare the compensation ${JSON.stringify(name)}: it must have a name and be a function`,
      )
    }
    if (!Number.isInteger(handlerTimeoutMs) || handlerTimeoutMs < 1) {
      throw new RangeError(
        `Cannot declare compensations: handlerTimeoutMs must be a positive whole number, received ${handlerTimeoutMs}`,
      )
    }
    this.#db = db
    this.#handlers = new Map(Object.entries(handlers))
    this.#functionName = functionName
    this.#log = log
    this.#handlerTimeoutMs = handlerTimeoutMs
  }

  /**
   * Call it, and wait for it, before the effect happens; when it rejects, the effect must not happen. Commits at once,
   * whatever becomes of the transaction. Of the same `resumeKey` there is one effect at a time: a later attempt takes it
   * over, after which the earlier one cannot commit. Rejects with `CONFLICT` while the effect is being undone
   * (retryable), or when that has failed for good; `TypeError` for a name without a handler, before anything is sent.
   */
  async record(
    tx: RecordingTransaction,
    name: string,
    args: unknown,
    { resumeKey }: { resumeKey?: string } = {},
  ): Promise<Effect> {
    if (!this.#handlers.has(name)) {
      throw new TypeError(`Cannot compensate by "${name}": there are ${this.#declared()}`)
    }
    const { caller, request } = tx.actor
    const [row] = await this.#db.owner.query<{ outcome: Recorded; effect_key: string }>(sql`
      select outcome, effect_key from holdfast.record_compensation(
        ${tx.id}, ${Math.ceil(tx.timeoutMs)}, ${this.#functionName}, ${name}, ${JSON.stringify(args ?? null)},
        ${resumeKey}, ${caller.role}, ${caller.userId}, ${request?.requestId}
      )`)
    const { outcome, effect_key: effectKey } = row!
    if (outcome === 'recorded' || outcome === 'resumed') return { effectKey, resumed: outcome === 'resumed' }
    throw refusal(name, outcome)
  }

  /**
   * To be sent with the commit, in the transaction, as the connection's own role. Raises HF002 unless each effect is
   * still this transaction's own and nobody has begun to undo it. In repeatable read and serializable this rests on
   * the books: `holdfast.commit_transaction` must be sent as well.
   */
  settle(transactionId: string, effectKeys: readonly string[]): SqlQuery {
    return sql`select holdfast.settle_compensations(${transactionId}, ${sqlArray(effectKeys)}::uuid[])`
  }

  /**
   * For an effect that is certain not to have happened, since the outside service refused it. It is not to be settled
   * then. False where it was taken over, or is being undone.
   */
  async withdraw(transactionId: string, effectKey: string): Promise<boolean> {
    const [row] = await this.#db.owner.query<{ withdrawn: boolean }>(
      sql`select holdfast.withdraw_compensation(${transactionId}, ${effectKey}) as withdrawn`,
    )
    return row!.withdrawn
  }

  /**
   * Undoes what a transaction has recorded, last first; one that fails does not keep the earlier ones from being
   * undone. Call it once it is certain that the transaction has not committed. `deferResumable` leaves those with a
   * resume key to the next attempt. Never rejects: what cannot be undone now is undone by the sweep.
   */
  async undo(
    transactionId: string,
    { deferResumable = false }: { deferResumable?: boolean } = {},
  ): Promise<UndoReport[]> {
    const reports: UndoReport[] = []
    try {
      for (;;) {
        const claim = await this.#claim(transactionId, deferResumable)
        if (claim === undefined) return reports
        reports.push(await this.#undoOne(claim))
      }
    } catch (error) {
      this.#log.error('Effects cannot be undone now, the sweep will', { transactionId, error })
      return reports
    }
  }

  /**
   * Undoes what is due of this function: one lease at a time for each effect, last first within a transaction, several
   * transactions side by side. Begins nothing after `limit` effects, after 45 s, or when `signal` is aborted. Effects
   * whose handler this deployment does not declare are reported as failed and stay due. Rejects when the database
   * cannot be asked at all.
   */
  async undoDue(
    { limit = 100, signal }: { limit?: number; signal?: AbortSignal } = {},
  ): Promise<UndoReport[]> {
    const endsAt = performance.now() + sweepForMs
    const reports = await this.#undeclared(limit)
    let left = limit
    const lane = async () => {
      while (left > 0 && !signal?.aborted && performance.now() < endsAt) {
        left--
        const claim = await this.#claim()
        if (claim === undefined) return
        reports.push(await this.#undoOne(claim))
      }
    }
    for (const result of await Promise.allSettled(Array.from({ length: lanes }, lane))) {
      if (result.status === 'fulfilled') continue
      if (reports.length === 0) throw result.reason
      // What was undone is to be reported; the rest stays due.
      this.#log.error('The sweep of effects broke off', { error: result.reason })
    }
    return reports
  }

  async #claim(transactionId?: string, deferResumable = false): Promise<Claim | undefined> {
    const names = sqlArray([...this.#handlers.keys()])
    const [claim] = await this.#db.owner.query<Claim>(sql`
      select *, extract(epoch from clock_timestamp() - recorded_at)::float8 * 1000 as age_ms
      from holdfast.claim_compensation(
        ${this.#functionName}, ${names}::text[], ${this.#handlerTimeoutMs + leaseMarginMs}, ${transactionId},
        ${deferResumable}
      )`)
    return claim
  }

  /** Never rejects. */
  async #undoOne(claim: Claim): Promise<UndoReport> {
    const report = { id: claim.id, name: claim.name, effectKey: claim.id }
    if (claim.status === 'discarded') {
      const found = claim.last_error ?? 'the isolate ended each time'
      return { ...report, outcome: 'failed', error: this.#discarded(claim, new Error(found)) }
    }
    let failure: { error: unknown } | undefined
    try {
      await this.#handle(claim)
    } catch (error) {
      failure = { error }
    }
    try {
      const status = await this.#finish(claim, failure)
      if (status === 'undone') return { ...report, outcome: 'undone' }
      if (status === 'discarded') this.#discarded(claim, failure?.error)
      const error = failure === undefined ? lostLease(claim.name) : failure.error
      return { ...report, outcome: 'failed', error }
    } catch (error) {
      // The lease ends, and it is undone once more.
      return { ...report, outcome: 'failed', error: failure === undefined ? error : failure.error }
    }
  }

  /** Does not wait for a handler that ignores its signal. */
  async #handle({ id, name, args, attempts, recorded_at, age_ms }: Claim): Promise<void> {
    const controller = new AbortController()
    const { signal } = controller
    const late = Promise.withResolvers<never>()
    const timer = setTimeout(() => {
      const found = `it took longer than ${this.#handlerTimeoutMs} ms`
      const reason = new HoldfastError('UPSTREAM_TIMEOUT', `Cannot undo an effect by "${name}": ${found}`)
      controller.abort(reason)
      late.reject(reason)
    }, this.#handlerTimeoutMs)
    const context: CompensationContext = {
      effectKey: id,
      attempt: Number(attempts),
      signal,
      recordedAt: recorded_at,
      ageMs: age_ms,
    }
    const handled = (async () => await this.#handlers.get(name)!(args, context))()
    handled.catch(() => {})
    try {
      await Promise.race([handled, late.promise])
    } finally {
      clearTimeout(timer)
    }
  }

  /** Undefined when the lease was lost. */
  async #finish({ id, lease_token }: Claim, failure: { error: unknown } | undefined) {
    const reason = failure === undefined ? undefined : reasonOf(failure.error)
    const [row] = await this.#db.owner.query<{ status: 'undone' | 'retryable' | 'discarded' | null }>(
      sql`select holdfast.finish_compensation(${id}, ${lease_token}, ${reason}, ${!wasNotAsked(
        failure?.error,
      )}) as status`,
    )
    return row?.status
  }

  #discarded({ id, name }: Claim, error: unknown): unknown {
    const fix = `select holdfast.retry_compensation('${id}')`
    this.#log.error('An effect could not be undone and was given up', {
      compensation: name,
      effectKey: id,
      error,
      fix,
    })
    return error
  }

  async #undeclared(limit: number): Promise<UndoReport[]> {
    const rows = await this.#db.owner.query<{ id: string; name: string }>(sql`
      select id, name
      from holdfast.compensations
      where function_name = ${this.#functionName}
        and name <> all (${sqlArray([...this.#handlers.keys()])}::text[])
        and status in ('pending', 'running', 'retryable')
        and due_at <= clock_timestamp()
      order by due_at
      limit ${limit}`)
    return rows.map(({ id, name }) => {
      const found = `this deployment declares ${this.#declared()}`
      const error = new HoldfastError('INTERNAL_ERROR', `Cannot undo an effect by "${name}": ${found}`)
      return { id, name, effectKey: id, outcome: 'failed', error }
    })
  }

  #declared(): string {
    return this.#handlers.size === 0 ? 'no handlers' : `the handlers ${[...this.#handlers.keys()].join(', ')}`
  }
}

/** A breaker or a bulkhead has refused: however long that lasts, it uses up no attempt. */
function wasNotAsked(error: unknown): boolean {
  return isHoldfastError(error) && (error.code === 'CIRCUIT_OPEN' || error.code === 'BULKHEAD_FULL')
}

type Recorded = 'recorded' | 'resumed' | 'undoing' | 'busy' | 'discarded'

function refusal(name: string, outcome: Recorded): HoldfastError {
  if (outcome === 'discarded') {
    const found = 'an earlier one could not be undone, and somebody has to look'
    return new HoldfastError('CONFLICT', `Cannot repeat the effect of "${name}": ${found}`)
  }
  const found = outcome === 'busy' ? 'an earlier attempt is committing' : 'an earlier one is being undone'
  const again = { retryable: true, retryAfterMs: 1_000 }
  return new HoldfastError('CONFLICT', `Cannot repeat the effect of "${name}" now: ${found}`, again)
}

function lostLease(name: string): HoldfastError {
  const found = 'it took so long that somebody else has taken over'
  return new HoldfastError('CONFLICT', `Cannot say that the effect of "${name}" is undone: ${found}`, {
    retryable: true,
  })
}

/** For `last_error`: PostgreSQL's text holds no NUL. */
function reasonOf(error: unknown): string {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return text.replaceAll('\0', '')
}

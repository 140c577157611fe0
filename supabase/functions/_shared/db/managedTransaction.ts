/** One attempt of a transaction of the manager: what `run` hands to its work, and what each step of a stepwise one uses. */
import type { Actor, SecretCaller } from '../core/caller.ts'
import { HoldfastError, isHoldfastError } from '../core/errors.ts'
import type { Db, Row } from './client.ts'
import { resolveCommit } from './commitOutcome.ts'
import type { Compensations, Effect } from './compensations.ts'
import { CommitUnknownError, unavailable } from './databaseError.ts'
import type { DataOf, ManagedTx, OperationResult, RestorePoint } from './managedTx.ts'
import { within } from './pause.ts'
import { sql, sqlArray, type SqlQuery } from './sql.ts'
import { Steps } from './transactionSteps.ts'
import type { TableCatalog } from './tableCatalog.ts'
import type { OperationArguments } from './tableOperations.ts'
import type { Isolation, Transaction } from './transaction.ts'
import {
  commitBooks,
  endBooks,
  type Ending,
  openBooks,
  openingOf,
  type RunAs,
  type TransactionFacts,
} from './transactionBooks.ts'
import {
  closedError,
  effectsTaken,
  hasState,
  isConflict,
  isSwallowed,
  isTimeLimit,
  lostRows,
  refuseTransactionControl,
  swallowed,
  timedOut,
} from './transactionErrors.ts'

export interface ManagedOptions {
  db: Db
  id: string
  attempt: number
  as: RunAs
  /** Absent where none are kept. */
  facts: TransactionFacts | undefined
  isolation: Isolation | undefined
  signal: AbortSignal
  /** Of this attempt. */
  timeoutMs: number
  leftMs: () => number
  catalog: TableCatalog
  compensations: Compensations | undefined
}

const serviceCaller: SecretCaller = {
  kind: 'secret',
  role: 'service_role',
  claims: { role: 'service_role' },
}

/** Books and rollbacks are waited for this long; what they miss is made good by the server and the sweep. */
const endWithinMs = 1_000

export class ManagedTransaction implements ManagedTx {
  readonly id: string
  readonly attempt: number
  readonly signal: AbortSignal
  readonly tables = new Set<string>()
  operations = 0
  /** The server could not be asked whether it committed. */
  outcomeUnknown = false
  /** Why it is over, once it is: what later statements are rejected with. */
  #over: Error | undefined
  #committing = false
  readonly #options: ManagedOptions
  readonly #engine: Transaction
  /** Something was sent, so the books have a row and a rollback has work. */
  #touched = false
  /** Whoever was asked for the outcome has written it down. */
  #booksClosed = false
  #inFlight = 0
  #conflict: Error | undefined
  /** What the server's timeouts were last set to. */
  #limitMs: number
  readonly #steps: Steps
  readonly #effects = new Set<string>()
  readonly #closing: SqlQuery[] = []
  readonly #tasks: (() => void | Promise<void>)[] = []
  #last: { query: SqlQuery; rows: PromiseWithResolvers<Row[]> } | undefined

  constructor(options: ManagedOptions) {
    const { db, id, as, attempt, facts, isolation, signal, timeoutMs } = options
    this.id = id
    this.attempt = attempt
    this.signal = signal
    this.#options = options
    this.#limitMs = timeoutMs
    this.#steps = new Steps(id, { query: (query) => this.#send(query) }, () => {
      this.#conflict = undefined
      // Settings go back as well.
      this.#limitMs = timeoutMs
    })
    this.#engine = db.begin(as, {
      isolation,
      timeoutMs: Math.ceil(timeoutMs),
      before: facts === undefined ? [] : [openBooks(id, facts)],
      opening: openingOf(id),
    })
  }

  /** Effects were recorded; without a commit they are to be undone. */
  get hasEffects(): boolean {
    return this.#effects.size > 0
  }

  get afterCommitTasks(): readonly (() => void | Promise<void>)[] {
    return this.#tasks
  }

  async query<T extends Row = Row>(query: SqlQuery): Promise<T[]> {
    this.#assertOpen()
    refuseTransactionControl(query)
    this.operations++
    if (this.#steps.running !== undefined) await this.#steps.running
    return await this.#send<T>(query)
  }

  async execute<const A extends OperationArguments>(
    table: string,
    ...args: A
  ): Promise<OperationResult<DataOf<A>>> {
    this.#assertOpen()
    return await this.#steps.alone(async () => {
      this.operations++
      const point = this.#steps.newPoint()
      try {
        const data = await this.#steps.operate(point, this.#options.catalog, table, args) as DataOf<A>
        this.tables.add(table)
        return { success: true, data, error: null, restorePoint: point }
      } catch (error) {
        if (this.#over !== undefined) throw this.#over
        if (!isHoldfastError(error)) throw error
        return { success: false, data: null, error, restorePoint: point }
      }
    })
  }

  async lock(...keys: string[]): Promise<void> {
    if (keys.length === 0) return
    await this.query(sql`
      select pg_advisory_xact_lock(key)
      from (
        select distinct hashtextextended('holdfast.lock ' || name, 0) as key
        from unnest(${sqlArray(keys)}::text[]) as name
        order by 1
      ) as ordered`)
  }

  async savepoint(): Promise<RestorePoint> {
    this.#assertOpen()
    return await this.#steps.savepoint()
  }

  async rollbackTo(point: RestorePoint): Promise<void> {
    this.#assertOpen()
    await this.#steps.rollbackTo(point)
  }

  async compensate(name: string, args: unknown, options?: { resumeKey?: string }): Promise<Effect> {
    this.#assertOpen()
    const { compensations, as, timeoutMs } = this.#options
    if (compensations === undefined) {
      throw new TypeError(`Cannot compensate by "${name}": the transaction manager was given no handlers`)
    }
    const actor: Actor = 'service' in as ? { caller: serviceCaller } : as
    const effect = await compensations.record({ id: this.id, timeoutMs, actor }, name, args, options)
    this.#effects.add(effect.effectKey)
    // Recorded too late: it stays pending and falls due, so the effect must not happen.
    this.#assertOpen()
    return effect
  }

  async withdraw({ effectKey }: Effect): Promise<void> {
    if (!this.#effects.delete(effectKey)) {
      throw new RangeError(`Cannot withdraw the effect ${effectKey}: it is not one of this transaction`)
    }
    await this.#options.compensations!.withdraw(this.id, effectKey)
  }

  afterCommit(task: () => void | Promise<void>): void {
    this.#assertOpen()
    this.#tasks.push(task)
  }

  atCommit<T extends Row = Row>(last: SqlQuery): Promise<T[]> {
    this.#assertOpen()
    refuseTransactionControl(last)
    if (this.#last !== undefined) {
      throw new HoldfastError('TRANSACTION_CLOSED', 'Cannot add a statement to the commit: it has one')
    }
    this.operations++
    const rows = Promise.withResolvers<Row[]>()
    rows.promise.catch(() => {})
    this.#last = { query: last, rows }
    return rows.promise as Promise<T[]>
  }

  beforeCommit(...closing: SqlQuery[]): void {
    this.#assertOpen()
    this.#closing.push(...closing)
  }

  /**
   * Resolves when the commit is certain. Rejects with the cause when everything is rolled back, and with
   * `CommitUnknownError` when the server could not be asked.
   */
  async commit(): Promise<void> {
    this.#assertOpen()
    this.#committing = true
    await this.#steps.running
    if (this.#over !== undefined) throw this.#over
    const { facts, compensations } = this.#options
    const closing = [...this.#closing]
    if (this.#effects.size > 0) closing.push(compensations!.settle(this.id, [...this.#effects]))
    this.#touched ||= this.#last !== undefined || closing.length > 0
    if (this.#touched && facts !== undefined) closing.push(commitBooks(this.id, facts, this.#count()))
    try {
      const rows = await this.#engine.commit({ last: this.#last?.query, closing })
      this.#last?.rows.resolve(rows)
    } catch (error) {
      const cause = await this.#outcomeOf(error)
      this.#last?.rows.reject(cause ?? lostRows(error))
      if (cause !== undefined) throw cause
    }
    this.#over = closedError(this.id, 'is committed')
  }

  /** Ends it without a commit and says so in the books. Takes a second at most, and never rejects. */
  async end(ending: Pick<Ending, 'status' | 'errorCode'>): Promise<void> {
    this.interrupt(closedError(this.id, 'was rolled back'))
    const { facts } = this.#options
    const books = this.#touched && !this.#booksClosed && facts !== undefined
      ? [endBooks(this.id, facts, { ...ending, ...this.#count() })]
      : []
    const ended = await within(this.#engine.rollback({ after: books }).then(() => true), endWithinMs)
    if (ended === undefined) this.#engine.abandon()
  }

  /**
   * From now on nothing can be sent; whatever is tried is rejected with `reason`. `abandon` also breaks off what is on
   * its way: of a commit, `commit` then finds out what became of it.
   */
  interrupt(reason: Error, abandon: 'always' | 'busy' | 'never' = 'never'): void {
    this.#over ??= reason
    if (!this.#committing) this.#last?.rows.reject(reason)
    if (abandon === 'always' || (abandon === 'busy' && this.#inFlight > 0)) this.#engine.abandon()
  }

  /** The deadline ended it, by whichever clock. */
  get timedOut(): boolean {
    return isHoldfastError(this.#over) && this.#over.code === 'TRANSACTION_TIMED_OUT'
  }

  get isCommitting(): boolean {
    return this.#committing
  }

  async #send<T extends Row = Row>(query: SqlQuery): Promise<T[]> {
    if (this.#over !== undefined) throw this.#over
    this.#touched = true
    this.#inFlight++
    try {
      this.#shrinkLimits()
      return await this.#engine.query<T>(query)
    } catch (error) {
      throw this.#explain(error)
    } finally {
      this.#inFlight--
    }
  }

  /** The server's own timeouts follow the time that is left, in steps of one half; they travel with the statement. */
  #shrinkLimits(): void {
    const leftMs = Math.max(1, Math.ceil(this.#options.leftMs()))
    if (leftMs > this.#limitMs / 2) return
    this.#limitMs = leftMs
    this.#engine.query(sql`
      select set_config('statement_timeout', ${leftMs}, true),
        set_config('idle_in_transaction_session_timeout', ${leftMs}, true)`).catch(() => {})
  }

  /** The error as the work is to see it: the deadline, whichever clock noticed it first, is always the deadline. */
  #explain(error: unknown): unknown {
    if (this.#over !== undefined) return this.#over
    if (isConflict(error)) this.#conflict ??= error as Error
    const { timeoutMs, leftMs } = this.#options
    if (isTimeLimit(error) && leftMs() < timeoutMs / 10) {
      return this.#over = timedOut(this.id, timeoutMs, error)
    }
    return error
  }

  /** Undefined when it did commit. */
  async #outcomeOf(error: unknown): Promise<unknown> {
    if (!(error instanceof CommitUnknownError)) {
      if (hasState(error, 'HF001')) return this.#rolledBack(error)
      if (hasState(error, 'HF002')) return effectsTaken(this.id, error)
      if (!isSwallowed(error)) return this.#explain(error)
      // The work has caught what doomed the transaction. A conflict is to be tried again all the same.
      return this.#conflict ?? swallowed(error)
    }
    const { db, facts } = this.#options
    const xid = this.#engine.openingRow?.xid as string | undefined
    const outcome = await resolveCommit(db, { id: this.id, facts, xid })
    if (outcome === 'committed') return undefined
    if (outcome === 'unknown') {
      this.outcomeUnknown = true
      return new CommitUnknownError(error.cause, { transactionId: this.id })
    }
    return this.#rolledBack(error)
  }

  #rolledBack(cause: unknown): Error {
    this.#booksClosed = true
    return this.#over ?? unavailable('Cannot commit: the connection was lost and everything is rolled back', {
      cause,
      details: { transactionId: this.id, outcome: 'rolled_back' },
    })
  }

  #count(): { operations: number; tables: string[] } {
    return { operations: this.operations, tables: [...this.tables] }
  }

  #assertOpen(): void {
    if (this.#over !== undefined) throw this.#over
    if (this.#committing) throw closedError(this.id, 'is being committed')
  }
}

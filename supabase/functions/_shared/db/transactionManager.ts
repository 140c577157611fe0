/**
 * Transactions that stay correct while processes die: as the caller, with a deadline that the server keeps too, with
 * books, with effects outside the database that are undone, and with a certain answer to "did it commit?".
 * docs/transactions.md says what happens when something fails.
 */
import type { Actor, Caller } from '../core/caller.ts'
import type { Clock } from '../core/clock.ts'
import type { Logger } from '../observability/logger.ts'
import { type Db, db as sharedDb, type Row } from './client.ts'
import type { CompensationHandler, UndoReport } from './compensations.ts'
import type { DataOf, ManagedTx, OperationResult, RestorePoint } from './managedTx.ts'
import { pause } from './pause.ts'
import type { SqlQuery } from './sql.ts'
import type { OperationArguments } from './tableOperations.ts'
import type { Isolation } from './transaction.ts'
import { closedError, isConflict } from './transactionErrors.ts'
import { type Active, TransactionRuns } from './transactionRuns.ts'

export type { DataOf, ManagedTx, OperationResult, RestorePoint } from './managedTx.ts'
export type { Data, Filter, OperationArguments } from './tableOperations.ts'

export interface RunOptions {
  /** Whose role, claims and request hold for all of it; `service` asks for `service_role`, and says why. */
  as: Actor | Caller | { service: string }
  /** From the call to the end of the commit, all attempts together. @default 30_000 */
  timeoutMs?: number
  /** @default the server's own, read committed */
  isolation?: Isolation
  /** How often it may be started, when serialization failures and deadlocks stop it. @default 3 */
  attempts?: number
  /** Ends it before its commit; a commit that is on its way is waited for. */
  signal?: AbortSignal
}

export interface ActiveTransaction {
  id: string
  callerRole: string
  callerId?: string
  startedAt: Date
  deadlineAt: Date
  attempt: number
  operations: number
  tables: string[]
}

export interface TransactionManager {
  /**
   * Commits when `work` resolves and rolls back when it throws, rethrowing what it threw. After a serialization
   * failure or a deadlock the whole is run again, so `work` may run more than once; nothing else is repeated.
   * Rejects with `TRANSACTION_TIMED_OUT` at the deadline, whether or not `work` has noticed. When the commit is not
   * answered the server is asked: it resolves if that committed, rejects with `SERVICE_UNAVAILABLE` (retryable) if it
   * rolled back, and with `CommitUnknownError` if nobody can tell.
   */
  run<T>(options: RunOptions, work: (tx: ManagedTx) => Promise<T>): Promise<T>
  /** A transaction in steps; resolves to its id. It ends by itself at its deadline. Is not run again by itself. */
  begin(options: RunOptions): Promise<string>
  execute<const A extends OperationArguments>(
    id: string,
    table: string,
    ...args: A
  ): Promise<OperationResult<DataOf<A>>>
  query<T extends Row = Row>(id: string, query: SqlQuery): Promise<T[]>
  rollbackTo(id: string, point: RestorePoint): Promise<void>
  commit(id: string): Promise<void>
  rollback(id: string): Promise<void>
  /** Those of this isolate. */
  getActiveTransactions(): ActiveTransaction[]
  /** Finishes what crashed transactions of this function have left to undo. Called by the sweep's route. */
  undoDue(): Promise<UndoReport[]>
}

export interface TransactionManagerOptions {
  /** How effects outside the database are undone, by the names that `compensate` takes. */
  compensations?: Record<string, CompensationHandler>
  /** Keep books in `holdfast.transactions`; compensations rest on them. @default true */
  record?: boolean
  log?: Logger
  /** @default the environment's */
  functionName?: string
  /** Measures how much time is left. @default a clock that is never set back */
  clock?: Clock
  /** In [0, 1), for the jitter of the backoff. @default Math.random */
  random?: () => number
}

/** Opens nothing and reads nothing before its first use. `TypeError` for options that contradict each other. */
export function createTransactionManager(
  db: Db | (() => Db),
  options: TransactionManagerOptions = {},
): TransactionManager {
  if (options.record === false && options.compensations !== undefined) {
    throw new TypeError(
      'Cannot create a transaction manager: compensations need the books, but record is false',
    )
  }
  return new Manager(typeof db === 'function' ? db : () => db, options)
}

/** So many ended stepwise transactions are remembered, for a clear answer to whoever uses one again. */
const rememberedEnds = 1_000

class Manager implements TransactionManager {
  readonly #runs: TransactionRuns
  readonly #random: () => number
  readonly #ended = new Map<string, Error>()

  constructor(db: () => Db, options: TransactionManagerOptions) {
    this.#runs = new TransactionRuns(db, options)
    this.#random = options.random ?? Math.random
  }

  async run<T>(options: RunOptions, work: (tx: ManagedTx) => Promise<T>): Promise<T> {
    const plan = this.#runs.plan(options)
    try {
      for (let attempt = 1;; attempt++) {
        const { tx } = this.#runs.open(plan, attempt)
        const working = (async () => await work(tx))()
        try {
          const result = await plan.deadline.race(working)
          await this.#runs.commit(tx)
          return result
        } catch (error) {
          await this.#runs.fail(tx, plan, error, working)
          if (attempt >= plan.attempts || !isConflict(error)) throw error
          await pause(this.#random() * Math.min(20 * 2 ** (attempt - 1), 1_000), plan.deadline.signal)
        } finally {
          this.#runs.active.delete(tx.id)
        }
      }
    } finally {
      plan.deadline.clear()
    }
  }

  // deno-lint-ignore require-await -- what is wrong with the options is a rejection
  async begin(options: RunOptions): Promise<string> {
    const plan = this.#runs.plan(options)
    const { tx } = this.#runs.open(plan, 1)
    const { id } = tx
    plan.deadline.signal.addEventListener('abort', () => {
      if (tx.isCommitting) return
      const reason = plan.deadline.signal.reason
      plan.deadline.clear()
      this.#take(id, reason)
      this.#runs.fail(tx, plan, reason).catch(() => {})
    }, { once: true })
    return id
  }

  async execute<const A extends OperationArguments>(
    id: string,
    table: string,
    ...args: A
  ): Promise<OperationResult<DataOf<A>>> {
    return await this.#find(id).tx.execute(table, ...args)
  }

  async query<T extends Row = Row>(id: string, query: SqlQuery): Promise<T[]> {
    return await this.#find(id).tx.query<T>(query)
  }

  async rollbackTo(id: string, point: RestorePoint): Promise<void> {
    await this.#find(id).tx.rollbackTo(point)
  }

  async commit(id: string): Promise<void> {
    const { tx, plan } = this.#take(id, closedError(id, 'is committed, or its commit has failed'))
    try {
      await this.#runs.commit(tx)
    } catch (error) {
      await this.#runs.fail(tx, plan, error)
      throw error
    } finally {
      plan.deadline.clear()
    }
  }

  async rollback(id: string): Promise<void> {
    const { tx, plan } = this.#take(id, closedError(id, 'was rolled back'))
    plan.deadline.clear()
    await this.#runs.end(tx, plan, undefined)
  }

  getActiveTransactions(): ActiveTransaction[] {
    return [...this.#runs.active.values()].map(({ tx, plan, startedAt }) => {
      const caller = 'service' in plan.as ? undefined : plan.as.caller
      return {
        id: tx.id,
        callerRole: caller?.role ?? 'service_role',
        callerId: caller?.userId,
        startedAt,
        deadlineAt: new Date(startedAt.getTime() + plan.timeoutMs),
        attempt: tx.attempt,
        operations: tx.operations,
        tables: [...tx.tables],
      }
    })
  }

  async undoDue(): Promise<UndoReport[]> {
    return await this.#runs.compensating()?.undoDue() ?? []
  }

  #find(id: string): Active {
    const active = this.#runs.active.get(id)
    if (active === undefined) throw this.#ended.get(id) ?? closedError(id, 'is not one of this isolate')
    return active
  }

  #take(id: string, end: Error): Active {
    const active = this.#find(id)
    this.#runs.active.delete(id)
    this.#ended.set(id, end)
    if (this.#ended.size > rememberedEnds) this.#ended.delete(this.#ended.keys().next().value!)
    return active
  }
}

/** Of this isolate's database. For compensations make one of your own. */
export const transactions: TransactionManager = createTransactionManager(() => sharedDb())

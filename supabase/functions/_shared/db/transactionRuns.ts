/** What every transaction of a manager goes through, in one go or in steps: its plan, its beginning and its end. */
import type { Clock } from '../core/clock.ts'
import { env } from '../core/env.ts'
import { isHoldfastError } from '../core/errors.ts'
import { createLogger, type Logger } from '../observability/logger.ts'
import type { Db } from './client.ts'
import { Compensations } from './compensations.ts'
import { Deadline } from './deadline.ts'
import { ManagedTransaction } from './managedTransaction.ts'
import { within } from './pause.ts'
import { TableCatalog } from './tableCatalog.ts'
import type { Isolation } from './transaction.ts'
import { factsOf, type RunAs } from './transactionBooks.ts'
import { isTransient, timedOut } from './transactionErrors.ts'
import type { RunOptions, TransactionManagerOptions } from './transactionManager.ts'

const longestTimeoutMs = 2_147_483_647
const isolations: readonly unknown[] = [undefined, 'read committed', 'repeatable read', 'serializable']
/** Work that the deadline overtook gets this long to end, so that no effect of it happens after its undo. */
const settleWithinMs = 1_000
const catalogs = new WeakMap<Db, TableCatalog>()

export interface Plan {
  as: RunAs
  timeoutMs: number
  isolation: Isolation | undefined
  attempts: number
  deadline: Deadline
}

export interface Active {
  tx: ManagedTransaction
  plan: Plan
  startedAt: Date
}

export class TransactionRuns {
  readonly active = new Map<string, Active>()
  readonly #db: () => Db
  readonly #options: TransactionManagerOptions
  readonly #clock: Clock
  #log: Logger | undefined
  #compensations: Compensations | undefined

  constructor(db: () => Db, options: TransactionManagerOptions) {
    this.#db = db
    this.#options = options
    this.#clock = options.clock ?? (() => performance.now())
    this.#log = options.log
  }

  /** `TypeError` or `RangeError` for what cannot be; nothing is sent then. */
  plan(options: RunOptions): Plan {
    const { as, timeoutMs = 30_000, isolation, attempts = 3, signal } = options
    if (typeof timeoutMs !== 'number' || !(timeoutMs > 0 && timeoutMs <= longestTimeoutMs)) {
      throw new RangeError(
        `Cannot begin a transaction: timeoutMs must be above 0 and at most ${longestTimeoutMs}, received ${timeoutMs}`,
      )
    }
    if (!Number.isSafeInteger(attempts) || attempts < 1) {
      throw new RangeError(
        `Cannot begin a transaction: attempts must be a whole number from 1 on, received ${attempts}`,
      )
    }
    if (!isolations.includes(isolation)) {
      throw new TypeError(
        `Cannot begin a transaction: there is no isolation level ${JSON.stringify(isolation)}`,
      )
    }
    if (typeof as !== 'object' || as === null) {
      throw new TypeError('Cannot begin a transaction: `as` must say for whom')
    }
    signal?.throwIfAborted()
    const deadline = new Deadline({ timeoutMs, signal, clock: this.#clock })
    return { as: 'kind' in as ? { caller: as } : as, timeoutMs, isolation, attempts, deadline }
  }

  /** One attempt. Sends nothing yet. */
  open(plan: Plan, attempt: number): Active {
    const db = this.#db()
    const id = crypto.randomUUID()
    const { as, isolation, deadline } = plan
    const timeoutMs = Math.max(1, Math.min(plan.timeoutMs, deadline.leftMs()))
    const { functionName, record = true } = this.#options
    const facts = factsOf(as, { functionName, isolation: isolation ?? 'read committed', attempt, timeoutMs })
    let catalog = catalogs.get(db)
    if (catalog === undefined) catalogs.set(db, catalog = new TableCatalog())
    const tx = new ManagedTransaction({
      db,
      id,
      attempt,
      as,
      facts: record ? facts : undefined,
      isolation,
      signal: deadline.signal,
      timeoutMs,
      leftMs: () => deadline.leftMs(),
      catalog,
      compensations: this.compensating(),
    })
    deadline.onExpiry = () => {
      const reason = timedOut(id, plan.timeoutMs)
      tx.interrupt(reason, 'always')
      return reason
    }
    deadline.onAbort = (reason) => {
      if (!tx.isCommitting) tx.interrupt(reason as Error, 'busy')
    }
    const active = { tx, plan, startedAt: new Date() }
    this.active.set(id, active)
    return active
  }

  /** Commits, and does what was to be done then. */
  async commit(tx: ManagedTransaction): Promise<void> {
    await tx.commit()
    for (const task of tx.afterCommitTasks) {
      try {
        await task()
      } catch (error) {
        this.#logger().error('A task after the commit failed', { transactionId: tx.id, error })
      }
    }
  }

  /** Leaves nothing of it: in the database, in the books, and outside. */
  async fail(tx: ManagedTransaction, plan: Plan, error: unknown, working?: Promise<unknown>): Promise<void> {
    if (tx.outcomeUnknown) {
      // Whether it is to be undone is decided by the rows themselves, once the database is back.
      this.#logger().error('Whether a transaction committed is not known', { transactionId: tx.id, error })
      return
    }
    await this.end(tx, plan, error, working)
  }

  /** Rolls back, with the books, and undoes the effects. */
  async end(
    tx: ManagedTransaction,
    plan: Plan,
    error: unknown,
    working?: Promise<unknown>,
  ): Promise<void> {
    await tx.end({ status: tx.timedOut ? 'timed_out' : 'rolled_back', errorCode: codeOf(error) })
    if (!tx.hasEffects) return
    if (working !== undefined && plan.deadline.signal.aborted) {
      const settled = await within(working.then(() => true, () => true), settleWithinMs)
      // It may be causing the effect right now: the sweep undoes it, once it surely is over.
      if (settled === undefined) return
    }
    await this.compensating()!.undo(tx.id, { deferResumable: isTransient(error) })
  }

  /** Undefined where no handlers are declared. */
  compensating(): Compensations | undefined {
    const { compensations: handlers } = this.#options
    if (handlers === undefined) return undefined
    const { functionName = env().functionName } = this.#options
    return this.#compensations ??= new Compensations({
      db: this.#db(),
      handlers,
      functionName,
      log: this.#logger(),
    })
  }

  #logger(): Logger {
    return this.#log ??= createLogger()
  }
}

function codeOf(error: unknown): string | undefined {
  if (error === undefined) return undefined
  if (isHoldfastError(error)) return error.code
  return error instanceof Error ? error.name : typeof error
}

/** What the transaction manager's users hold in their hands: the transaction, its operations and their results. */
import type { HoldfastError } from '../core/errors.ts'
import type { Effect } from './compensations.ts'
import type { Row } from './client.ts'
import type { SqlQuery } from './sql.ts'
import type { OperationArguments } from './tableOperations.ts'
import type { Tx } from './transaction.ts'

/** A place in a transaction to go back to. Plain data. */
export interface RestorePoint {
  readonly transactionId: string
  readonly name: string
}

export type OperationResult<T> =
  | { success: true; data: T; error: null; restorePoint: RestorePoint }
  | { success: false; data: null; error: HoldfastError; restorePoint: RestorePoint }

/** One object in, its row out; `null` when nothing is returned; all rows otherwise. */
export type DataOf<A extends OperationArguments> = A extends
  readonly ['insert' | 'upsert', infer D, ...infer Rest]
  ? Rest extends [{ returning: false }] ? null : D extends readonly unknown[] ? Row[] : Row
  : Row[]

export interface ManagedTx extends Tx {
  /** The row of `holdfast.transactions`. */
  readonly id: string
  /** Counted from 1. */
  readonly attempt: number
  /** Aborted at the deadline, or with the caller's own signal. Hand it to whatever the work waits for. */
  readonly signal: AbortSignal
  /**
   * `insert`, `upsert`, `update`, `delete` or `select` on a table of the live schema. It undoes itself alone when it
   * fails; the transaction goes on. Those that follow wait for it, for only then is known what they build on.
   */
  execute<const A extends OperationArguments>(table: string, ...args: A): Promise<OperationResult<DataOf<A>>>
  /** Waits for locks of these names, held to the end. Taken in one order whatever order they are given in. */
  lock(...keys: string[]): Promise<void>
  savepoint(): Promise<RestorePoint>
  /** Undoes what came after, last first. `RangeError` for a point that is not in this transaction any more. */
  rollbackTo(point: RestorePoint): Promise<void>
  /**
   * Records, durably and before it happens, how an effect outside the database is undone. Should this transaction not
   * commit, the handler of that name is run with `args`. Costs a trip, on a connection of its own.
   */
  compensate(name: string, args: unknown, options?: { resumeKey?: string }): Promise<Effect>
  /**
   * Ends the duty to undo an effect that is certain not to have happened, because it was refused. Costs a trip, on a
   * connection of its own.
   */
  withdraw(effect: Effect): Promise<void>
  /** Runs after a confirmed commit, in the order registered. A failure is logged, never thrown. */
  afterCommit(task: () => void | Promise<void>): void
  /**
   * A statement of the caller that travels with the commit; at most one. Resolves to its rows once the commit is
   * confirmed: do not await it inside the work.
   */
  atCommit<T extends Row = Row>(last: SqlQuery): Promise<T[]>
  /** Statements that commit with it as the connection's own role, for what Holdfast itself keeps. */
  beforeCommit(...closing: SqlQuery[]): void
}

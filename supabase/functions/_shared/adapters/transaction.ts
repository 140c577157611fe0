/** A transaction around what is behind an adapter: open from its first statement to its answer. */
import { HoldfastError } from '../core/errors.ts'
import type { Db } from '../db/client.ts'
import type { Isolation } from '../db/transaction.ts'
import {
  createTransactionManager,
  type ManagedTx,
  type TransactionManager,
  transactions,
} from '../db/transactionManager.ts'
import { createLogger, type Logger } from '../observability/logger.ts'
import { type Around, errorResponse } from './exchange.ts'

export interface TransactionOptions {
  /** @default `db()`, from the environment */
  db?: Db | (() => Db)
  /** Instead of `db`: one of your own, for handlers that call `tx.compensate`. */
  manager?: TransactionManager
  /** Longest the transaction may last; it is then rolled back and answered with 504. @default 30_000 */
  timeoutMs?: number
  /** @default the server's own, read committed */
  isolation?: Isolation
  /** Where failures of ours are logged. @default JSON lines on standard output */
  log?: Logger
}

/**
 * Commits when the handler has answered below 400, and rolls back when it threw or answered 400 and above. A commit
 * that fails is answered in place of the handler's answer. The handler runs once: a serialization failure or a deadlock
 * is answered with 409 and `Retry-After: 0`.
 */
export function createTransactionAround(options: TransactionOptions): Around<ManagedTx> {
  const { db, timeoutMs = 30_000, isolation, log = createLogger() } = options
  requirePositive('timeoutMs', timeoutMs)
  if (db !== undefined && options.manager !== undefined) {
    throw new TypeError('Cannot set up withTransaction: give it db or manager, not both')
  }
  const manager = options.manager ?? (db === undefined ? transactions : createTransactionManager(db, { log }))

  return async ({ request, actor }, next) => {
    let refused: Response | undefined
    let thrown: { error: unknown } | undefined
    try {
      return await manager.run({ as: actor, timeoutMs, isolation, attempts: 1 }, async (tx) => {
        const { response, error } = await next(tx).catch((error) => {
          thrown = { error }
          throw error
        })
        if (error === undefined && response.status < 400) return response
        refused = response
        throw refusal(response.status)
      })
    } catch (error) {
      // What the handler threw is its own to say; whoever is in front of us may know more about it.
      if (thrown !== undefined) throw thrown.error
      return refused ?? errorResponse(error, request, log)
    }
  }
}

/** For the books: why it was rolled back. */
function refusal(status: number): HoldfastError {
  return new HoldfastError(`STATUS_${status}`, 'The handler refused', { status })
}

/** `RangeError` for what is no whole number above 0. */
export function requirePositive(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new RangeError(
      `Cannot set up the adapter: ${name} must be a whole number of at least 1, received ${value}`,
    )
  }
}

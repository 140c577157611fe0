/** How the transaction manager reads errors, and what it refuses before it is sent. */
import { HoldfastError, isHoldfastError } from '../core/errors.ts'
import { DatabaseError, unavailable } from './databaseError.ts'
import { SqlQuery } from './sql.ts'

export function closedError(id: string, found: string): HoldfastError {
  return new HoldfastError('TRANSACTION_CLOSED', `Cannot use the transaction ${id}: it ${found}`)
}

export function timedOut(id: string, timeoutMs: number, cause?: unknown): HoldfastError {
  const found = `it had ${Math.round(timeoutMs)} ms, and is rolled back`
  return new HoldfastError('TRANSACTION_TIMED_OUT', `The transaction ${id} has timed out: ${found}`, {
    cause,
  })
}

/** A serialization failure or a deadlock, also as the cause of another error: the whole may be tried again. */
export function isConflict(error: unknown): boolean {
  for (let each = error, depth = 0; each instanceof Error && depth < 8; each = each.cause, depth++) {
    if (each instanceof DatabaseError && (each.sqlState === '40001' || each.sqlState === '40P01')) return true
  }
  return false
}

/**
 * What a limit of the server's looks like: for a statement, for a rest between two, for the whole (from 17 on). The
 * last two end the session, so that all that may be seen is a lost connection.
 */
export function isTimeLimit(error: unknown): boolean {
  if (!(error instanceof DatabaseError)) return false
  return error.sqlState === undefined
    ? error.code === 'SERVICE_UNAVAILABLE'
    : ['57014', '25P03', '25P04'].includes(error.sqlState)
}

/** Nothing is known to have been wrong with the work: the same may succeed later. */
export function isTransient(error: unknown): boolean {
  return error instanceof HoldfastError && (error.retryable || error.code === 'COMMIT_UNKNOWN')
}

/** PostgreSQL refused what came behind a failed statement, or answered the commit with a rollback. */
export function isSwallowed(error: unknown): boolean {
  if (error instanceof DatabaseError) return error.sqlState === '25P02'
  return isHoldfastError(error) && error.code === 'INTERNAL_ERROR'
}

export function swallowed(cause: unknown): HoldfastError {
  const found = 'a statement failed, its error was caught, and PostgreSQL rolled everything back'
  return new HoldfastError('INTERNAL_ERROR', `Cannot commit: ${found}`, { cause })
}

export function hasState(error: unknown, sqlState: string): boolean {
  return error instanceof DatabaseError && error.sqlState === sqlState
}

/** Its time was over, or a later attempt has taken them: whoever has the rows decides. */
export function effectsTaken(id: string, cause: unknown): HoldfastError {
  const found = 'its effects are being undone, or belong to a later attempt'
  return new HoldfastError('CONFLICT', `Cannot commit the transaction ${id}: ${found}`, {
    cause,
    retryable: true,
    retryAfterMs: 1_000,
  })
}

export function lostRows(cause: unknown): HoldfastError {
  return unavailable(
    'The transaction is committed; what its last statement gave was lost with the connection',
    {
      cause,
      details: { outcome: 'committed' },
    },
  )
}

const space = String.raw`(?:\s|--[^\n]*(?:\n|$)|/\*[^]*?\*/)*`
const control = new RegExp(
  `^${space}(?:begin|start\\s+transaction|commit|end|rollback|abort|savepoint|release|prepare\\s+transaction)\\b`,
  'i',
)

/** They would end the transaction, and with it the caller's role, behind the back of whoever holds it. */
export function refuseTransactionControl(query: SqlQuery): void {
  const found = control.exec(firstText(query))
  if (found === null) return
  throw new TypeError(
    `Cannot send ${
      JSON.stringify(found[0].trim())
    }: the transaction manager begins, saves and ends transactions`,
  )
}

/** The text up to the first value. */
function firstText({ strings, parts }: SqlQuery): string {
  const [text = ''] = strings
  const [part] = parts
  return text.trim() === '' && part instanceof SqlQuery ? firstText(part) : text
}

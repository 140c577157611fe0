/** What PostgreSQL and the way to it can answer, as errors with a code. */
import postgres from 'postgres'
import { errorCodes, HoldfastError, type HoldfastErrorOptions, isHoldfastError } from '../core/errors.ts'

export interface DatabaseErrorOptions extends HoldfastErrorOptions {
  sqlState?: string
  constraint?: string
  table?: string
}

/** An error of the database. `message` is PostgreSQL's own: for the log, unless a statement raised it for the client. */
export class DatabaseError extends HoldfastError {
  override name = 'DatabaseError'
  /** Five characters, as PostgreSQL gives them; absent when the connection failed. */
  readonly sqlState?: string
  readonly constraint?: string
  readonly table?: string

  constructor(code: string, message: string, options: DatabaseErrorOptions = {}) {
    super(code, message, options)
    this.sqlState = options.sqlState
    this.constraint = options.constraint
    this.table = options.table
  }
}

/**
 * The connection broke while a commit was on its way: it may or may not have happened. Never repeated blindly, hence
 * not `retryable`; a request with an idempotency key may be.
 */
export class CommitUnknownError extends DatabaseError {
  override name = 'CommitUnknownError'

  constructor(cause: unknown, details?: Record<string, unknown>) {
    super('COMMIT_UNKNOWN', 'The connection broke during the commit: it may or may not have happened', {
      cause,
      details,
      retryable: false,
    })
  }
}

/** Any failure of a statement or a connection as a `HoldfastError`; one that is already is left alone. */
export function toDatabaseError(error: unknown): HoldfastError {
  if (isHoldfastError(error)) return error
  if (error instanceof postgres.PostgresError) return fromSqlState(error)
  const found = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
  return unavailable(`Cannot reach PostgreSQL: ${found}`, { cause: error })
}

/** The server or the way to it is away: 503, to be tried again in a second. */
export function unavailable(message: string, options: DatabaseErrorOptions = {}): DatabaseError {
  return new DatabaseError('SERVICE_UNAVAILABLE', message, { ...options, retryAfterMs: 1_000 })
}

function fromSqlState(error: postgres.PostgresError): DatabaseError {
  const { code: sqlState, message } = error
  const options = { cause: error, sqlState, constraint: error.constraint_name, table: error.table_name }
  if (/^PT4\d\d$/.test(sqlState)) return raisedForTheClient(error, options)
  switch (sqlState) {
    case '23505':
    case '23503':
    case '23P01':
      return new DatabaseError('CONFLICT', 'The change contradicts what is stored', options)
    case '42501':
      return new DatabaseError('FORBIDDEN', 'The caller may not do this', options)
    case '40001':
    case '40P01': {
      const again = { ...options, retryable: true, retryAfterMs: 0 }
      return new DatabaseError('CONFLICT', 'Another transaction was in the way; try again', again)
    }
    case '22021':
    case '22P05':
      return new DatabaseError('VALIDATION_ERROR', 'A text holds a character that cannot be stored', options)
    case '57014':
    case '55P03':
    case '25P03':
    case '25P04':
      return new DatabaseError('UPSTREAM_TIMEOUT', `PostgreSQL took too long: ${message}`, options)
    case '57P01':
    case '57P02':
    case '57P03':
    case '53300':
      return unavailable(`PostgreSQL is not available: ${message}`, options)
    default:
      return new DatabaseError('INTERNAL_ERROR', message, options)
  }
}

/** PT404 means status 404, with a message for the client. The REST API reads these states in the same way. */
function raisedForTheClient(error: postgres.PostgresError, options: DatabaseErrorOptions): DatabaseError {
  const status = Number(error.code.slice(2))
  const code = Object.entries(errorCodes).find(([, known]) => known === status)?.[0] ?? `STATUS_${status}`
  return new DatabaseError(code, error.message, { ...options, status, details: detailsOf(error) })
}

/** `using detail = jsonb_build_object(…)::text` reaches the client as an object. */
function detailsOf(error: postgres.PostgresError): unknown {
  if (error.detail === undefined) return undefined
  try {
    return JSON.parse(error.detail)
  } catch {
    return undefined
  }
}

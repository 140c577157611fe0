/** What PostgreSQL and the way to it can answer, as errors with a code. */
import postgres from 'postgres'
import { type ErrorCode, errorCodes, HoldfastError, isHoldfastError } from '../core/errors.ts'

/** An error of the database. `message` is PostgreSQL's own: for the log, except where the statement raised it for the client. */
export class DatabaseError extends HoldfastError {
  override name = 'DatabaseError'
  /** Five characters, as PostgreSQL gives them; absent when the connection failed. */
  readonly sqlState?: string
  readonly constraint?: string
  readonly table?: string

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      cause?: unknown
      details?: unknown
      retryable?: boolean
      retryAfterMs?: number
      sqlState?: string
      constraint?: string
      table?: string
    },
  ) {
    super(code, message, options)
    this.sqlState = options.sqlState
    this.constraint = options.constraint
    this.table = options.table
  }
}

/** Any failure of a statement or a connection as a `HoldfastError`; one that is already is left alone. */
export function toDatabaseError(error: unknown): HoldfastError {
  if (isHoldfastError(error)) return error
  if (error instanceof postgres.PostgresError) return fromSqlState(error)
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
  return new DatabaseError(
    'SERVICE_UNAVAILABLE',
    `Cannot reach PostgreSQL: ${code}`,
    {
      cause: error,
      retryAfterMs: 1_000,
    },
  )
}

function fromSqlState(error: postgres.PostgresError): DatabaseError {
  const sqlState = error.code
  const options = {
    cause: error,
    sqlState,
    constraint: error.constraint_name,
    table: error.table_name,
  }
  // Raised on purpose, for the client: PT404 means status 404. The API maps them the same way.
  if (/^PT4\d\d$/.test(sqlState)) {
    const status = Number(sqlState.slice(2))
    const code = (Object.keys(errorCodes) as ErrorCode[]).find((name) => errorCodes[name] === status)
    return new DatabaseError(code ?? 'VALIDATION_ERROR', error.message, {
      ...options,
      details: detailsOf(error),
    })
  }
  switch (sqlState) {
    case '23505':
    case '23503':
    case '23P01':
      return new DatabaseError(
        'CONFLICT',
        'The change contradicts what is stored',
        options,
      )
    case '42501':
      return new DatabaseError(
        'FORBIDDEN',
        'The caller may not do this',
        options,
      )
    case '40001':
    case '40P01':
      return new DatabaseError(
        'CONFLICT',
        'Another transaction was in the way; try again',
        {
          ...options,
          retryable: true,
          retryAfterMs: 0,
        },
      )
    case '22021':
    case '22P05':
      return new DatabaseError(
        'VALIDATION_ERROR',
        'A text holds a character that cannot be stored',
        options,
      )
    case '57014':
    case '55P03':
    case '25P03':
      return new DatabaseError(
        'UPSTREAM_TIMEOUT',
        `PostgreSQL took too long: ${error.message}`,
        options,
      )
    case '57P01':
    case '57P02':
    case '57P03':
    case '53300':
      return new DatabaseError(
        'SERVICE_UNAVAILABLE',
        `PostgreSQL is not available: ${error.message}`,
        {
          ...options,
          retryAfterMs: 1_000,
        },
      )
    default:
      return new DatabaseError('INTERNAL_ERROR', error.message, options)
  }
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

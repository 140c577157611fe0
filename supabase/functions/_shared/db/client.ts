/**
 * SQL as the caller. Every statement runs in a transaction that first takes the caller's role and claims, so row
 * level security decides exactly as it does for the REST API; both are gone when it ends. What needs more rights
 * asks for them by name with `asService`.
 *
 * Works through a pooler in transaction mode: no session state, no named statements. Round trips are what a
 * request pays for, so the opening travels with the first statement (n dependent statements cost n + 1 trips),
 * and a single statement with everything around it costs one.
 */
import type { Actor, Caller } from '../core/caller.ts'
import { env } from '../core/env.ts'
import { HoldfastError } from '../core/errors.ts'
import { CommitUnknownError, unavailable } from './databaseError.ts'
import { type Lease, Pool, type Row } from './pool.ts'
import type { SqlQuery } from './sql.ts'
import { type BeginOptions, Transaction, type Tx } from './transaction.ts'

export type { Row } from './pool.ts'
export { identifier, sql, sqlArray, sqlList, SqlQuery } from './sql.ts'
export type { Transaction, Tx } from './transaction.ts'

export interface DbOptions {
  url: string
  /** Connections one isolate may hold. @default 4 */
  max?: number
  /** Close a connection that was idle this long. @default 20_000 */
  idleTimeoutMs?: number
  /** @default 5_000 */
  connectTimeoutMs?: number
  /** Longest wait for a connection while all are in use. @default 5_000 */
  acquireTimeoutMs?: number
  /** Longest a statement may run, and a transaction may rest between two, enforced by the server. @default 8_000 */
  statementTimeoutMs?: number
  /** Name shown in `pg_stat_activity`. @default 'holdfast' */
  applicationName?: string
  /**
   * Statements that return often are planned once for each connection. Breaks behind a pooler in transaction mode.
   * @default false
   */
  prepare?: boolean
}

/** Whoever SQL runs as. */
export interface Scope {
  /** One statement in a transaction of its own: one round trip. */
  query<T extends Row = Row>(query: SqlQuery): Promise<T[]>
  /** Commits when `work` resolves and rolls back when it throws, rethrowing what it threw. Holds one connection. */
  transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T>
}

export interface Db {
  /** As the actor's role, under row level security. A route's context is an actor. */
  as(actor: Actor): Scope
  /** As `service_role`, past row level security. The reason is shown in `pg_stat_activity` while it runs. */
  asService(reason: string): Scope
  /** A transaction whose end is the caller's to say. Nothing is sent before its first statement. */
  begin(as: Actor | { service: string }, options?: BeginOptions): Transaction
  /**
   * The connection's own role, for what Holdfast itself keeps: one statement, one round trip, committed at once.
   * Not for the application: no caller's rights hold here.
   */
  readonly owner: { query<T extends Row = Row>(query: SqlQuery): Promise<T[]> }
  /** One trip to the server and back, in milliseconds. */
  ping(): Promise<number>
  /** Waits up to five seconds for what is running, then closes every connection. */
  close(): Promise<void>
}

const roles: readonly string[] = [
  'anon',
  'authenticated',
  'service_role',
] satisfies Caller['role'][]

/** Opens no connection until the first statement. `TypeError` or `RangeError` for options out of range. */
export function createDb(options: DbOptions): Db {
  const {
    url,
    max = 4,
    idleTimeoutMs = 20_000,
    connectTimeoutMs = 5_000,
    acquireTimeoutMs = 5_000,
    statementTimeoutMs = 8_000,
    applicationName = 'holdfast',
    prepare = false,
  } = options
  if (!URL.canParse(url)) {
    throw new TypeError(
      'Cannot open a database: url is not a PostgreSQL connection URL',
    )
  }
  const counts = {
    max,
    idleTimeoutMs,
    connectTimeoutMs,
    acquireTimeoutMs,
    statementTimeoutMs,
  }
  for (const [name, value] of Object.entries(counts)) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot open a database: ${name} must be a positive whole number, received ${value}`,
      )
    }
  }
  const pool = new Pool({
    url,
    max,
    idleTimeoutMs,
    connectTimeoutMs,
    acquireTimeoutMs,
    applicationName,
    prepare,
  })
  const begin = (role: string, settings: Record<string, string>, options: BeginOptions = {}): Transaction => {
    const limit = String(options.timeoutMs ?? statementTimeoutMs)
    const timeouts = { statement_timeout: limit, idle_in_transaction_session_timeout: limit }
    return new Transaction(() => pool.lease(), { role, ...timeouts, ...settings }, options)
  }

  const asActor = ({ caller, request }: Actor): [role: string, settings: Record<string, string>] => {
    if (!roles.includes(caller.role)) {
      throw new HoldfastError(
        'FORBIDDEN',
        `Cannot run SQL as the role "${caller.role}": only ${roles.join(', ')}`,
      )
    }
    return [caller.role, callerSettings({ caller, request })]
  }

  const asService = (reason: string): [role: string, settings: Record<string, string>] => ['service_role', {
    'request.jwt.claims': '{"role":"service_role"}',
    'application_name': `${applicationName}: ${reason}`.slice(0, 63),
  }]

  return {
    as: (actor) => createScope(begin, ...asActor(actor)),
    asService: (reason) => createScope(begin, ...asService(reason)),
    begin: (as, options) => begin(...('service' in as ? asService(as.service) : asActor(as)), options),
    owner: {
      query: <T extends Row>(query: SqlQuery) => {
        try {
          const { text, values } = query.compile()
          return pool.run<T>(text, values, statementTimeoutMs) as Promise<T[]>
        } catch (error) {
          return Promise.reject(error)
        }
      },
    },
    ping: () =>
      withLease(pool, async (lease) => {
        const startedAt = performance.now()
        await lease.send('select 1')
        return performance.now() - startedAt
      }),
    close: () => pool.close(5_000),
  }
}

let shared: Db | undefined

/** This isolate's database, opened at the first call from its environment. */
export function db(): Db {
  if (shared !== undefined) return shared
  const { databaseUrl, databasePrepare, functionName } = env()
  if (databaseUrl === undefined) {
    throw new HoldfastError(
      'INTERNAL_ERROR',
      'Cannot open the database: SUPABASE_DB_URL is not set',
    )
  }
  return shared = createDb({
    url: databaseUrl,
    prepare: databasePrepare,
    applicationName: `holdfast/${functionName}`,
  })
}

/** What PostgREST sets as well, so policies, defaults and triggers find the same on every path. */
function callerSettings({ caller, request }: Actor): Record<string, string> {
  return {
    'request.jwt.claims': JSON.stringify({
      ...caller.claims,
      role: caller.role,
    }),
    'request.method': request?.method ?? '',
    'request.path': request?.path ?? '',
    'request.headers': request === undefined ? '' : JSON.stringify({
      'x-request-id': request.requestId,
      'x-forwarded-for': request.ip,
      'user-agent': request.userAgent,
      'x-function-name': request.functionName,
    }),
  }
}

function createScope(
  begin: (role: string, settings: Record<string, string>) => Transaction,
  role: string,
  settings: Record<string, string>,
): Scope {
  return {
    query: async <T extends Row>(query: SqlQuery) => {
      try {
        return await begin(role, settings).commit<T>({ last: query })
      } catch (error) {
        // Whoever asks with one statement is told what every lost statement is told.
        throw error instanceof CommitUnknownError ? unavailable(lost, { cause: error }) : error
      }
    },

    transaction: async (work) => {
      const tx = begin(role, settings)
      try {
        const result = await work(tx)
        await tx.commit()
        return result
      } catch (error) {
        // The error that led here is the one to report.
        await tx.rollback()
        throw error
      }
    },
  }
}

const lost = 'Cannot reach PostgreSQL: the connection was lost before it answered'

async function withLease<T>(
  pool: Pool,
  work: (lease: Lease) => Promise<T>,
  options?: { reserve: boolean },
): Promise<T> {
  const lease = await pool.lease(options)
  try {
    return await work(lease)
  } finally {
    lease.giveBack()
  }
}

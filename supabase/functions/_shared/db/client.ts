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
import { type Lease, Pool, type Row } from './pool.ts'
import type { SqlQuery } from './sql.ts'

export type { Row } from './pool.ts'
export { identifier, sql, sqlArray, SqlQuery } from './sql.ts'

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
}

/** Statements of one open transaction. */
export interface Tx {
  /**
   * Runs a statement and resolves to its rows. Statements sent without waiting for each other share a round
   * trip. Rejects with a `DatabaseError`; the transaction can then only roll back.
   */
  query<T extends Row = Row>(query: SqlQuery): Promise<T[]>
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
  })
  const timeouts = {
    statement_timeout: String(statementTimeoutMs),
    idle_in_transaction_session_timeout: String(statementTimeoutMs),
  }

  const scope = (role: string, settings: Record<string, string>): Scope => {
    if (!roles.includes(role)) {
      throw new HoldfastError(
        'FORBIDDEN',
        `Cannot run SQL as the role "${role}": only ${roles.join(', ')}`,
      )
    }
    return createScope(pool, { role, ...timeouts, ...settings })
  }

  return {
    as: (actor) => scope(actor.caller.role, callerSettings(actor)),
    asService: (reason) =>
      scope('service_role', {
        'request.jwt.claims': '{"role":"service_role"}',
        'application_name': `${applicationName}: ${reason}`.slice(0, 63),
      }),
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
  const { databaseUrl, functionName } = env()
  if (databaseUrl === undefined) {
    throw new HoldfastError(
      'INTERNAL_ERROR',
      'Cannot open the database: SUPABASE_DB_URL is not set',
    )
  }
  return shared = createDb({
    url: databaseUrl,
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

function createScope(pool: Pool, settings: Record<string, string>): Scope {
  const names = Object.keys(settings)
  const opening = `select ${
    names.map((_, i) => `set_config($${2 * i + 1}, $${2 * i + 2}, true)`).join(
      ', ',
    )
  }`
  const openingValues = Object.entries(settings).flat()

  const open = (lease: Lease): Promise<void> =>
    allDone([lease.send('begin'), lease.send(opening, openingValues)])

  return {
    query: async <T extends Row>(query: SqlQuery) => {
      const { text, values } = query.compile()
      return await withLease(pool, async (lease) => {
        const opened = open(lease)
        const rows = lease.send<T>(text, values)
        await allDone([opened, rows, lease.send('commit')])
        return [...await rows]
      })
    },

    transaction: (work) =>
      withLease(pool, async (lease) => {
        let opened: Promise<void> | undefined
        const tx: Tx = {
          async query<T extends Row>(query: SqlQuery) {
            const { text, values } = query.compile()
            opened ??= open(lease)
            const rows = lease.send<T>(text, values)
            await allDone([opened, rows])
            return [...await rows]
          },
        }
        try {
          const result = await work(tx)
          if (opened !== undefined) await commit(lease)
          return result
        } catch (error) {
          // The error that led here is the one to report. Where the connection is lost, the server rolls back.
          if (opened !== undefined) {
            await lease.send('rollback').catch(() => lease.discard())
          }
          throw error
        }
      }),
  }
}

async function withLease<T>(
  pool: Pool,
  work: (lease: Lease) => Promise<T>,
): Promise<T> {
  const lease = await pool.lease()
  try {
    return await work(lease)
  } finally {
    lease.giveBack()
  }
}

/** PostgreSQL answers the commit of a failed transaction with ROLLBACK, and no error. */
async function commit(lease: Lease): Promise<void> {
  const { command } = await lease.send('commit')
  if (command !== 'COMMIT') {
    throw new HoldfastError(
      'INTERNAL_ERROR',
      'Cannot commit: a statement failed, its error was caught, and PostgreSQL rolled everything back',
    )
  }
}

/**
 * Like `Promise.all`, but waits for all of them, so that nothing is on its way when the connection is given back.
 * The first in the list that failed is the cause; those behind it only say that the transaction is aborted.
 */
async function allDone(promises: Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(promises)) {
    if (result.status === 'rejected') throw result.reason
  }
}

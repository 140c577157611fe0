/** A database, and functions with handlers on it that each test makes for itself: for tests of compensations. */
import { anonymousCaller } from '../../supabase/functions/_shared/core/caller.ts'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import {
  type CompensationHandler,
  Compensations,
  type CompensationsOptions,
  type RecordingTransaction,
} from '../../supabase/functions/_shared/db/compensations.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import { type FreshDatabase, freshDatabase } from './database.ts'
import { closeAfterFile } from './leftovers.ts'
import { openSql, type Sql } from './sql.ts'

export type Handlers = Record<string, CompensationHandler>

export interface CompensationBed {
  database: FreshDatabase
  /** As the superuser, past everything. */
  admin: Sql
  db: Db
  /** Lines that any log has written. */
  logged: Record<string, unknown>[]
  /** A function of its own, so that sweeps of different tests do not meet; or another isolate of a function. */
  open(handlers: Handlers, options?: Partial<CompensationsOptions>): Compensations & { functionName: string }
  /** What is on record for a function, in the order it was recorded. */
  rows(functionName: string): Promise<RecordedEffect[]>
  /** Lets the time pass that an effect, or a lease, has left. */
  makeDue(functionName: string): Promise<unknown>
}

export interface RecordedEffect {
  id: string
  name: string
  status: string
  attempts: number
  last_error: string | null
  ended: boolean
  dueInMs: number
}

export async function compensationBed(major?: number): Promise<CompensationBed> {
  const database = await freshDatabase(major)
  const admin = openSql(database.adminUrl, { max: 4 })
  const db = createDb({ url: database.url, max: 4 })
  closeAfterFile({ name: 'a database client', close: () => db.close() })
  const logged: Record<string, unknown>[] = []
  const log = createLogger({ write: (_, line) => logged.push(JSON.parse(line)) })
  let opened = 0
  return {
    database,
    admin,
    db,
    logged,
    open(handlers, options = {}) {
      const { functionName = `function-${++opened}` } = options
      const compensations = new Compensations({ db, handlers, log, ...options, functionName })
      return Object.assign(compensations, { functionName })
    },
    rows: async (functionName) =>
      await admin<RecordedEffect[]>`
        select id, name, status, attempts::int, last_error, ended_at is not null as ended,
          extract(epoch from due_at - clock_timestamp())::float8 * 1000 as "dueInMs"
        from holdfast.compensations where function_name = ${functionName} order by position`,
    makeDue: async (functionName) =>
      await admin`
        update holdfast.compensations set due_at = clock_timestamp() where function_name = ${functionName}`,
  }
}

/** A transaction of the manager, as far as its effects know it. */
export function aTransaction(timeoutMs = 30_000): RecordingTransaction {
  return { id: crypto.randomUUID(), timeoutMs, actor: { caller: anonymousCaller } }
}

export const undoes = () => Promise.resolve()

/** SQL in tests: clients that end with the file, and statements in the name of an API caller. */
import postgres from 'postgres'
import { closeAfterFile } from './leftovers.ts'

export type Sql = postgres.Sql
export type Queries = postgres.Sql | postgres.TransactionSql

/** A client of the database; it ends with the file, before the database is dropped. */
export function openSql(url: string, options: { max?: number } = {}): Sql {
  const sql = postgres(url, { max: options.max ?? 1, onnotice() {}, prepare: false })
  closeAfterFile({ name: 'an SQL client', close: () => sql.end({ timeout: 2 }) })
  return sql
}

export interface Caller {
  role: 'anon' | 'authenticated' | 'service_role'
  /** Claims of the JWT; `role` is added. */
  claims?: Record<string, unknown>
}

/** A signed-in user with this id. */
export function user(id: string, claims: Record<string, unknown> = {}): Caller {
  return { role: 'authenticated', claims: { sub: id, ...claims } }
}

/**
 * Runs the work as PostgREST would run it for this caller: role and claims hold inside one transaction.
 * What the work has written is kept; a refusal takes all of it back.
 */
export async function asCaller<T>(
  sql: Sql,
  caller: Caller,
  work: (tx: postgres.TransactionSql) => Promise<T>,
): Promise<T> {
  const claims = JSON.stringify({ ...caller.claims, role: caller.role })
  const result = await sql.begin(async (tx) => {
    await tx`
      select set_config('role', ${caller.role}, true), set_config('request.jwt.claims', ${claims}, true)`
    return { value: await work(tx) }
  })
  return result.value
}

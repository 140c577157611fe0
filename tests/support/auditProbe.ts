/** Looking at what the audit trail has recorded, and writing with a request that says odd things of itself. */
import type { Caller, Queries, Sql } from './sql.ts'

export interface Recorded {
  id: string
  transactionId: string
  operation: string
  schema: string
  table: string
  object: string
  key: string | null
  actorId: string | null
  actorRole: string | null
  ip: string | null
  userAgent: string | null
  requestId: string | null
  functionName: string | null
  // deno-lint-ignore no-explicit-any -- whatever the trail says is looked at by its assertions
  details: any
}

/** The changes of a table (`public.orders`) in the order of their ids; DDL is not among them. */
export async function recorded(admin: Queries, object: string): Promise<Recorded[]> {
  return [
    ...await admin<Recorded[]>`
    select id, transaction_id as "transactionId", operation, schema_name as schema, table_name as table,
      object_identity as object, primary_key as key, actor_id as "actorId", actor_role as "actorRole",
      host(ip) as ip, user_agent as "userAgent", request_id as "requestId", function_name as "functionName", details
    from audit.database_changes
    where object_identity = ${object} and operation <> 'DDL'
    order by id`,
  ]
}

/** Operation, key and rows alone, as most tests want them. Rejects where there is a gap. */
export async function changesOf(admin: Queries, object: string): Promise<unknown[]> {
  const found = await gaps(admin, object)
  if (found.length > 0) throw new Error(`The trail of ${object} has gaps: ${JSON.stringify(found)}`)
  return (await recorded(admin, object)).map(({ operation, key, details }) => [operation, key, details.row])
}

export interface Gap {
  object: string
  operation: string
  sqlstate: string
  message: string
}

/** Of one table, or all there are. */
export async function gaps(admin: Queries, object?: string): Promise<Gap[]> {
  return [
    ...await admin<Gap[]>`
    select object_identity as object, operation, sqlstate, message from audit.gaps
    where ${object ?? null}::text is null or object_identity = ${object ?? null} order by id`,
  ]
}

/** As they reach the database, so they need not be JSON. Absent ones were never set. */
export interface Said {
  claims?: string
  headers?: string
}

/** Runs the work in the name of an API role, with settings that PostgREST would never make like this. */
export async function saying<T>(
  sql: Sql,
  { role, claims, headers }: Said & { role: Caller['role'] },
  work: (tx: Queries) => Promise<T>,
): Promise<T> {
  const result = await sql.begin(async (tx) => {
    if (claims !== undefined) await tx`select set_config('request.jwt.claims', ${claims}, true)`
    if (headers !== undefined) await tx`select set_config('request.headers', ${headers}, true)`
    await tx`select set_config('role', ${role}, true)`
    return { value: await work(tx) }
  })
  return result.value
}

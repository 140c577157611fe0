/** Connections of the local stack to its database: one at a time, quiet, and always closed. */
import postgres from 'postgres'

export type Sql = postgres.Sql
/** What takes statements: a client, or a transaction of one. */
export type Queries = postgres.Sql | postgres.TransactionSql

/** A client of one connection. The caller ends it. `name` is shown in `pg_stat_activity` and in the server's log. */
export function connect(url: string, name: string): Sql {
  return postgres(url, {
    max: 1,
    connect_timeout: 10,
    // One connection, one session: it is never replaced by a fresh one behind its user's back.
    max_lifetime: null,
    onnotice: () => {},
    connection: { application_name: `holdfast ${name}` },
  })
}

/** Runs the work on a connection of its own, which is closed whatever happens. */
export async function withConnection<T>(
  url: string,
  name: string,
  work: (sql: Sql) => Promise<T>,
): Promise<T> {
  const sql = connect(url, name)
  try {
    return await work(sql)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

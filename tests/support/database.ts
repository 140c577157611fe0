/** A database of one's own for each test file, cloned from the migrated and seeded template. */
import postgres from 'postgres'
import { describe } from 'vitest'
import { closeAfterFile } from './leftovers.ts'
import { providedPostgres, type TestPostgres } from './provided.ts'
import { waitFor } from './wait.ts'

export interface FreshDatabase {
  name: string
  /** With the rights of a hosted project's `postgres`: no superuser. */
  url: string
  /** As the platform's superuser, for what a hosted platform does itself. */
  adminUrl: string
  /** The server it is on. */
  server: TestPostgres
  /** Disconnects whoever is connected and removes it. May be called twice. */
  drop(): Promise<void>
}

let created = 0

/**
 * A new database on the server of that major version, else on the first of this run. It is dropped after the file;
 * connections that are open then fail the file.
 */
export async function freshDatabase(major?: number): Promise<FreshDatabase> {
  const server = serverOf(major)
  return await createDatabase(server, server.template)
}

/** As `freshDatabase`, with nothing in it: no platform, no migrations. */
export async function emptyDatabase(major?: number): Promise<FreshDatabase> {
  return await createDatabase(serverOf(major), 'template0')
}

async function createDatabase(server: TestPostgres, template: string): Promise<FreshDatabase> {
  const name = `test_${Deno.pid}_${++created}`
  // No WAL for every page of the copy: the cluster keeps nothing over a crash anyway.
  await onServer(
    server,
    (sql) => sql.unsafe(`create database ${name} template ${template} owner postgres strategy file_copy`),
  )
  let dropped: Promise<void> | undefined
  const database: FreshDatabase = {
    name,
    url: withDatabase(server.url, name),
    adminUrl: withDatabase(server.adminUrl, name),
    server,
    drop: () =>
      dropped ??= onServer(server, (sql) => sql.unsafe(`drop database if exists ${name} with (force)`)),
  }
  closeAfterFile({
    name: `database ${name}`,
    check: () => dropped ?? onServer(server, (sql) => noConnections(sql, name)),
    close: database.drop,
  })
  return database
}

/** Describes the same behaviour for each PostgreSQL of the run; `pg.major` says which. */
export function onEachPostgres(title: string, describeOn: (pg: TestPostgres) => void): void {
  for (const pg of providedPostgres()) {
    describe(`${title} on PostgreSQL ${pg.major}`, () => describeOn(pg))
  }
}

function serverOf(major: number | undefined): TestPostgres {
  const servers = providedPostgres()
  if (major === undefined) return servers[0]
  const server = servers.find((candidate) => candidate.major === major)
  if (server) return server
  const running = servers.map((candidate) => candidate.major).join(' and ')
  throw new Error(`This run has no PostgreSQL ${major}, only ${running}: both run for tests/db alone`)
}

async function onServer(server: TestPostgres, work: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
  const sql = postgres(server.adminUrl, { max: 1, onnotice() {}, fetch_types: false })
  try {
    await work(sql)
  } finally {
    await sql.end()
  }
}

/** A closing connection takes its server process a moment; one that was forgotten stays. */
async function noConnections(sql: postgres.Sql, database: string): Promise<void> {
  let open: string[] = []
  await waitFor(async () => {
    const rows = await sql<{ pid: number; usename: string; application_name: string; query: string }[]>`
      select pid, usename, application_name, left(query, 120) as query
      from pg_stat_activity
      where datname = ${database} and backend_type = 'client backend'`
    open = rows.map((row) =>
      `pid ${row.pid}, ${row.usename} "${row.application_name}", last query: ${row.query}`
    )
    return open.length === 0
  }, { what: 'connections to end', timeoutMs: 1_000 }).catch((error) => {
    if (open.length === 0) throw error
    throw new Error(`${open.length} open connection(s), end them in the test: ${open.join('; ')}`)
  })
}

function withDatabase(url: string, database: string): string {
  const changed = new URL(url)
  changed.pathname = `/${database}`
  return changed.href
}

/** Brings a database to the project's schema, and looks at what is in it. */
import { createHash } from 'node:crypto'
import postgres from 'postgres'
import { demoUsers } from '../keys.ts'
import { type Sql, withConnection } from '../postgres/connect.ts'
import { applyMigrations, applySeed } from '../postgres/migrations.ts'
import type { Progress } from '../progress.ts'
import type { Project } from '../project.ts'
import type { StackDatabase } from './database.ts'

/** What the database holds that the person at the terminal wants to know. */
export interface SchemaReport {
  demoUsers: { email: string; password: string }[]
  /** A product to order, where there is one. */
  sku?: string
}

const undefinedColumn = '42703'

/** Applies the migrations that are missing and, on a fresh database of ours, the seed. */
export async function bringSchema(
  project: Project,
  database: StackDatabase,
  progress: Progress,
): Promise<SchemaReport> {
  progress.step('Applying the migrations')
  const { applied } = await applyMigrations(project, database.url)
  progress.done(
    applied.length === 0 ? 'The schema is up to date' : `Applied ${count(applied.length, 'migration')}`,
  )
  return await withConnection(database.url, 'start', async (sql) => {
    if (database.adminUrl !== undefined && !(await isSeeded(sql))) {
      progress.step('Loading the demo data')
      await applySeed(project, database.url)
      await markSeeded(project, sql)
    }
    return { demoUsers: await presentDemoUsers(sql), sku: await anySku(sql) }
  })
}

/** The CLI's own record of seed files, so that `supabase db push --include-seed` would not load it again. */
async function isSeeded(sql: Sql): Promise<boolean> {
  if (!(await exists(sql, 'supabase_migrations.seed_files'))) return false
  return (await sql`select from supabase_migrations.seed_files`).length > 0
}

async function markSeeded(project: Project, sql: Sql): Promise<void> {
  const hash = createHash('sha256').update(await Deno.readFile(project.seedFile)).digest('hex')
  await sql`create schema if not exists supabase_migrations`
  await sql`create table if not exists supabase_migrations.seed_files (path text primary key, hash text not null)`
  await sql`insert into supabase_migrations.seed_files values ('supabase/seed.sql', ${hash})
    on conflict do nothing`
}

async function presentDemoUsers(sql: Sql): Promise<SchemaReport['demoUsers']> {
  if (!(await exists(sql, 'auth.users'))) return []
  const rows = await sql<{ email: string }[]>`select email from auth.users where email is not null`
  const present = new Set(rows.map(({ email }) => email))
  return demoUsers.filter(({ email }) => present.has(email))
}

async function anySku(sql: Sql): Promise<string | undefined> {
  if (!(await exists(sql, 'public.products'))) return undefined
  const rows = await sql<{ sku: string }[]>`
    select sku from public.products where stock > 0 and deleted_at is null order by stock desc, sku limit 1
  `.catch((error) => {
    // Another project's products: the snippets are about ours.
    if (error instanceof postgres.PostgresError && error.code === undefinedColumn) return []
    throw error
  })
  return rows[0]?.sku
}

async function exists(sql: Sql, relation: string): Promise<boolean> {
  const [row] = await sql<{ found: boolean }[]>`select to_regclass(${relation}) is not null as found`
  return row?.found === true
}

function count(number: number, noun: string): string {
  return number === 1 ? `1 ${noun}` : `${number} ${noun}s`
}

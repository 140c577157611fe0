/** Makes an empty database into what a hosted Supabase is before its first migration. */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { App } from '@supabase/lite'
import { createPostgresConnection } from '@supabase/lite/postgres'
import postgres from 'postgres'
import { LocalError } from '../errors.ts'
import { localKeys } from '../keys.ts'
import { type Queries, withConnection } from './connect.ts'

const platformDir = fileURLToPath(new URL('../platform', import.meta.url))

export interface PlatformOptions {
  /** A superuser's URL of the database to prepare. */
  adminUrl: string
  /** What the local Auth server signs its tokens with. */
  jwtSecret: string
}

/**
 * Roles, schemas, extensions, grants, Auth's tables, and stand-ins for pg_net, Vault and (where it cannot be had)
 * pg_cron. May be called again, and for several databases of one server at a time: roles are the server's, everything
 * else is the database's. A database of a real Supabase stack has all this and is left untouched.
 */
export async function preparePlatform(o: PlatformOptions): Promise<void> {
  await withConnection(o.adminUrl, 'platform', async (sql) => {
    if (await isSupabase(sql)) return
    await requireSuperuser(sql, o.adminUrl)
    const cron = await cronLoadable(sql) ? 'cron.sql' : 'cronStandIn.sql'
    await sql.begin(async (tx) => {
      // Two databases prepared at once would both create the roles. This lock is the whole server's, unlike an
      // advisory one; logging in goes on meanwhile.
      await tx`lock table pg_catalog.pg_authid in share row exclusive mode`
      await apply(tx, 'roles.sql')
    })
    await sql.begin(async (tx) => {
      await tx`select pg_advisory_xact_lock(hashtextextended('holdfast platform', 0))`
      for (const file of ['schemas.sql', 'standInExtension.sql', 'vault.sql', 'net.sql', cron]) {
        await apply(tx, file)
      }
    })
    await createAuthTables(o)
    await sql.begin(async (tx) => {
      await tx`select pg_advisory_xact_lock(hashtextextended('holdfast platform', 0))`
      await apply(tx, 'auth.sql')
      await apply(tx, 'apiReload.sql')
    })
  })
}

/** Has the database pg_cron itself, whose jobs the server runs? Otherwise `startCronRunner` has to. */
export async function hasRealCron(sql: Queries): Promise<boolean> {
  const [row] = await sql`
    select language.lanname = 'c' as real
    from pg_catalog.pg_proc as function
    join pg_catalog.pg_language as language on language.oid = function.prolang
    where function.oid = pg_catalog.to_regprocedure('cron.schedule(text, text)')
  `
  return row?.real === true
}

async function requireSuperuser(sql: Queries, adminUrl: string): Promise<void> {
  const [row] = await sql`select current_user as name, current_setting('is_superuser') = 'on' as ok`
  if (row?.ok === true) return
  throw new LocalError(
    `Cannot prepare the database: ${row?.name} is no superuser, and the database is no Supabase`,
    {
      where: new URL(adminUrl).host + new URL(adminUrl).pathname,
      fix: 'Give the URL of a superuser, or of a database that a Supabase stack runs on.',
    },
  )
}

/** Auth of a real stack keeps its own record of migrations; the local Auth server has none. */
async function isSupabase(sql: Queries): Promise<boolean> {
  const [row] = await sql`
    select exists (select from pg_catalog.pg_roles where rolname = 'supabase_auth_admin')
      and pg_catalog.to_regclass('auth.schema_migrations') is not null as found
  `
  return row?.found === true
}

/** pg_cron can be created in the one database that the server was started with it for, and stays once created. */
async function cronLoadable(sql: Queries): Promise<boolean> {
  if (await hasRealCron(sql)) return true
  const [row] = await sql`
    select pg_catalog.current_setting('cron.database_name', true) = pg_catalog.current_database()
      and 'pg_cron' = any (
        pg_catalog.regexp_split_to_array(pg_catalog.current_setting('shared_preload_libraries'), '\s*,\s*')
      )
      and pg_catalog.to_regprocedure('cron.schedule(text, text)') is null as loadable
  `
  return row?.loadable === true
}

async function apply(sql: Queries, file: string): Promise<void> {
  const path = join(platformDir, file)
  const text = await Deno.readTextFile(path)
  try {
    await sql.unsafe(text).simple()
  } catch (cause) {
    if (!(cause instanceof postgres.PostgresError)) throw cause
    const line = text.slice(0, Number(cause.position ?? 1) - 1).split('\n').length
    throw new Error(`Cannot prepare the database: ${cause.message} (${path}:${line})`, { cause })
  }
}

/** The tables of the local Auth server, made by itself. */
async function createAuthTables(o: PlatformOptions): Promise<void> {
  const connection = createPostgresConnection({
    url: o.adminUrl,
    postgresOptions: { max: 1, onnotice: () => {} },
  })
  try {
    const app = new App({
      connection,
      auth: {
        enabled: true,
        jwt_secret: o.jwtSecret,
        publishable_key: localKeys.publishable,
        secret_key: localKeys.secret,
      },
    })
    await app.ensureSystemSchema()
  } finally {
    await connection.close()
  }
}

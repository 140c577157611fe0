/** Does the database have what the project counts on, and is it closed where it should be? */
import { connect, type Sql } from '../postgres/connect.ts'
import { pendingMigrations } from '../postgres/migrations.ts'
import type { Project } from '../project.ts'
import { type Finding, findings } from './finding.ts'

const { ok, problem, skipped } = findings('Database')
const reset = 'npm run reset makes a fresh database.'

/** @param url of the database that runs now; without it there is nothing to ask */
export async function checkDatabase(project: Project, url: string | undefined): Promise<Finding[]> {
  if (url === undefined) return [skipped('Database', 'nothing runs: start the stack to have it looked at')]
  const sql = connect(url, 'doctor')
  try {
    const [server] = await sql`select current_setting('server_version') as version, current_user as name`
    return [
      ok('Connection', `PostgreSQL ${server?.version} as ${server?.name}`),
      await checkMigrations(project, url),
      ...await checkExtensions(sql),
      await checkRoles(sql),
      await checkRowSecurity(sql),
      await checkTableGrants(sql),
      await checkDefiners(sql),
    ]
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return [problem('Connection', reason, `Read npm run logs -- postgres. ${reset}`)]
  } finally {
    await sql.end({ timeout: 5 })
  }
}

async function checkMigrations(project: Project, url: string): Promise<Finding> {
  const pending = await pendingMigrations(project, url)
  if (pending.length === 0) return ok('Migrations', 'all applied')
  return problem('Migrations', `not applied: ${pending.join(', ')}`, 'npm start again.')
}

async function checkExtensions(sql: Sql): Promise<Finding[]> {
  const [row] = await sql<
    { cron?: string; crypto?: string; net: boolean; vault: boolean; stand_in: boolean }[]
  >`
    select
        (select extversion from pg_extension where extname = 'pg_cron') as cron,
        (select extversion from pg_extension where extname = 'pgcrypto') as crypto,
        to_regnamespace('cron') is not null as stand_in,
        to_regclass('net._http_response') is not null as net,
        to_regclass('vault.decrypted_secrets') is not null as vault
  `
  const without = (name: string) => problem(name, 'it is missing', reset)
  return [
    row?.cron
      ? ok('pg_cron', row.cron)
      : row?.stand_in
      ? ok('pg_cron', 'stand-in, run by the stack')
      : without('pg_cron'),
    row?.crypto ? ok('pgcrypto', row.crypto) : without('pgcrypto'),
    row?.net ? ok('pg_net', 'its interface is there') : without('pg_net'),
    row?.vault ? ok('Vault', 'its interface is there') : without('Vault'),
  ]
}

/** As hosted: migrations and functions are no superuser, and only service_role passes row level security. */
async function checkRoles(sql: Sql): Promise<Finding> {
  const rows = await sql<{ rolname: string; rolsuper: boolean; rolbypassrls: boolean }[]>`
    select rolname, rolsuper, rolbypassrls
    from pg_roles
    where rolname in ('anon', 'authenticated', 'service_role', 'authenticator', 'postgres')
  `
  const missing = ['anon', 'authenticated', 'service_role', 'authenticator', 'postgres']
    .filter((name) => !rows.some(({ rolname }) => rolname === name))
  if (missing.length > 0) return problem('Roles', `missing: ${missing.join(', ')}`, reset)
  const mighty = rows.filter(({ rolname, rolsuper, rolbypassrls }) =>
    rolsuper || (rolbypassrls && !['postgres', 'service_role'].includes(rolname))
  )
  if (mighty.length === 0) return ok('Roles', 'with the rights they have on a hosted project')
  const list = mighty.map(({ rolname }) => rolname).join(', ')
  return problem('Roles', `${list} can pass row level security, unlike on a hosted project`, reset)
}

async function checkRowSecurity(sql: Sql): Promise<Finding> {
  const rows = await sql<{ name: string }[]>`
    select format('%I.%I', n.nspname, c.relname) as name
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relrowsecurity and n.nspname in ('public', 'holdfast', 'audit')
    order by name
  `
  if (rows.length === 0) return ok('Row level security', 'on for every table')
  const [first] = rows
  return problem(
    'Row level security',
    `off for ${list(rows)}`,
    `alter table ${first?.name} enable row level security;`,
  )
}

/** What row level security does not hold back: truncating, and rights of whoever has no account. */
async function checkTableGrants(sql: Sql): Promise<Finding> {
  const rows = await sql<{ name: string; privilege: string; grantee: string }[]>`
    select
        format('%I.%I', table_schema, table_name) as name,
        string_agg(distinct lower(privilege_type), ', ') as privilege,
        grantee
    from information_schema.role_table_grants
    where table_schema in ('public', 'holdfast', 'audit', 'private')
        and (
            (grantee in ('anon', 'authenticated') and privilege_type in ('TRUNCATE', 'REFERENCES', 'TRIGGER'))
            or (grantee = 'anon' and privilege_type in ('INSERT', 'UPDATE', 'DELETE'))
            or grantee = 'PUBLIC'
        )
    group by table_schema, table_name, grantee
    order by name
  `
  const [first] = rows
  if (first === undefined) return ok('Grants', 'the API roles have no more than rows of tables')
  return problem(
    'Grants',
    rows.map(({ name, privilege, grantee }) => `${grantee} may ${privilege} ${name}`).join('; '),
    `revoke ${first.privilege} on ${first.name} from ${first.grantee.toLowerCase()};`,
  )
}

async function checkDefiners(sql: Sql): Promise<Finding> {
  const rows = await sql<{ name: string; open: boolean }[]>`
    select p.oid::regprocedure::text as name, has_function_privilege('anon', p.oid, 'execute') as open
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    where p.prosecdef
        and n.nspname in ('public', 'holdfast', 'audit', 'private')
        and (
            not exists (select from unnest(p.proconfig) as setting where setting like 'search_path=%')
            or has_function_privilege('anon', p.oid, 'execute')
        )
    order by name
  `
  const [first] = rows
  if (first === undefined) {
    return ok('Definer functions', 'each has a fixed search path, and none is open to anon')
  }
  const fix = first.open
    ? `revoke execute on function ${first.name} from public, anon;`
    : `alter function ${first.name} set search_path = '';`
  return problem('Definer functions', `unsafe: ${list(rows)}`, fix)
}

function list(rows: { name: string }[]): string {
  return rows.map(({ name }) => name).join(', ')
}

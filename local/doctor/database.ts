/** Does the database have what the project counts on, and is it closed where it should be? */
import { connect, type Sql } from '../postgres/connect.ts'
import { pendingMigrations } from '../postgres/migrations.ts'
import type { Project } from '../project.ts'
import { type Finding, findings } from './finding.ts'

const { ok, problem, skipped } = findings('Database')
const reset = 'npm run reset makes a fresh database.'
/** `npm run reset` leaves the server of DATABASE_URL alone. */
const unset = 'Unset DATABASE_URL: the private server is as hosted.'

/**
 * @param url of the database that runs now; without it there is nothing to ask
 * @param isPrivate it is the private server of this folder, not that of DATABASE_URL
 */
export async function checkDatabase(
  project: Project,
  url: string | undefined,
  isPrivate: boolean,
): Promise<Finding[]> {
  if (url === undefined) return [skipped('Database', 'nothing runs: start the stack to have it looked at')]
  const sql = connect(url, 'doctor')
  try {
    const [server] = await sql`select current_setting('server_version') as version, current_user as name`
    return [
      ok('Connection', `PostgreSQL ${server?.version} as ${server?.name}`),
      await checkMigrations(project, url),
      ...await checkExtensions(sql, isPrivate ? reset : unset),
      await checkRoles(sql, isPrivate ? reset : unset),
      await checkRowSecurity(sql),
      await checkMissingGrants(sql),
      await checkTableGrants(sql),
      await checkDefiners(sql),
    ]
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    const fix = isPrivate ? `Read npm run logs -- postgres. ${reset}` : `Correct DATABASE_URL. ${unset}`
    return [problem('Connection', reason, fix)]
  } finally {
    await sql.end({ timeout: 5 })
  }
}

async function checkMigrations(project: Project, url: string): Promise<Finding> {
  const pending = await pendingMigrations(project, url)
  if (pending.length === 0) return ok('Migrations', 'all applied')
  return problem('Migrations', `not applied: ${pending.join(', ')}`, 'npm start again.')
}

async function checkExtensions(sql: Sql, fix: string): Promise<Finding[]> {
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
  const without = (name: string) => problem(name, 'it is missing', fix)
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
async function checkRoles(sql: Sql, fix: string): Promise<Finding> {
  const rows = await sql<{ rolname: string; rolsuper: boolean; rolbypassrls: boolean }[]>`
    select rolname, rolsuper, rolbypassrls
    from pg_roles
    where rolname in ('anon', 'authenticated', 'service_role', 'authenticator', 'postgres')
  `
  const missing = ['anon', 'authenticated', 'service_role', 'authenticator', 'postgres']
    .filter((name) => !rows.some(({ rolname }) => rolname === name))
  if (missing.length > 0) return problem('Roles', `missing: ${missing.join(', ')}`, fix)
  const mighty = rows.filter(({ rolname, rolsuper, rolbypassrls }) =>
    rolsuper || (rolbypassrls && !['postgres', 'service_role'].includes(rolname))
  )
  if (mighty.length === 0) return ok('Roles', 'with the rights they have on a hosted project')
  const list = mighty.map(({ rolname }) => rolname).join(', ')
  return problem('Roles', `${list} can pass row level security, unlike on a hosted project`, fix)
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

/** A policy lets nobody do what its role has no grant for, and a grant is worth nothing without its schema. */
async function checkMissingGrants(sql: Sql): Promise<Finding> {
  const rows = await sql<{ lacks: string; fix: string }[]>`
    with wanted as (
        select distinct n.nspname as schema, format('%I.%I', n.nspname, c.relname) as name, c.oid, r.rolname as role,
            case p.polcmd when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'select' end as privilege
        from pg_policy as p
        join pg_class as c on c.oid = p.polrelid
        join pg_namespace as n on n.oid = c.relnamespace
        join pg_roles as r on r.oid = any (p.polroles)
        where n.nspname in ('public', 'holdfast', 'audit')
            -- A policy that denies says so on purpose.
            and pg_get_expr(p.polqual, p.polrelid) is distinct from 'false'
    ),
    schemas as (
        select distinct schema, role from wanted
        union
        select 'public', unnest(array['anon', 'authenticated', 'service_role'])
    )
    select format('%s may not use the schema %I', role, schema) as lacks,
        format('grant usage on schema %I to %I;', schema, role) as fix
    from schemas
    where not has_schema_privilege(role, schema, 'usage')
    union all
    select format('%s may not %s %s, for which it has a policy', role, privilege, name),
        format('grant %s on %s to %I;', privilege, name, role)
    from wanted
    where not case privilege
        when 'delete' then has_table_privilege(role, oid, privilege)
        else has_any_column_privilege(role, oid, privilege)
    end
  `
  if (rows.length === 0) return ok('Missing grants', 'none: each policy has the grants it needs')
  return problem(
    'Missing grants',
    rows.map(({ lacks }) => lacks).join('; '),
    rows.map(({ fix }) => fix).join(' '),
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

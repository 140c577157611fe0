/** What the catalog says of a role's rights on a table, and of the table's policies. */
import type { Session } from './explainSession.ts'
import type { Target } from './explainTarget.ts'
import { type Command, commands } from './explanation.ts'

export interface Policy {
  name: string
  kind: 'permissive' | 'restrictive'
  for: Command | 'all'
  roles: string[]
  /** It is for the role that is asked about, or for one whose rights that role has. */
  applies: boolean
  using?: string
  /** What a row must fulfil to be written; USING where nothing else is said, as PostgreSQL has it. */
  check?: string
}

const policyCommands: Record<string, Policy['for']> = {
  '*': 'all',
  r: 'select',
  a: 'insert',
  w: 'update',
  d: 'delete',
}

export async function readPolicies(session: Session, target: Target, role: string): Promise<Policy[]> {
  const rows = await session.query<
    Omit<Policy, 'for' | 'kind'> & { command: string; permissive: boolean }
  >(
    `select
         p.polname as name,
         p.polpermissive as permissive,
         p.polcmd as command,
         to_json(array(
             select case when r = 0 then 'public' else r::regrole::text end from unnest(p.polroles) as r
         )) as roles,
         exists (
             select from unnest(p.polroles) as r where r = 0 or pg_has_role($2::name, r, 'USAGE')
         ) as applies,
         pg_get_expr(p.polqual, p.polrelid) as "using",
         coalesce(pg_get_expr(p.polwithcheck, p.polrelid), pg_get_expr(p.polqual, p.polrelid)) as "check"
     from pg_catalog.pg_policy as p
     where p.polrelid = $1::text::oid
     order by not p.polpermissive, p.polname`,
    [target.oid, role],
  )
  return rows.map(({ command, permissive, using, check, ...policy }) => ({
    ...policy,
    kind: permissive ? 'permissive' : 'restrictive',
    for: policyCommands[command] ?? 'all',
    using: using ?? undefined,
    check: check ?? undefined,
  }))
}

export interface Privilege {
  /** On the whole table. */
  table: boolean
  /** Those that are granted one by one, when the whole is not. */
  columns: string[]
  /** Whom it was granted to: the role itself, roles it belongs to, or public. */
  through: string[]
}

export interface Rights {
  superuser: boolean
  bypassRls: boolean
  owner: boolean
  schemaUsage: boolean
  privileges: Record<Command, Privilege>
  /** Sequences of defaults that the role may not use. */
  closedSequences: string[]
}

export async function readRights(session: Session, target: Target, role: string): Promise<Rights> {
  const [attributes] = await session.query<
    { superuser: boolean; bypass: boolean; owner: boolean; usage: boolean }
  >(
    `select r.rolsuper as superuser, r.rolbypassrls as bypass,
         pg_has_role(r.oid, c.relowner, 'USAGE') as owner,
         has_schema_privilege(r.oid, c.relnamespace, 'USAGE') as usage
     from pg_catalog.pg_roles as r, pg_catalog.pg_class as c
     where r.rolname = $1 and c.oid = $2::text::oid`,
    [role, target.oid],
  )
  if (attributes === undefined) throw new Error(`The role ${role} or ${target.name} has just been dropped`)
  const rows = await session.query<{ command: Command } & Privilege>(privilegesQuery, [role, target.oid])
  const sequences = [...new Set(target.columns.flatMap(({ sequence }) => sequence ?? []))]
  const closed = await session.query<{ name: string }>(
    `select s as name
     from json_array_elements_text($2::text::json) as s
     where not has_sequence_privilege($1::name, s, 'USAGE, UPDATE')`,
    [role, JSON.stringify(sequences)],
  )
  const none: Privilege = { table: false, columns: [], through: [] }
  const of = (command: Command) => rows.find((row) => row.command === command) ?? none
  return {
    superuser: attributes.superuser,
    bypassRls: attributes.superuser || attributes.bypass,
    owner: attributes.owner,
    schemaUsage: attributes.usage,
    privileges: Object.fromEntries(commands.map((command) => [command, of(command)])) as Rights['privileges'],
    closedSequences: closed.map(({ name }) => name),
  }
}

const privilegesQuery = `
select
    k.command,
    has_table_privilege(r.oid, c.oid, k.command) as "table",
    to_json(array(
        select a.attname
        from pg_catalog.pg_attribute as a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        -- No column can be deleted from, and where the table is granted its columns are.
        and case
            when k.command = 'delete' or has_table_privilege(r.oid, c.oid, k.command) then false
            else has_column_privilege(r.oid, c.oid, a.attnum, k.command)
        end
        order by a.attnum
    )) as columns,
    to_json(array(
        select distinct case when g.grantee = 0 then 'public' else g.grantee::regrole::text end
        from aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) as g
        where g.privilege_type = upper(k.command)
        and (g.grantee = 0 or pg_has_role(r.oid, g.grantee, 'USAGE'))
    )) as through
from pg_catalog.pg_roles as r, pg_catalog.pg_class as c,
    unnest(array['select', 'insert', 'update', 'delete']) as k (command)
where r.rolname = $1 and c.oid = $2::text::oid`

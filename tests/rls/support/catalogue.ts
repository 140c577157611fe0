/** What the database has: the tables, sequences and functions of our schemas, and who was granted what beside RLS. */
import type { Queries } from '../../support/sql.ts'
import { schemas } from '../matrix.ts'

/** The roles that PostgREST takes on; owner, other and admin are all `authenticated`. */
export const apiRoles = ['anon', 'authenticated', 'service_role'] as const

export interface Relation {
  name: string
  /** As in pg_class: table, partitioned table, view, materialized view, foreign table, sequence. */
  kind: 'r' | 'p' | 'v' | 'm' | 'f' | 'S'
  partition: boolean
  rls: boolean
  securityInvoker: boolean
  /** Whether any insert, update or delete could go through it at all. */
  writable: boolean
  /** `authenticated select`, `PUBLIC truncate`, `anon update (status)`. */
  grants: string[]
}

export interface Routine {
  /** As `regprocedure` with an empty search path. */
  name: string
  kind: 'f' | 'p' | 'a' | 'w'
  /** What calls it with nothing: typed nulls. */
  nulls: string
  /** Whether PUBLIC may execute it. */
  byPublic: boolean
}

export interface Catalogue {
  relations: Relation[]
  routines: Routine[]
}

export async function readCatalogue(tx: Queries): Promise<Catalogue> {
  // Names come out qualified while nothing is on the search path.
  await tx.unsafe(`savepoint catalogue; set local search_path = ''`)
  const relations = await tx.unsafe(relationsQuery, [[...schemas], [...apiRoles]])
  const routines = await tx.unsafe(routinesQuery, [[...schemas]])
  await tx.unsafe('rollback to savepoint catalogue; release savepoint catalogue')
  return { relations: relations as unknown as Relation[], routines: routines as unknown as Routine[] }
}

const relationsQuery = `
  select
    c.oid::regclass::text as name,
    c.relkind as kind,
    c.relispartition as partition,
    c.relrowsecurity as rls,
    coalesce(c.reloptions && array['security_invoker=true', 'security_invoker=on', 'security_invoker=1'], false)
      as "securityInvoker",
    c.relkind in ('r', 'p') or pg_relation_is_updatable(c.oid, true) <> 0 as writable,
    array(
      select format('%s %s', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end,
        lower(a.privilege_type))
      from aclexplode(c.relacl) as a
      where a.grantee = 0 or a.grantee::regrole::text = any ($2)
      union all
      select format('%s %s (%s)', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end,
        lower(a.privilege_type), t.attname)
      from pg_attribute as t, aclexplode(t.attacl) as a
      where t.attrelid = c.oid and (a.grantee = 0 or a.grantee::regrole::text = any ($2))
      order by 1
    ) as grants
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  where n.nspname = any ($1) and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
  order by 1`

const routinesQuery = `
  select
    p.oid::regprocedure::text as name,
    p.prokind as kind,
    array_to_string(array(
      select 'null::' || case when t.typtype = 'p' then 'uuid' else format_type(t.oid, null) end
      from unnest(p.proargtypes) with ordinality as a (type, position)
      join pg_type as t on t.oid = a.type
      order by a.position
    ), ', ') as nulls,
    p.proacl is null or exists (select from aclexplode(p.proacl) as a where a.grantee = 0) as "byPublic"
  from pg_proc as p
  join pg_namespace as n on n.oid = p.pronamespace
  where n.nspname = any ($1)
  order by 1`

/** What holds for whole roles and would undo every policy; each line says what was found. */
export async function openDoors(tx: Queries): Promise<string[]> {
  const rows = await tx.unsafe(
    `
    select format('%s may create objects in schema %s', r, n.nspname) as problem
    from unnest($1::text[]) as r, pg_namespace as n
    where n.nspname !~ '^pg_(toast_)?temp_' and has_schema_privilege(r, n.oid, 'create')
    union all
    select format('%s bypasses row level security', rolname)
    from pg_roles where rolname in ('anon', 'authenticated') and (rolbypassrls or rolsuper)
    union all
    select format('%s is a member of %s', m.member::regrole, m.roleid::regrole)
    from pg_auth_members as m where m.member::regrole::text = any ($1)
    union all
    select format('%s may create schemas in this database', r)
    from unnest($1::text[]) as r where has_database_privilege(r, current_database(), 'create')`,
    [[...apiRoles]],
  )
  return rows.map(({ problem }) => problem)
}

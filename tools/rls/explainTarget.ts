/** The table that is asked about, as the catalog knows it. */
import { LocalError } from '../../local/errors.ts'
import type { Session } from './explainSession.ts'
import type { Command } from './explanation.ts'

export interface Column {
  name: string
  /** The expression of its default; absent for generated columns, which have none that a row could leave out. */
  default?: string
  /** The default takes a number from this sequence. */
  sequence?: string
  generated: boolean
}

export interface Target {
  oid: string
  /** Schema and name, quoted where SQL needs it. */
  name: string
  schema: string
  /** Without the schema, and without quotes: what policies call it. */
  relation: string
  kind: 'table' | 'view' | 'materialized view' | 'foreign table'
  rls: boolean
  forced: boolean
  owner: string
  /** As the planner believes; 0 of what is no table. */
  estimatedRows: number
  parent?: string
  columns: Column[]
  primaryKey: string[]
  /** A column that refers to auth.users, for the example of a policy. */
  userColumn?: string
  /** What a view lets through to the tables below. */
  writable: Record<Exclude<Command, 'select'>, boolean>
  /** A view asks in the name of its caller rather than of its owner. */
  invoker: boolean
  /** Triggers that may change a row before its policies see it. */
  rowTriggers: Record<'insert' | 'update', string[]>
}

const kinds: Record<string, Target['kind']> = {
  r: 'table',
  p: 'table',
  v: 'view',
  m: 'materialized view',
  f: 'foreign table',
}

/** The table of that name. An exact name is taken as it is; otherwise it is read as SQL would read it. */
export async function findTarget(session: Session, named: string): Promise<Target> {
  const oid = await findOid(session, named)
  const [row] = await session.query<
    Omit<Target, 'kind' | 'writable' | 'rowTriggers'> & {
      kind: string
      updatable: number
      triggers: { name: string; type: number }[]
    }
  >(targetQuery, [oid])
  const kind = kinds[row?.kind ?? '']
  if (row === undefined || kind === undefined) {
    throw new LocalError(`Cannot explain ${named}: it is no table and no view`, {
      where: '--explain',
      fix: 'Name a table, a view or a materialized view.',
    })
  }
  const { updatable, triggers, ...rest } = row
  const before = (event: number) => triggers.filter(({ type }) => type & event).map(({ name }) => name)
  return {
    ...rest,
    parent: row.parent ?? undefined,
    userColumn: row.userColumn ?? undefined,
    kind,
    writable: { insert: bit(updatable, 8), update: bit(updatable, 4), delete: bit(updatable, 16) },
    rowTriggers: { insert: before(4), update: before(16) },
  }
}

function bit(bits: number, mask: number): boolean {
  return (bits & mask) !== 0
}

async function findOid(session: Session, named: string): Promise<string> {
  const exact = await session.query<{ oid: string }>(
    `select c.oid::text
     from pg_catalog.pg_class as c
     join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where n.nspname || '.' || c.relname = $1 or (n.nspname = 'public' and c.relname = $1)
     order by n.nspname = 'public' desc`,
    [named],
  )
  if (exact[0] !== undefined) return exact[0].oid
  // A name that is no name in SQL is an error; one that names nothing is null. Both are the same to whoever asked.
  const read = await session.attempt(() =>
    session.query<{ oid: string | null }>(
      `select coalesce(to_regclass($1), to_regclass('public.' || $1))::oid::text as oid`,
      [named],
    )
  )
  const oid = 'value' in read ? read.value[0]?.oid : undefined
  if (oid) return oid
  const alike = await session.query<{ name: string }>(
    `select c.oid::regclass::text as name
     from pg_catalog.pg_class as c
     join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
     and n.nspname !~ '^(pg_|information_schema$)'
     order by c.relname = split_part($1, '.', -1) desc, n.nspname = split_part($1, '.', 1) desc, n.nspname, c.relname
     limit 8`,
    [named],
  )
  throw new LocalError(`There is no table "${named}"`, {
    where: '--explain',
    fix: `Name it with its schema: ${alike.map(({ name }) => name).join(', ')}, ...`,
  })
}

const targetQuery = `
select
    c.oid::text,
    c.oid::regclass::text as name,
    n.nspname as schema,
    c.relname as relation,
    c.relkind as kind,
    c.relrowsecurity as rls,
    c.relforcerowsecurity as forced,
    c.relowner::regrole::text as owner,
    (
        -- Of a table that was never analyzed only the size is known.
        select coalesce(sum(case
            when l.relkind = 'p' then 0
            when l.reltuples >= 0 then l.reltuples
            else pg_catalog.pg_relation_size(l.oid) / 100
        end), 0)::float8
        from pg_catalog.pg_class as l
        where l.oid = c.oid
        or l.oid in (select t.relid from pg_catalog.pg_partition_tree(c.oid) as t where c.relkind = 'p' and t.isleaf)
    ) as "estimatedRows",
    case when c.relispartition then (
        select i.inhparent::regclass::text from pg_catalog.pg_inherits as i where i.inhrelid = c.oid limit 1
    ) end as parent,
    (
        select coalesce(json_agg(json_strip_nulls(json_build_object(
            'name', a.attname,
            'default', case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end,
            'sequence', (
                select s.oid::regclass::text
                from pg_catalog.pg_depend as p
                join pg_catalog.pg_class as s on s.oid = p.refobjid and s.relkind = 'S'
                where p.classid = 'pg_catalog.pg_attrdef'::regclass and p.objid = d.oid
                and p.refclassid = 'pg_catalog.pg_class'::regclass
                limit 1
            ),
            'generated', a.attgenerated <> ''
        )) order by a.attnum), '[]')
        from pg_catalog.pg_attribute as a
        left join pg_catalog.pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    ) as columns,
    (
        select coalesce(json_agg(a.attname order by k.nth), '[]')
        from pg_catalog.pg_index as x
        cross join unnest(x.indkey::int2[]) with ordinality as k (attnum, nth)
        join pg_catalog.pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
        where x.indrelid = c.oid and x.indisprimary
    ) as "primaryKey",
    (
        select a.attname
        from pg_catalog.pg_constraint as f
        join pg_catalog.pg_attribute as a on a.attrelid = f.conrelid and a.attnum = f.conkey[1]
        where f.conrelid = c.oid and f.contype = 'f' and f.confrelid = to_regclass('auth.users')
        order by a.attnum
        limit 1
    ) as "userColumn",
    pg_catalog.pg_relation_is_updatable(c.oid::regclass, true) as updatable,
    coalesce(
        (select o.option_value::boolean from pg_catalog.pg_options_to_table(c.reloptions) as o
         where o.option_name = 'security_invoker'),
        false
    ) as invoker,
    (
        select coalesce(json_agg(json_build_object('name', t.tgname, 'type', t.tgtype) order by t.tgname), '[]')
        from pg_catalog.pg_trigger as t
        -- 1: for each row, 2: before.
        where t.tgrelid = c.oid and not t.tgisinternal and t.tgtype & 3 = 3 and t.tgenabled <> 'D'
    ) as triggers
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where c.oid = $1::text::oid`

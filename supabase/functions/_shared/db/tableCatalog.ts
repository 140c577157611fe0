/** What the live schema says about a table: its columns and their types, by which `execute` checks every name. */
import { HoldfastError } from '../core/errors.ts'
import { sql } from './sql.ts'
import type { Tx } from './transaction.ts'

/** An alias, not an interface: rows of a look-up are one. */
export type Column = {
  name: string
  /** Its type with the schema, quoted: safe as SQL text. */
  type: string
  /** Takes JavaScript arrays as SQL arrays. */
  array: boolean
  /** It, or each item of it, is JSON. */
  json: boolean
}

export interface Table {
  schema: string
  name: string
  columns: ReadonlyMap<string, Column>
}

/** Tables that were looked up once. One for each `Db`: a schema change is noticed when a name is missing. */
export class TableCatalog {
  readonly #tables = new Map<string, Table>()

  /**
   * The table as it is known, else as the server describes it (one trip). `names` are the columns that are needed: one
   * that is missing is looked for once more, since a migration may have added it. Rejects with `UNKNOWN_TABLE` or
   * `UNKNOWN_COLUMN`, which name what is near among what the caller may see.
   */
  async find(tx: Tx, reference: string, names: readonly string[]): Promise<Table> {
    const known = this.#tables.get(reference)
    if (known !== undefined && names.every((name) => known.columns.has(name))) return known
    const { schema, name } = parseReference(reference)
    const { table, visible } = await describe(tx, schema, name)
    if (table === undefined) throw await unknownTable(tx, reference, schema, name)
    this.#tables.set(reference, table)
    const missing = names.find((each) => !table.columns.has(each))
    if (missing !== undefined) throw unknownColumn(reference, missing, visible)
    return table
  }

  /** What was known of it proved wrong. */
  forget(reference: string): void {
    this.#tables.delete(reference)
  }
}

/** `users` is `public.users`. Only the first dot separates. */
function parseReference(reference: string): { schema: string; name: string } {
  const dot = reference.indexOf('.')
  const schema = dot < 0 ? 'public' : reference.slice(0, dot)
  const name = reference.slice(dot + 1)
  if (!isName(schema) || !isName(name)) throw notATable(reference)
  if (schema.startsWith('pg_') || schema === 'information_schema') {
    throw new HoldfastError(
      'UNKNOWN_TABLE',
      `Cannot use the table ${quoted(reference)}: it is one of the server's own`,
    )
  }
  return { schema, name }
}

/** Longer ones are no names: PostgreSQL would cut them, and find something else. */
function isName(text: string): boolean {
  return text !== '' && !text.includes('\0') && new TextEncoder().encode(text).length <= 63
}

async function describe(
  tx: Tx,
  schema: string,
  name: string,
): Promise<{ table?: Table; visible: string[] }> {
  const columns = await tx.query<Column & { visible: boolean }>(sql`
    select
      a.attname::text as name,
      quote_ident(n.nspname) || '.' || quote_ident(t.typname) as type,
      b.typcategory = 'A' as array,
      coalesce(e.typname, b.typname) in ('json', 'jsonb') as json,
      has_column_privilege(c.oid, a.attnum, 'select, insert, update') as visible
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as s on s.oid = c.relnamespace
    join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_catalog.pg_type as t on t.oid = a.atttypid
    join pg_catalog.pg_namespace as n on n.oid = t.typnamespace
    join pg_catalog.pg_type as b on b.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end
    left join pg_catalog.pg_type as e on e.oid = b.typelem and b.typcategory = 'A'
    where s.nspname = ${schema} and c.relname = ${name} and c.relkind in ('r', 'p', 'v', 'm', 'f')
    order by a.attnum`)
  const visible = columns.filter((column) => column.visible).map((column) => column.name)
  if (columns.length === 0) return { visible }
  const byName = new Map(columns.map(({ name, type, array, json }) => [name, { name, type, array, json }]))
  return { table: { schema, name, columns: byName }, visible }
}

async function unknownTable(
  tx: Tx,
  reference: string,
  schema: string,
  name: string,
): Promise<HoldfastError> {
  const rows = await tx.query<{ name: string }>(sql`
    select case when s.nspname = 'public' then c.relname::text else s.nspname || '.' || c.relname end as name
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as s on s.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f')
      and (s.nspname = ${schema} or c.relname = ${name})
      and s.nspname not like 'pg\\_%' and s.nspname <> 'information_schema'
      and has_schema_privilege(s.oid, 'usage')
      and (has_table_privilege(c.oid, 'select, insert, update, delete')
        or has_any_column_privilege(c.oid, 'select, insert, update'))
    order by 1`)
  return notATable(reference, nearest(reference, rows.map((row) => row.name)))
}

function notATable(reference: string, near: string[] = []): HoldfastError {
  return unknown(
    'UNKNOWN_TABLE',
    `Cannot use the table ${quoted(reference)}: there is none of that name`,
    near,
  )
}

function unknownColumn(reference: string, column: string, visible: string[]): HoldfastError {
  const found = `the table ${quoted(reference)} has none of that name`
  const near = isName(column) ? nearest(column, visible) : []
  return unknown('UNKNOWN_COLUMN', `Cannot use the column ${quoted(column)}: ${found}`, near)
}

function unknown(code: 'UNKNOWN_TABLE' | 'UNKNOWN_COLUMN', message: string, near: string[]): HoldfastError {
  if (near.length === 0) return new HoldfastError(code, message)
  return new HoldfastError(code, `${message}; near it: ${near.join(', ')}`, { details: { near } })
}

/** A name in a message: as it was given, but never endless. */
function quoted(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name)
}

/** Up to three that differ by a third of their letters at most. */
export function nearest(name: string, candidates: readonly string[]): string[] {
  return candidates
    .map((candidate) => ({ candidate, distance: distance(name.toLowerCase(), candidate.toLowerCase()) }))
    .filter(({ candidate, distance }) => distance <= Math.max(2, candidate.length / 3))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ candidate }) => candidate)
}

/** How many letters have to be added, taken away or exchanged (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length]!
}

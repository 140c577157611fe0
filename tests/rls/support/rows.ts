/** Fixture rows as SQL, and a table's rows as the superuser sees them. */
import type { Reach, RoleName } from '../matrix.ts'
import type { Queries } from '../../support/sql.ts'
import { fixture, people, type TableFixture, type Value, type Values } from './fixture.ts'

export interface Row {
  /** The values of the fixture's key columns. */
  key: string
  /** Where it lies; an update moves it. Views have no such place: there it is the row itself. */
  at: string
  /** The row as JSON. */
  text: string
  /** For messages. */
  name: string
  of?: 'owner' | 'other'
  deleted?: boolean
}

/** Leaves exactly the fixture's rows in its tables, and says which tables these are: a missing one is passed over. */
export async function seed(sql: Queries): Promise<string[]> {
  const found = await sql.unsafe(
    'select name from unnest($1::text[]) with ordinality as t (name, at) where to_regclass(name) is not null order by at',
    [Object.keys(fixture)],
  )
  const tables = found.map(({ name }) => name as string)
  const inserts = tables.flatMap((table) =>
    fixture[table]?.rows.map(({ values }) => insertInto(table, values)) ?? []
  )
  await sql.unsafe(
    [`truncate ${tables.join(', ')} cascade`, ...inserts].join(';\n'),
  )
  return tables
}

/** A digest of all rows of these tables. */
export async function digestOf(sql: Queries, tables: string[]): Promise<string> {
  const digests = tables.map((table) =>
    `(select md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from ${table} as t)`
  )
  const [row] = await sql.unsafe(`select concat_ws(' ', ${digests.join(', ')}) as digest`)
  return row?.digest
}

export function insertInto(table: string, values: Values): string {
  const columns = Object.keys(values)
  if (columns.length === 0) return `insert into ${table} default values`
  return `insert into ${table} (${columns.join(', ')}) values (${
    columns.map((column) => literal(values[column] ?? null)).join(', ')
  })`
}

/** A row that can be inserted, owned by that user where rows have an owner. */
export function freshRow({ rows, fresh, ownerColumn }: TableFixture, owner: string): Values {
  return { ...rows[0]?.values, ...fresh, ...(ownerColumn !== undefined && { [ownerColumn]: owner }) }
}

export function literal(value: Value): string {
  if (value === null) return 'null'
  return typeof value === 'string' ? `'${value.replaceAll("'", "''")}'` : String(value)
}

/** All rows of the table or view, in no order; must be asked as somebody who sees them all. */
export async function rowsOf(sql: Queries, table: string, isView: boolean): Promise<Row[]> {
  const at = isView ? 'to_jsonb(t)::text' : 't.tableoid::text || t.ctid::text'
  const rows = await sql.unsafe(`select ${at} as at, to_jsonb(t)::text as text from ${table} as t`)
  return rows.map(({ at, text }) => describeRow(table, { at, text }))
}

function describeRow(table: string, { at, text }: { at: string; text: string }): Row {
  const values: Values = JSON.parse(text)
  const key = keyOf(table, values)
  const found = fixture[table]?.rows.find((row) => keyOf(table, row.values) === key)
  const whose = found?.of === undefined ? '' : `, the ${found.of}'s`
  const name = key === '' ? text.slice(0, 80) : `${key}${whose}${found?.deleted ? ', deleted' : ''}`
  return { at, key, text, name, of: found?.of, deleted: found?.deleted }
}

export function keyOf(table: string, values: Record<string, unknown>): string {
  return (fixture[table]?.key ?? []).map((column) => String(values[column])).join(' ')
}

/** What is wrong where these rows were to be reached and those were. */
export function differences(verb: string, expected: Row[], found: Row[]): string[] {
  const lacking = expected.filter((row) => !found.includes(row))
  const surplus = found.filter((row) => !expected.includes(row))
  return [
    ...(lacking.length > 0 ? [`${verb} too little, not ${names(lacking)}`] : []),
    ...(surplus.length > 0 ? [`${verb} too much: ${names(surplus)}`] : []),
  ]
}

export function names(rows: Row[]): string {
  return rows.map(({ name }) => `[${name}]`).join(' ')
}

/** The rows that a reach says, for this role. */
export function within(reach: Reach, role: RoleName, rows: Row[]): Row[] {
  switch (reach) {
    case 'denied':
    case 'none':
      return []
    case 'own':
      return rows.filter((row) => row.of === role && !row.deleted)
    case 'visible':
      return rows.filter((row) => !row.deleted)
    case 'all':
      return rows
  }
}

/** The user whose rows a role's inserts may name; roles without a user name the owner. */
export function ownerFor(role: RoleName): string {
  return role === 'other' || role === 'admin' ? people[role] : people.owner
}

/** A user that is not this role's. */
export function strangerTo(role: RoleName): string {
  return role === 'other' ? people.owner : people.other
}

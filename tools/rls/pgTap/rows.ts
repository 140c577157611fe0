/** The fixture as the assertions speak of it: rows by short names, and what is tried on their table. */
import type { Reach, RoleName } from '../../../tests/rls/matrix.ts'
import { fixture, type TableFixture, type Values } from '../../../tests/rls/support/fixture.ts'
import { literal } from '../../../tests/rls/support/rows.ts'
import { insertRows } from './sql.ts'

/** The name of the row that an insert makes. */
export const freshName = 'fresh'

interface NamedRow {
  name: string
  key: string
  of?: 'owner' | 'other'
  deleted: boolean
}

/** What is tried on one table. Nothing limits a statement but the rights of whoever runs it. */
export interface Attempts {
  relation: string
  /** Selects the keys of all rows as an array. */
  found: string
  inserting: string
  updating: string
  /** Selects the keys of the rows that the update has changed. */
  updated: string
  /** Run before the delete, with every right. */
  beforeDelete?: string
}

/** What hinders a delete and is no question of rights: rows that refer to the deleted ones. */
const clearedBeforeDelete: Record<string, string> = {
  'public.products': 'delete from public.order_items',
}

/** The rows of a table, ready to be inserted. */
export function rowsToInsert(table: string): Values[] {
  return fixture[table]?.rows.map(({ values }) => ours(values)) ?? []
}

/** Rows by names that are short and different: `owner`, `owner, deleted`, `other`, `nobody`. */
export function namedRows(table: string): NamedRow[] {
  const { key, rows } = fixtureOf(table)
  const haveOwners = rows.some(({ of }) => of !== undefined)
  const named: NamedRow[] = []
  for (const { of, deleted = false, values } of rows) {
    const wanted = `${of ?? (haveOwners ? 'nobody' : 'row')}${deleted ? ', deleted' : ''}`
    const same = named.filter(({ name }) => name === wanted || name.startsWith(`${wanted} `)).length
    named.push({ name: same === 0 ? wanted : `${wanted} ${same + 1}`, key: keyOf(key, values), of, deleted })
  }
  return named
}

/** The names of the rows that a role reaches. */
export function reachedNames(table: string, role: RoleName, reach: Reach): string[] {
  const rows = namedRows(table)
  const reached = {
    denied: () => [],
    none: () => [],
    own: () => rows.filter(({ of, deleted }) => of === role && !deleted),
    visible: () => rows.filter(({ deleted }) => !deleted),
    all: () => rows,
  }[reach]()
  return reached.map(({ name }) => name)
}

export function freshKey(table: string): string {
  const about = fixtureOf(table)
  return keyOf(about.key, freshValues(about))
}

export function attemptsOn(table: string): Attempts {
  const about = fixtureOf(table)
  const key = about.key.map((column) => `${column}::text`).join(" || ' ' || ")
  const found = `select array_agg(${key}) from ${table}`
  const change = Object.entries(about.change)
  return {
    relation: table,
    found,
    inserting: insertRows(table, [freshValues(about)]),
    updating: `update ${table} set ${change.map(([column, to]) => `${column} = ${literal(to)}`).join(', ')}`,
    updated: `${found} where ${
      change.map(([column, to]) => `${column} is not distinct from ${literal(to)}`).join(' and ')
    }`,
    beforeDelete: clearedBeforeDelete[table],
  }
}

/** The insert of a row that names this owner. */
export function insertFor(table: string, owner: string): string {
  const about = fixtureOf(table)
  if (about.ownerColumn === undefined) {
    throw new RangeError(`Cannot try whose rows may be inserted into ${table}: no column says whose they are`)
  }
  return insertRows(table, [{ ...freshValues(about), [about.ownerColumn]: owner }])
}

function freshValues({ rows, fresh }: TableFixture): Values {
  return ours({ ...rows[0]?.values, ...fresh })
}

/** A database that is seeded, or in use, has skus of its own. */
function ours(values: Values): Values {
  return typeof values.sku === 'string' ? { ...values, sku: `RLS-${values.sku}` } : values
}

function keyOf(key: readonly string[], values: Values): string {
  return key.map((column) => String(values[column])).join(' ')
}

function fixtureOf(table: string): TableFixture {
  const found = fixture[table]
  if (found === undefined) {
    throw new RangeError(`Cannot try anything on ${table}: the fixture has no rows of it`)
  }
  return found
}

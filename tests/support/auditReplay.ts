/** Rebuilds the tables from the audit trail alone: its rows, in order, applied to nothing. */
import { loadTables } from './auditLoadTables.ts'
import type { Row } from './auditMirror.ts'
import type { Sql } from './sql.ts'

/** A row of the trail, as far as a replay needs it. */
export interface Change {
  id: string
  transactionId: string
  tableName: string
  operation: string
  primaryKey: string | null
  actorRole: string | null
  actorId: string | null
  details: {
    row?: { old?: Row; new?: Row }
    ddl?: { command: string; object: string; statement: string }
    truncated?: string
  }
}

export async function readTrail(admin: Sql, like = 'load\\_%'): Promise<Change[]> {
  return [
    ...await admin<Change[]>`
    select id, transaction_id as "transactionId", table_name as "tableName",
      operation, primary_key as "primaryKey", actor_role as "actorRole", actor_id as "actorId", details
    from audit.database_changes
    where schema_name = 'public' and table_name like ${like}
    order by id`,
  ]
}

const canonicalNames = new Map(
  Object.entries(loadTables).flatMap(([name, { aliases }]) =>
    [name, ...aliases].map((alias) => [alias, name])
  ),
)

/** Partitions and new names of a table are the table. */
export function tableOf(name: string): string {
  return canonicalNames.get(name) ?? name
}

/** Equal for equal rows, whatever the order of their columns. */
export function canonical(value: unknown): string {
  return JSON.stringify(
    value,
    (_, inner) =>
      inner !== null && typeof inner === 'object' && !Array.isArray(inner)
        ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => a < b ? -1 : 1))
        : inner,
  )
}

export interface Replayed {
  /** By table, then by key; a table without a key has its whole rows as keys, and a number at the end for each. */
  tables: Map<string, Map<string, Row>>
  /** Changes that do not follow from those before them. */
  problems: string[]
  /** Whole rows of the changes that moved one to another partition, by the change's id. */
  moves: Map<string, { old: Row; new: Row }>
}

export function replay(changes: readonly Change[]): Replayed {
  const state = new ReplayedTables()
  for (const statement of statementsOf(inOrderOfTime(changes))) state.apply(statement)
  return state
}

/**
 * What foreign keys do in one statement is recorded by table and operation, not by time: a row that was set null and
 * then deleted may stand there deleted first. An UPDATE of a row which the same transaction deleted, and which nothing
 * brought back, came before the DELETE.
 */
function inOrderOfTime(changes: readonly Change[]): Change[] {
  const ordered: Change[] = []
  const deleted = new Map<string, Change>()
  for (const change of changes) {
    const { transactionId, tableName, primaryKey, operation, details } = change
    const table = tableOf(tableName)
    const row = `${transactionId} ${table} ${primaryKey}`
    const keyChanged = loadTables[table]?.key.some((column) => column in (details.row?.old ?? {}))
    if (operation === 'UPDATE' && primaryKey !== null && !keyChanged && deleted.has(row)) {
      ordered.splice(ordered.indexOf(deleted.get(row)!), 0, change)
      continue
    }
    if (operation === 'DELETE' && primaryKey !== null) deleted.set(row, change)
    else deleted.delete(row)
    ordered.push(change)
  }
  return ordered
}

/**
 * The rows of a statement belong together, since it may swap keys; those of other transactions may stand between them.
 * Two statements in a row that do the same to the same table look like one. That does no harm: it stands where its
 * last row stands, and until then its rows are locked against everybody else.
 */
function statementsOf(changes: readonly Change[]): Change[][] {
  const statements = new Map<Change, Change[]>()
  const current = new Map<string, Change[]>()
  for (const change of changes) {
    const statement = current.get(change.transactionId)
    const last = statement?.at(-1)
    if (
      last && last.tableName === change.tableName && last.operation === change.operation && !last.details.ddl
    ) {
      statements.delete(last)
      statement!.push(change)
      statements.set(change, statement!)
    } else {
      statements.set(change, [change])
      current.set(change.transactionId, statements.get(change)!)
    }
  }
  return [...statements.values()]
}

/** The table or the partition that was truncated. A change of a partition stands under the name of its table. */
export function truncatedBy({ tableName, details }: Change): string {
  return details.truncated?.split('.')[1] ?? tableName
}

class ReplayedTables implements Replayed {
  readonly tables = new Map<string, Map<string, Row>>(
    Object.keys(loadTables).map((name) => [name, new Map()]),
  )
  readonly problems: string[] = []
  readonly moves = new Map<string, { old: Row; new: Row }>()

  apply(statement: Change[]): void {
    const [{ tableName, operation, details }] = statement as [Change]
    const table = tableOf(tableName)
    if (operation === 'TRUNCATE') return this.#truncate(table, truncatedBy(statement[0]!))
    if (operation === 'DDL') return this.#define(table, details.ddl?.statement ?? '')
    const rows = this.#rows(table)
    // What the statement has written is put back at its end: a key may be free only then. A row that a cascade
    // changes twice is found among what was written.
    const written: Row[] = []
    for (const change of statement) {
      const { old, new: fresh } = change.details.row ?? {}
      let row: Row | undefined
      if (operation !== 'INSERT') {
        row = this.#take(table, rows, written, { ...fresh, ...old })
        if (row === undefined || !includes(row, old ?? {})) {
          this.problems.push(`${describe(change)} changes ${row ? canonical(row) : 'no row'}`)
        }
      }
      if (operation !== 'DELETE') written.push({ ...row, ...fresh })
      if (operation === 'UPDATE' && row && old && 'region' in old) {
        this.moves.set(change.id, { old: row, new: { ...row, ...fresh } })
      }
    }
    for (const row of written) {
      const key = this.#freeKey(table, rows, row)
      if (rows.has(key)) this.problems.push(`${describe(statement[0]!)} writes ${key}, which is there`)
      rows.set(key, row)
    }
  }

  #rows(table: string): Map<string, Row> {
    const rows = this.tables.get(table)
    if (!rows) throw new Error(`The trail has changes of ${table}, which the load does not know`)
    return rows
  }

  #take(table: string, rows: Map<string, Row>, written: Row[], image: Row): Row | undefined {
    const key = keyOf(table, image)
    const stored = [...keyed(table, rows, key)][0]
    if (stored !== undefined) {
      const row = rows.get(stored)
      rows.delete(stored)
      return row
    }
    const nth = written.findIndex((row) => keyOf(table, row) === key)
    return nth < 0 ? undefined : written.splice(nth, 1)[0]
  }

  #freeKey(table: string, rows: Map<string, Row>, row: Row): string {
    const key = keyOf(table, row)
    if (loadTables[table]!.key.length > 0) return key
    let nth = 0
    while (rows.has(`${key}#${nth}`)) nth++
    return `${key}#${nth}`
  }

  #truncate(table: string, name: string): void {
    const rows = this.#rows(table)
    const [, region] = /^load_parts_(.)$/.exec(name) ?? []
    for (const [key, row] of rows) if (region === undefined || row.region === region) rows.delete(key)
  }

  /** The commands of the load that change what a row looks like. */
  #define(table: string, statement: string): void {
    const [, command = '', column = '', rest = ''] =
      /alter table public\.\w+ (add column|drop column|rename column|alter column) (\w+) ?(.*)$/.exec(
        statement,
      ) ?? []
    const rows = command === '' ? [] : this.#rows(table).values()
    for (const row of rows) {
      if (command === 'add column') row[column] = Number(/default (\d+)/.exec(rest)?.[1] ?? NaN) || null
      if (command === 'rename column') row[rest.replace('to ', '')] = row[column]
      if (command === 'alter column') {
        row[column] = rest.includes('text') ? text(row[column]) : Number(row[column])
      }
      if (command === 'drop column' || command === 'rename column') delete row[column]
    }
  }
}

function text(value: unknown): string | null {
  return value === null ? null : String(value)
}

function* keyed(table: string, rows: Map<string, Row>, key: string): Generator<string> {
  if (loadTables[table]!.key.length > 0) {
    if (rows.has(key)) yield key
    return
  }
  let last: string | undefined
  for (let nth = 0; rows.has(`${key}#${nth}`); nth++) last = `${key}#${nth}`
  if (last !== undefined) yield last
}

export function keyOf(table: string, row: Row): string {
  const { key } = loadTables[table]!
  return key.length === 0 ? canonical(row) : key.map((column) => row[column]).join(' ')
}

function includes(row: Row, part: Row): boolean {
  return Object.entries(part).every(([column, value]) => canonical(row[column]) === canonical(value))
}

function describe({ id, tableName, operation, details }: Change): string {
  return `change ${id} (${operation} of ${tableName}, ${canonical(details).slice(0, 300)})`
}

/** What the tables hold now, in the shape of a replay. */
export async function readTables(admin: Sql): Promise<Replayed['tables']> {
  const tables: Replayed['tables'] = new Map()
  for (const [table, { aliases }] of Object.entries(loadTables)) {
    const [found] = await admin<{ name: string }[]>`
      select relname as name from pg_class
      where relnamespace = 'public'::regnamespace and relname = any(${[table, ...aliases]})
      order by relname = ${table} desc limit 1`
    const rows = new Map<string, Row>()
    for (const { row } of await admin.unsafe(`select to_jsonb(t) as row from public.${found!.name} t`)) {
      let key = keyOf(table, row)
      if (loadTables[table]!.key.length === 0) {
        const same = key
        for (let nth = 0; rows.has(key) || nth === 0; nth++) key = `${same}#${nth}`
      }
      rows.set(key, row)
    }
    tables.set(table, rows)
  }
  return tables
}

/** What a replay has and the tables have not, and the other way round, and what they have differently. */
export function differences(replayed: Replayed['tables'], actual: Replayed['tables']): string[] {
  const found: string[] = []
  for (const [table, rows] of actual) {
    const rebuilt = replayed.get(table) ?? new Map<string, Row>()
    for (const key of new Set([...rows.keys(), ...rebuilt.keys()])) {
      const [is, replays] = [canonical(rows.get(key) ?? null), canonical(rebuilt.get(key) ?? null)]
      if (is !== replays) {
        found.push(
          `${table} ${key.slice(0, 200)} is ${is.slice(0, 300)}, the trail says ${replays.slice(0, 300)}`,
        )
      }
    }
  }
  return found
}

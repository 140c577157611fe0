/** What the audit trail must say after a load: as much as the mirror, as the clients' books, and as the tables. */
import type { Entry } from './auditLoadClient.ts'
import { loadTables } from './auditLoadTables.ts'
import { type Noted, readMirror, type Row } from './auditMirror.ts'
import {
  canonical,
  type Change,
  differences,
  readTables,
  readTrail,
  replay,
  tableOf,
  truncatedBy,
} from './auditReplay.ts'
import type { Sql } from './sql.ts'

/** Every list names what is wrong; all are empty where nothing is. */
export interface AuditFindings {
  /** Changes that the mirror has and the trail has not. */
  missing: string[]
  /** Changes that the trail has and the mirror has not. */
  invented: string[]
  /** Committed transactions whose statements counted other numbers of rows than the trail has. */
  miscounted: string[]
  /** Rows in the trail of transactions that were rolled back, or of nobody's. */
  ghosts: string[]
  /** Changes in the name of another role or user than who made them. */
  actors: string[]
  /** Changes whose primary_key is not the key of their row. */
  keys: string[]
  /** Changes that do not follow from those before them. */
  order: string[]
  /** Rows that the trail does not rebuild as they are. */
  rebuilt: string[]
  gaps: unknown[]
}

export async function reckonAudit(
  admin: Sql,
  book: readonly Entry[],
): Promise<{ findings: AuditFindings; counts: Record<string, number> }> {
  const trail = await readTrail(admin)
  const noted = await readMirror(admin)
  const changes = trail.filter(({ operation }) => operation !== 'DDL')
  const expected = countEach([...noted.flatMap(fromMirror), ...truncates(noted.map(truncateOfMirror))])
  const replayed = replay(trail)
  const recorded = countEach([
    ...changes.flatMap((change) => fromTrail(change, replayed.moves.get(change.id))),
    ...truncates(changes.map(truncateOfTrail)),
  ])
  const byTransaction = Map.groupBy(changes, ({ transactionId }) => transactionId)
  const booked = new Map(book.map((entry) => [entry.transactionId, entry]))
  return {
    findings: {
      missing: lacking(expected, recorded),
      invented: lacking(recorded, expected),
      miscounted: book.flatMap((entry) => miscounted(entry, byTransaction.get(entry.transactionId) ?? [])),
      ghosts: [...byTransaction.keys()].filter((id) => booked.get(id)?.outcome === 'rolled back'),
      actors: changes.filter((change) => !isBy(change, booked.get(change.transactionId))).map(canonical),
      keys: changes.filter((change) => !hasItsKey(change)).map(canonical),
      order: replayed.problems,
      rebuilt: differences(replayed.tables, await readTables(admin)),
      gaps: [...await admin`select * from audit.gaps`],
    },
    counts: {
      ...Object.fromEntries(
        [...Map.groupBy(trail, ({ operation }) => operation)].map(([name, list]) => [name, list.length]),
      ),
      transactions: byTransaction.size,
      noted: noted.length,
    },
  }
}

function isBy(change: Change, entry: Entry | undefined): boolean {
  // Nobody's book has what was done before and beside the load, by the owner of the tables.
  if (entry === undefined) return change.actorRole === 'postgres' && change.actorId === null
  return change.actorRole === entry.role && change.actorId === entry.userId
}

function hasItsKey({ tableName, operation, primaryKey, details: { row } }: Change): boolean {
  const table = tableOf(tableName)
  const { key } = loadTables[table]!
  if (key.length === 0 || operation === 'TRUNCATE') return primaryKey === null
  const image = { ...row?.old, ...row?.new }
  const values = key.map((column) => String(image[column]))
  return primaryKey === (values.length === 1 ? values[0] : primaryKey) &&
    (values.length === 1 || canonical(JSON.parse(primaryKey ?? 'null')) === canonical(values))
}

function miscounted(entry: Entry, changes: readonly Change[]): string[] {
  if (entry.outcome !== 'committed') return []
  const counts: Record<string, number> = {}
  for (const { tableName, operation } of changes) {
    if (operation !== 'TRUNCATE') counts[tableOf(tableName)] = (counts[tableOf(tableName)] ?? 0) + 1
  }
  return [...new Set([...Object.keys(counts), ...Object.keys(entry.rows)])].flatMap((table) => {
    const [said, has] = [entry.rows[table] ?? 0, counts[table] ?? 0]
    return Number.isNaN(said) || said === has
      ? []
      : [`transaction ${entry.transactionId} changed ${said} rows of ${table}, the trail has ${has}`]
  })
}

type Truncate = [transactionId: string, table: string] | undefined

/** Each once in a transaction, and partitions of their own only where not the whole table went. */
function truncates(all: Truncate[]): string[] {
  const found = new Set(all.flatMap((each) => each ? [`${each[0]} TRUNCATE ${each[1]}`] : []))
  return [...found].filter((text) => {
    const [id, , name = ''] = text.split(' ')
    return tableOf(name) === name || !found.has(`${id} TRUNCATE ${tableOf(name)}`)
  })
}

const truncateOfMirror = ({ transactionId, operation, table }: Noted): Truncate =>
  operation === 'TRUNCATE' ? [transactionId, table] : undefined

const truncateOfTrail = (change: Change): Truncate =>
  change.operation === 'TRUNCATE' ? [change.transactionId, truncatedBy(change)] : undefined

function fromMirror({ transactionId, table, operation, old, new: fresh }: Noted): string[] {
  if (operation === 'TRUNCATE') return []
  if (operation !== 'UPDATE') return [`${transactionId} ${operation} ${table} ${canonical(old ?? fresh)}`]
  return [`${transactionId} UPDATE ${table} ${canonical(changedColumns(table, old!, fresh!))}`]
}

function changedColumns(table: string, old: Row, fresh: Row): { old: Row; new: Row } {
  const { key } = loadTables[table]!
  const changed = Object.keys(fresh).filter((column) => canonical(old[column]) !== canonical(fresh[column]))
  const part = (row: Row, columns: string[]) =>
    Object.fromEntries(columns.map((column) => [column, row[column]]))
  // A row without a key can only be told by all of it.
  if (key.length === 0) return { old, new: fresh }
  return { old: part(old, changed), new: part(fresh, [...new Set([...key, ...changed])]) }
}

function fromTrail(change: Change, move: { old: Row; new: Row } | undefined): string[] {
  const { transactionId, tableName, operation, details: { row } } = change
  const table = tableOf(tableName)
  if (operation === 'TRUNCATE') return []
  // To a row trigger, a row that moves to another partition is deleted here and inserted there.
  if (move) {
    return [
      `${transactionId} DELETE ${table} ${canonical(move.old)}`,
      `${transactionId} INSERT ${table} ${canonical(move.new)}`,
    ]
  }
  if (operation !== 'UPDATE') {
    return [`${transactionId} ${operation} ${table} ${canonical(row?.old ?? row?.new)}`]
  }
  return [`${transactionId} UPDATE ${table} ${canonical({ old: row?.old, new: row?.new })}`]
}

function countEach(list: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const item of list) counts.set(item, (counts.get(item) ?? 0) + 1)
  return counts
}

function lacking(of: Map<string, number>, there: Map<string, number>): string[] {
  return [...of].filter(([item, count]) => (there.get(item) ?? 0) < count)
    .map(([item, count]) => `${item.slice(0, 400)} (${there.get(item) ?? 0} of ${count})`)
}

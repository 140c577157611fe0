/**
 * `insert`, `upsert`, `update`, `delete` and `select` as SQL, from plain objects. Values are parameters of their
 * column's type; names come from the live schema, quoted; a change without a filter is refused.
 */
import { HoldfastError } from '../core/errors.ts'
import { identifier, sql, sqlArray, sqlList, SqlQuery } from './sql.ts'
import type { Column, Table, TableCatalog } from './tableCatalog.ts'
import type { Tx } from './transaction.ts'

/**
 * Column to value; all must hold. `null` is `is null`, an array any of its values (null among them counts), a column
 * of an array type is compared as a whole. `undefined` is refused: it is a value somebody forgot.
 */
export type Filter = Record<string, unknown>

/** Column to value. `undefined` leaves the column to its default, or as it is. */
export type Data = Record<string, unknown>

export interface ReturningOption {
  /** Columns to give back; `false` for none, where the caller may write but not read. @default all */
  returning?: readonly string[] | false
}

export interface UpsertOptions extends ReturningOption {
  /** Columns of the unique key by which a row is known to be there already. */
  onConflict: readonly string[]
}

export interface ChangeOptions extends ReturningOption {
  where: Filter
}

export interface SelectOptions {
  where?: Filter
  /** @default all */
  columns?: readonly string[]
  /** In order of weight: `{ created_at: 'desc', id: 'asc' }`. */
  orderBy?: Record<string, 'asc' | 'desc'>
  limit?: number
}

/** What follows the table in `execute`. */
export type OperationArguments =
  | [operation: 'insert', data: Data | readonly Data[], options?: ReturningOption]
  | [operation: 'upsert', data: Data | readonly Data[], options: UpsertOptions]
  | [operation: 'update', data: Data, options: ChangeOptions]
  | [operation: 'delete', options: ChangeOptions]
  | [operation: 'select', options?: SelectOptions]

export interface Compiled {
  /** Absent where there is nothing to send: an insert of no rows. */
  query?: SqlQuery
  /** One object was given for insert or upsert, so its one row is the answer. */
  single: boolean
}

/**
 * Looks the table up where it is not known yet, in `tx`. Rejects with `UNKNOWN_TABLE`, `UNKNOWN_COLUMN`,
 * `FILTER_REQUIRED` or `VALIDATION_ERROR`; nothing but look-ups was sent then.
 */
export async function compileOperation(
  tx: Tx,
  catalog: TableCatalog,
  reference: string,
  args: OperationArguments,
): Promise<Compiled> {
  if (typeof reference !== 'string') throw invalid('the table must be named by a string')
  const [operation] = args
  switch (operation) {
    case 'insert':
    case 'upsert': {
      const [, data, options = {}] = args
      const rows = rowsOf(data)
      const conflict = operation === 'upsert' ? conflictColumns(options as UpsertOptions, rows) : undefined
      const given = columnsOf(rows)
      const table = await catalog.find(tx, reference, [
        ...given,
        ...conflict ?? [],
        ...options.returning || [],
      ])
      const single = !Array.isArray(data)
      if (rows.length === 0) return { single }
      return { query: insertion(table, rows, given, conflict, options), single }
    }
    case 'update': {
      const [, data, options] = args
      const given = columnsOf(rowsOf(data))
      if (given.length === 0) throw invalid('an update needs something to set')
      const where = requiredFilter(options?.where, operation)
      const names = [...given, ...Object.keys(where), ...options.returning || []]
      const table = await catalog.find(tx, reference, names)
      const changes = given.map((name) => sql`${identifier(name)} = ${value(table, name, data[name])}`)
      const query = sql`update ${nameOf(table)} set ${sqlList(changes)} where ${condition(table, where)}`
      return { query: sql`${query}${returning(table, options)}`, single: false }
    }
    case 'delete': {
      const [, options] = args
      const where = requiredFilter(options?.where, operation)
      const table = await catalog.find(tx, reference, [...Object.keys(where), ...options.returning || []])
      const query = sql`delete from ${nameOf(table)} where ${condition(table, where)}`
      return { query: sql`${query}${returning(table, options)}`, single: false }
    }
    case 'select': {
      const [, options = {}] = args
      return { query: await selection(tx, catalog, reference, options), single: false }
    }
    default:
      throw invalid(`the operation must be insert, upsert, update, delete or select, received ${operation}`)
  }
}

function insertion(
  table: Table,
  rows: readonly Data[],
  given: readonly string[],
  conflict: readonly string[] | undefined,
  options: ReturningOption,
): SqlQuery {
  const into = sql`insert into ${nameOf(table)}`
  if (given.length === 0) {
    if (rows.length === 1) return sql`${into} default values${returning(table, options)}`
    throw invalid('rows without any column can only be inserted one by one')
  }
  const tuples = rows.map((row) => {
    const items = given.map((name) => row[name] === undefined ? sql`default` : value(table, name, row[name]))
    return sql`(${sqlList(items)})`
  })
  const values = sql`${into} (${names(given)}) values ${sqlList(tuples)}`
  if (conflict === undefined) return sql`${values}${returning(table, options)}`
  const others = given.filter((name) => !conflict.includes(name))
  // Without another column the key is set to itself, so that the row is given back as well.
  const changes = (others.length > 0 ? others : conflict)
    .map((name) => sql`${identifier(name)} = excluded.${identifier(name)}`)
  return sql`${values} on conflict (${names(conflict)}) do update set ${sqlList(changes)}${
    returning(table, options)
  }`
}

async function selection(
  tx: Tx,
  catalog: TableCatalog,
  reference: string,
  { where = {}, columns, orderBy = {}, limit }: SelectOptions,
): Promise<SqlQuery> {
  refuseUndefined(where, 'select')
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit >= 0)) {
    throw invalid(`limit must be a whole number from 0 on, received ${limit}`)
  }
  for (const direction of Object.values(orderBy)) {
    if (direction !== 'asc' && direction !== 'desc') {
      throw invalid(`orderBy takes asc or desc, received ${JSON.stringify(direction)}`)
    }
  }
  const order = Object.entries(orderBy)
  const table = await catalog.find(tx, reference, [
    ...columns ?? [],
    ...Object.keys(where),
    ...Object.keys(orderBy),
  ])
  const list = output(table, columns)
  const filter = Object.keys(where).length > 0 ? sql` where ${condition(table, where)}` : sql``
  const directions = order.map(([name, direction]) =>
    direction === 'asc' ? identifier(name) : sql`${identifier(name)} desc`
  )
  const sorted = order.length > 0 ? sql` order by ${sqlList(directions)}` : sql``
  const limited = limit === undefined ? sql`` : sql` limit ${limit}`
  return sql`select ${list} from ${nameOf(table)}${filter}${sorted}${limited}`
}

function rowsOf(data: unknown): readonly Data[] {
  const rows = Array.isArray(data) ? data : [data]
  for (const row of rows) {
    if (!isRecord(row)) throw invalid('a row must be an object of columns and values')
  }
  return rows
}

/** Every column that any row sets, in order of first appearance. */
function columnsOf(rows: readonly Data[]): string[] {
  const set = rows.flatMap((row) => Object.keys(row).filter((name) => row[name] !== undefined))
  return [...new Set(set)]
}

function conflictColumns(options: UpsertOptions, rows: readonly Data[]): readonly string[] {
  const { onConflict } = options
  if (!Array.isArray(onConflict) || onConflict.length === 0) {
    throw invalid('an upsert needs onConflict, the columns of a unique key')
  }
  const given = columnsOf(rows)
  // A default would otherwise overwrite what the row that is there says.
  if (rows.some((row) => given.some((name) => row[name] === undefined))) {
    throw invalid('the rows of an upsert must all set the same columns')
  }
  return onConflict
}

function requiredFilter(where: unknown, operation: string): Filter {
  if (!isRecord(where) || Object.keys(where).length === 0) {
    throw new HoldfastError(
      'FILTER_REQUIRED',
      `Cannot ${operation} without a filter: where names no column; use query() to change all rows`,
    )
  }
  refuseUndefined(where, operation)
  return where
}

function refuseUndefined(where: Filter, operation: string): void {
  const missing = Object.keys(where).find((name) => where[name] === undefined)
  if (missing === undefined) return
  throw new HoldfastError(
    'FILTER_REQUIRED',
    `Cannot ${operation} by ${
      JSON.stringify(missing)
    }: its value is undefined; null asks for rows without one`,
  )
}

function condition(table: Table, where: Filter): SqlQuery {
  const all = Object.entries(where).map(([name, wanted]) => {
    const column = identifier(name)
    if (wanted === null) return sql`${column} is null`
    const { array, json, type } = columnOf(table, name)
    if (array || !Array.isArray(wanted)) return sql`${column} = ${value(table, name, wanted)}`
    const values = wanted.filter((each) => each !== null)
    const list = json ? values.map((each) => JSON.stringify(each)) : values
    const any = sql`${column} = any(${sqlArray(list)}::${verbatim(type)}[])`
    return values.length === wanted.length ? any : sql`(${any} or ${column} is null)`
  })
  return joined(all, ' and ')
}

/** A value as a parameter of the column's type. A cast without length: what is too long is refused, never cut. */
function value(table: Table, name: string, given: unknown): SqlQuery {
  const { array, json, type } = columnOf(table, name)
  if (given === null) return sql`null`
  if (array && Array.isArray(given)) return sql`${arrayText(given, json)}::${verbatim(type)}`
  return sql`${json && !array ? JSON.stringify(given) : given}::${verbatim(type)}`
}

/** Nested arrays are dimensions, unless the items are JSON: then they are values. */
function arrayText(values: readonly unknown[], json: boolean): string {
  if (json) return arrayText(values.map((each) => each === null ? null : JSON.stringify(each)), false)
  if (!values.some(Array.isArray)) return sqlArray(values).parts[0] as string
  return `{${values.map((each) => arrayText(Array.isArray(each) ? each : [each], false)).join(',')}}`
}

function columnOf(table: Table, name: string): Column {
  return table.columns.get(name)!
}

function nameOf(table: Table): SqlQuery {
  return identifier(table.schema, table.name)
}

function names(columns: readonly string[]): SqlQuery {
  return sqlList(columns.map((name) => identifier(name)))
}

function returning(table: Table, { returning: columns }: ReturningOption): SqlQuery {
  return columns === false ? sql`` : sql` returning ${output(table, columns)}`
}

/** What a row is given back as. SQL arrays travel as JSON: the driver would leave them as PostgreSQL writes them. */
function output(table: Table, columns: readonly string[] = []): SqlQuery {
  const chosen = columns.length > 0 ? columns : [...table.columns.keys()]
  if (columns.length === 0 && !chosen.some((name) => columnOf(table, name).array)) return sql`*`
  return sqlList(chosen.map((name) => {
    const column = identifier(name)
    return columnOf(table, name).array ? sql`to_json(${column}) as ${column}` : column
  }))
}

/** Text that PostgreSQL itself has quoted. */
function verbatim(text: string): SqlQuery {
  return new SqlQuery([text], [])
}

function joined(pieces: readonly SqlQuery[], between: string): SqlQuery {
  return new SqlQuery(['', ...pieces.slice(1).map(() => between), ''], pieces)
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(found: string): HoldfastError {
  return new HoldfastError('VALIDATION_ERROR', `Cannot execute: ${found}`)
}

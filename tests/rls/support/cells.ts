/** One cell by SQL: what is shared by reading and writing cells. */
import type { Queries } from '../../support/sql.ts'
import type { Cells, Command, Reach, RoleName } from '../matrix.ts'
import { attempt, callerOf, type SqlError } from './attempt.ts'
import type { Relation } from './catalogue.ts'
import { fixture, type TableFixture } from './fixture.ts'
import type { Report } from './report.ts'
import { differences, names, type Row, rowsOf } from './rows.ts'

export interface TableRun {
  tx: Queries
  table: string
  relation: Relation
  fixture: TableFixture
  /** The rows before, as the superuser sees them. */
  before: Row[]
  rules: Record<Command, Cells>
  report: Report
}

/** One statement of a cell. */
export interface Try {
  run: TableRun
  role: RoleName
  command: Command
  /** For messages: `returning`, `for update`. */
  how: string
  statement: string
  /** Run first, as the superuser. */
  prepare?: string
}

export interface Tried {
  rows: Record<string, unknown>[]
  error?: SqlError
  /** Rows of before that are no longer as they were. */
  touched: Row[]
  /** Rows that were not there before. */
  added: Row[]
  /** Rows afterwards less rows before. */
  grown: number
}

const noFixture: TableFixture = { key: [], rows: [], fresh: {}, change: {} }

export function fixtureOf(table: string): TableFixture {
  return fixture[table] ?? noFixture
}

/** Runs it and compares the table as the superuser sees it before and after. */
export async function run(
  { run: { tx, table, relation, before }, role, statement, prepare }: Try,
): Promise<Tried> {
  const isView = relation.kind === 'v' || relation.kind === 'm'
  const { rows, error, seen: after } = await attempt(tx, role, statement, {
    before: prepare,
    // A view over everything that has ever happened takes its time, and a refusal has changed nothing of it.
    look: async (tx, error) => error && isView ? before : await rowsOf(tx, table, isView),
  })
  const remaining = new Set(after.map(({ at }) => at))
  const known = new Set(before.map(({ at }) => at))
  return {
    rows,
    error,
    touched: before.filter(({ at }) => !remaining.has(at)),
    added: after.filter(({ at }) => !known.has(at)),
    grown: after.length - before.length,
  }
}

/** Says what is wrong with this try of the cell. */
export function fail(
  { run: { table, report }, role, command, how }: Omit<Try, 'statement'>,
  problem: string,
): void {
  report.fail(`${table} ${command} as ${role}`, how === '' ? problem : `${how}: ${problem}`)
}

/** A refused statement says 42501, tells nothing of any row, and changes nothing. */
export function expectDenied(attempted: Try, tried: Tried): void {
  const { error, rows, touched, grown } = tried
  if (!error) {
    const changed = touched.length > 0 || grown !== 0 ? `, ${describeChange(tried)}` : ' and changed nothing'
    fail(attempted, `must be refused with 42501, yet it ran, gave ${rows.length} row(s)${changed}`)
    return
  }
  if (isImpossible(attempted) && error.code === '55000') return
  if (error.code !== '42501') fail(attempted, `must be refused with 42501, found ${said(error)}`)
  if (error.detail) fail(attempted, `the refusal tells a detail: ${error.detail}`)
}

/** A view into which nobody can write is refused before any privilege is asked for; none may be granted either. */
function isImpossible({ run: { relation }, role, command }: Try): boolean {
  return command !== 'select' && !relation.writable &&
    !relation.grants.includes(`${callerOf(role).role} ${command}`)
}

/** The statement ran; a refusal is a failure. */
export function expectRun(attempted: Try, { error }: Tried, reach: Reach): boolean {
  if (error) fail(attempted, `must reach ${reach}, found ${said(error)}`)
  return !error
}

/** Reports rows that should have been reached and were not, and the other way round. */
export function expectRows(
  attempted: Omit<Try, 'statement'>,
  verb: string,
  expected: Row[],
  found: Row[],
): void {
  for (const problem of differences(verb, expected, found)) fail(attempted, problem)
}

export function said({ code, message, detail }: SqlError): string {
  return `${code} ${message}${detail ? ` (${detail})` : ''}`
}

function describeChange({ touched, grown }: Tried): string {
  return `changed ${touched.length} row(s)${names(touched)} and left ${grown} more than before`
}

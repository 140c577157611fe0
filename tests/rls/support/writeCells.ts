/** What a role inserts, updates and deletes: by rows really changed, with and without `returning`. */
import { type Command, type RoleName, roles } from '../matrix.ts'
import {
  expectDenied,
  expectRows,
  expectRun,
  fail,
  run,
  said,
  type TableRun,
  type Tried,
  type Try,
} from './cells.ts'
import { freshRow, insertInto, literal, names, ownerFor, strangerTo, within } from './rows.ts'

export async function writeCells(table: TableRun): Promise<void> {
  for (const role of roles) {
    for (const command of ['insert', 'update', 'delete'] as const) {
      table.report.ran(`${table.table} ${command} as ${role}`)
    }
    await inserts(table, role)
    await updates(table, role)
    await deletes(table, role)
    await truncates(table, role)
  }
}

async function inserts(table: TableRun, role: RoleName): Promise<void> {
  const reach = table.rules.insert[role]
  const own = freshRow(table.fixture, ownerFor(role))
  const forged = freshRow(table.fixture, strangerTo(role))
  const insert = (how: string, statement: string) => writing(table, role, 'insert', how, statement)
  const plain = insertInto(table.table, own)

  for (const attempted of [insert('', plain), insert('returning', `${plain} returning *`)]) {
    const tried = await run(attempted)
    if (reach === 'denied') expectDenied(attempted, tried)
    // What an insert returns has to pass the policies for reading as well.
    else if (reach === 'own' || table.rules.select[role] === 'all') expectInserted(attempted, tried)
  }
  if (table.fixture.ownerColumn !== undefined && reach !== 'all') {
    const attempted = insert("naming another as the row's owner", insertInto(table.table, forged))
    expectDenied(attempted, await run(attempted))
  }
  // A violated key tells that the row exists, and a foreign key that it does not.
  const told = [
    ...table.fixture.rows.map(({ values }) =>
      insert('of a row that exists', insertInto(table.table, values))
    ),
    ...table.fixture.rows.map(({ values }) =>
      insert('or do nothing', `${insertInto(table.table, values)} on conflict do nothing`)
    ),
    ...(table.fixture.orphan
      ? [insert('of an orphan', insertInto(table.table, { ...own, ...table.fixture.orphan }))]
      : []),
  ]
  if (table.rules.select[role] === 'all' && reach !== 'denied') return
  for (const attempted of told) expectDenied(attempted, await run(attempted))
}

/** The values are constants: whoever reads no column needs no right to read. */
async function updates(table: TableRun, role: RoleName): Promise<void> {
  const reach = table.rules.update[role]
  const { change, ownerColumn } = table.fixture
  const set = Object.keys(change).length > 0
    ? Object.entries(change).map(([column, value]) => `${column} = ${literal(value)}`).join(', ')
    : `${await firstColumn(table)} = default`
  const statement = `update ${table.table} as t set ${set} where true`
  await reaches(table, role, 'update', statement)
  if (ownerColumn !== undefined && reach !== 'denied' && reach !== 'all') {
    const given = `update ${table.table} set ${ownerColumn} = ${literal(strangerTo(role))} where true`
    const attempted = writing(table, role, 'update', 'giving rows away', given)
    const { touched } = await run(attempted)
    if (touched.length > 0) fail(attempted, `must be refused, yet gave away ${names(touched)}`)
  }
}

async function deletes(table: TableRun, role: RoleName): Promise<void> {
  // With the foreign keys at rest a cell shows its own rows, not what refers to them.
  const prepare = table.rules.delete[role] === 'denied'
    ? undefined
    : 'set local session_replication_role = replica'
  await reaches(table, role, 'delete', `delete from ${table.table} as t where true`, prepare)
}

async function reaches(
  table: TableRun,
  role: RoleName,
  command: 'update' | 'delete',
  statement: string,
  prepare?: string,
): Promise<void> {
  const reach = table.rules[command][role]
  const readable = within(table.rules.select[role], role, table.before)
  const expected = within(reach, role, table.before)
  const returning = `${statement} returning to_jsonb(t)::text as text`
  for (const [how, text] of [['', statement], ['returning', returning]] as const) {
    const attempted = { ...writing(table, role, command, how, text), prepare }
    const tried = await run(attempted)
    if (reach === 'denied') {
      expectDenied(attempted, tried)
      continue
    }
    if (how === 'returning' && table.rules.select[role] === 'denied') {
      expectDenied(attempted, tried)
      continue
    }
    if (!expectRun(attempted, tried, reach)) continue
    const reachable = how === '' ? expected : expected.filter((row) => readable.includes(row))
    expectRows(attempted, command === 'update' ? 'changes' : 'removes', reachable, tried.touched)
    const grown = command === 'update' ? 0 : -tried.touched.length
    if (tried.grown !== grown) {
      fail(attempted, `left ${tried.grown} rows more than before instead of ${grown}`)
    }
    if (how === 'returning' && tried.rows.length !== tried.touched.length) {
      fail(attempted, `gave ${tried.rows.length} rows for ${tried.touched.length} changed`)
    }
  }
}

/** No cell allows it: policies do not hold it. */
async function truncates(table: TableRun, role: RoleName): Promise<void> {
  if (!['r', 'p'].includes(table.relation.kind)) return
  const attempted = writing(table, role, 'delete', 'truncate', `truncate ${table.table} cascade`)
  expectDenied(attempted, await run(attempted))
}

function expectInserted(attempted: Try, tried: Tried): void {
  if (tried.error) return fail(attempted, `must insert, found ${said(tried.error)}`)
  if (tried.added.length !== 1 || tried.touched.length > 0 || tried.grown !== 1) {
    fail(
      attempted,
      `must add one row and touch none, found ${tried.added.length} and ${tried.touched.length}`,
    )
  }
}

async function firstColumn({ tx, table }: TableRun): Promise<string> {
  const [row] = await tx.unsafe(
    `select quote_ident(attname) as name from pg_attribute
    where attrelid = '${table}'::regclass and attnum > 0 and not attisdropped order by attnum limit 1`,
  )
  return row?.name
}

function writing(run: TableRun, role: RoleName, command: Command, how: string, statement: string): Try {
  return { run, role, command, how, statement }
}

/** The cells of an exposed table through REST: by the rows that come back, and by the rows that changed. */
import type { Sql } from '../../support/sql.ts'
import { type Command, type RoleName, roles, type TableRules } from '../matrix.ts'
import { fixture, type TableFixture } from './fixture.ts'
import { fixtureOf } from './cells.ts'
import type { Report } from './report.ts'
import { type Ask, isRefused, type RestAnswer, type RestRequest } from './rest.ts'
import { differences, freshRow, keyOf, ownerFor, type Row, rowsOf, seed, strangerTo, within } from './rows.ts'

export interface RestRun {
  admin: Sql
  ask: Ask
  tables: Record<string, TableRules>
  report: Report
}

interface TableRun extends RestRun {
  table: string
  path: string
  fixture: TableFixture
  rules: TableRules
  isView: boolean
  before: Row[]
}

/** Puts the fixture's rows back wherever a cell has changed some. */
export async function restTableCells(run: RestRun, table: string, isView: boolean): Promise<void> {
  const rules = run.tables[table]
  if (!rules) return
  const path = table.slice(table.indexOf('.') + 1)
  const before = await rowsOf(run.admin, table, isView)
  const cells: TableRun = { ...run, table, path, fixture: fixtureOf(table), rules, isView, before }
  await Promise.all(roles.map((role) => reads(cells, role)))
  for (const role of roles) {
    await inserts(cells, role)
    await changes(cells, role, 'update')
    await changes(cells, role, 'delete')
  }
}

async function reads(run: TableRun, role: RoleName): Promise<void> {
  const { ask, path, rules, table, before } = run
  const reach = rules.select[role]
  const fail = failing(run, role, 'select')
  const expected = within(reach, role, before)
  const count = ['count=exact']
  const all = await ask(role, `${path}?select=*`, { prefer: count })
  const head = await ask(role, `${path}?select=*`, { method: 'HEAD', prefer: count })
  // Aggregates are off by default; where they are on, they tell no more than the rows do.
  const aggregate = await ask(role, `${path}?select=count()`)
  if (reach === 'denied') {
    for (const [how, answer] of Object.entries({ all, head, aggregate })) {
      if (!isRefused(answer) && how !== 'aggregate') fail(how, `must be refused, found ${shown(answer)}`)
      if (how === 'aggregate' && answer.status < 400) fail(how, `must be refused, found ${shown(answer)}`)
    }
  } else {
    const keys = new Set(all.rows.map((values) => keyOf(table, values)))
    for (const problem of differences('reads', expected, before.filter(({ key }) => keys.has(key)))) {
      fail('', problem)
    }
    if (all.rows.length !== expected.length) fail('', `gives ${all.rows.length} rows, found ${shown(all)}`)
    if (all.total !== expected.length) fail('count=exact', `says ${all.total} instead of ${expected.length}`)
    if (head.total !== expected.length) fail('head', `says ${head.total} instead of ${expected.length}`)
    if (aggregate.rows.length > 0 && aggregate.rows[0]?.count !== expected.length) {
      fail('count()', `found ${shown(aggregate)}`)
    }
  }
  const hidden = before.filter((row) => !expected.includes(row))
  const asked = hidden.length > 0 ? await ask(role, `${path}?${filterFor(run, hidden)}`) : undefined
  if (asked && asked.rows.length > 0) fail('asked by their keys', `reads ${shown(asked)}`)
  for (const embed of run.fixture.embeds ?? []) await embeds(run, role, embed)
}

/** Rows of other tables that come along are held by the cells of those tables. */
async function embeds(run: TableRun, role: RoleName, select: string): Promise<void> {
  const { admin, ask, path, table, tables } = run
  const fail = failing(run, role, 'select')
  const asked = [table, ...[...select.matchAll(/(\w+)(?:!inner)?\(/g)].map(([, name]) => `public.${name}`)]
  const answer = await ask(role, `${path}?select=${select}`)
  if (asked.some((name) => tables[name]?.select[role] === 'denied')) {
    if (!isRefused(answer)) fail(`embedding ${select}`, `must be refused, found ${shown(answer)}`)
    return
  }
  if (answer.status !== 200) return fail(`embedding ${select}`, `found ${shown(answer)}`)
  const found = rowsIn(table, answer.rows)
  for (const name of new Set(found.map((row) => row.name))) {
    const reached = within(tables[name]?.select[role] ?? 'denied', role, await rowsOf(admin, name, false))
    const keys = new Set(reached.map(({ key }) => key))
    const leaked = found.filter((row) => row.name === name && !keys.has(row.key))
    if (leaked.length > 0) fail(`embedding ${select}`, `shows ${leaked.map(({ key }) => key)} of ${name}`)
  }
  if (!found.some(({ nested }) => nested)) {
    fail(`embedding ${select}`, 'shows nothing embedded, so it proves nothing')
  }
}

/** Every row in the answer with the table it is of, however deep. */
function rowsIn(
  table: string,
  rows: Record<string, unknown>[],
  nested = false,
): { name: string; key: string; nested: boolean }[] {
  return rows.flatMap((row) => [
    { name: table, key: keyOf(table, row), nested },
    ...Object.entries(row).filter(([field, value]) => value !== null && `public.${field}` in fixture).flatMap(
      (
        [field, value],
      ) => rowsIn(`public.${field}`, [value].flat() as Record<string, unknown>[], true),
    ),
  ])
}

async function inserts(run: TableRun, role: RoleName): Promise<void> {
  const { fixture, rules } = run
  const reach = rules.insert[role]
  const own = freshRow(fixture, ownerFor(role))
  const post = (body: unknown, ...prefer: string[]): RestRequest => ({ method: 'POST', body, prefer })
  const tries: [string, RestRequest, boolean][] = [
    ['', post(own, 'return=minimal'), reach !== 'denied'],
    ['returning', post(own, 'return=representation'), reach !== 'denied' && rules.select[role] !== 'denied'],
  ]
  if (fixture.ownerColumn !== undefined && reach !== 'all') {
    tries.push(["naming another as the row's owner", post(freshRow(fixture, strangerTo(role))), false])
  }
  for (const [how, request, may] of tries) {
    const { answer, touched, grown } = await tried(run, role, '', request)
    expectAnswer(run, role, 'insert', how, answer, may)
    if (grown !== (may ? 1 : 0) || touched.length > 0) {
      failing(run, role, 'insert')(how, `left ${grown} more rows and changed ${touched.length}`)
    }
  }
  await upserts(run, role)
}

/** An upsert of a row that exists is an update in disguise, and must not tell that the row exists. */
async function upserts(run: TableRun, role: RoleName): Promise<void> {
  const { fixture, rules } = run
  if (rules.insert[role] !== 'denied' && rules.update[role] === 'all') return
  const mine = fixture.rows.find(({ of }) => of === role) ?? fixture.rows[0]
  const others = fixture.rows.find(({ of }) => of !== role) ?? fixture.rows.at(-1)
  for (
    const [row, resolution] of [
      [mine, 'resolution=merge-duplicates'],
      [others, 'resolution=merge-duplicates'],
      [others, 'resolution=ignore-duplicates'],
    ] as const
  ) {
    const request = { method: 'POST', body: { ...row?.values, ...fixture.change }, prefer: [resolution] }
    const { answer, touched, grown } = await tried(run, role, `on_conflict=${fixture.key}`, request)
    expectAnswer(run, role, 'insert', resolution, answer, false)
    if (grown !== 0 || touched.length > 0) {
      failing(run, role, 'insert')(resolution, `left ${grown} more rows and changed ${touched.length}`)
    }
  }
}

async function changes(run: TableRun, role: RoleName, command: 'update' | 'delete'): Promise<void> {
  const { fixture, rules, table, admin } = run
  const reach = rules[command][role]
  for (const prefer of ['return=minimal', 'return=representation']) {
    if (command === 'delete' && reach !== 'denied') await clearReferences(admin, table)
    const request = command === 'update'
      ? { method: 'PATCH', body: fixture.change, prefer: [prefer] }
      : { method: 'DELETE', prefer: [prefer] }
    // A request without a filter is refused by itself on a hosted project.
    const { answer, before, touched, grown } = await tried(
      run,
      role,
      `${fixture.key[0]}=not.is.null`,
      request,
    )
    const fail = failing(run, role, command)
    expectAnswer(run, role, command, prefer, answer, reach !== 'denied')
    for (const problem of differences('changes', within(reach, role, before), touched)) fail(prefer, problem)
    if (grown !== (command === 'update' ? 0 : -touched.length)) fail(prefer, `left ${grown} more rows`)
    const returned = answer.rows.filter((values) => !touched.some(({ key }) => key === keyOf(table, values)))
    if (returned.length > 0) fail(prefer, `gave back ${returned.length} rows that it did not change`)
  }
}

/** Asks, compares with what the superuser saw before, and puts the rows back if any has changed. */
async function tried(run: TableRun, role: RoleName, query: string, request: RestRequest) {
  const { admin, ask, path, table, isView, before } = run
  const answer = await ask(role, `${path}?${query}`, request)
  const after = await rowsOf(admin, table, isView)
  const remaining = new Set(after.map(({ at }) => at))
  const touched = before.filter(({ at }) => !remaining.has(at))
  const grown = after.length - before.length
  if (answer.status < 400) {
    await seed(admin)
    run.before = await rowsOf(admin, table, isView)
  }
  return { answer, before, touched, grown }
}

function expectAnswer(
  run: TableRun,
  role: RoleName,
  command: Command,
  how: string,
  answer: RestAnswer,
  may: boolean,
): void {
  const fail = failing(run, role, command)
  if (may && answer.status >= 400) fail(how, `must run, found ${shown(answer)}`)
  if (!may && !isRefused(answer)) fail(how, `must be refused with 42501, found ${shown(answer)}`)
  if (!may && /"details":"/.test(answer.body)) fail(how, `the refusal tells a detail: ${answer.body}`)
}

/** What refers to a row would keep it from being deleted. */
async function clearReferences(admin: Sql, table: string): Promise<void> {
  const referring = await admin.unsafe(
    `select conrelid::regclass::text as name from pg_constraint where contype = 'f' and confrelid = '${table}'::regclass`,
  )
  for (const { name } of referring) await admin.unsafe(`delete from ${name}`)
}

function filterFor({ fixture }: TableRun, rows: Row[]): string {
  const keys = rows.map(({ text }) => {
    const values = JSON.parse(text)
    return `and(${fixture.key.map((column) => `${column}.eq.${values[column]}`)})`
  })
  return `or=(${keys})`
}

function failing({ report, table }: TableRun, role: RoleName, command: Command) {
  const cell = `REST ${table} ${command} as ${role}`
  report.ran(cell)
  return (how: string, problem: string) => report.fail(cell, how === '' ? problem : `${how}: ${problem}`)
}

function shown({ status, body }: RestAnswer): string {
  return `${status} ${body.slice(0, 300)}`
}

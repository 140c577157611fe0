/** What a role reads of a table: the rows, how many there are, and what leaks on the way. */
import { type RoleName, roles } from '../matrix.ts'
import { attempt } from './attempt.ts'
import { expectDenied, expectRows, expectRun, fail, run, type TableRun, type Try } from './cells.ts'
import { type Row, within } from './rows.ts'

/**
 * A function that remembers every row it is shown, and is so cheap that the planner would ask it first.
 * A policy must hold rows back from it although it stands in the caller's own WHERE.
 */
export const spy = `
  create schema rls_spy;
  grant usage on schema rls_spy to public;
  create function rls_spy.look(p_row anyelement) returns boolean language plpgsql immutable cost 0.0001 as $$
  begin
      perform pg_catalog.set_config('rls_spy.seen',
          pg_catalog.concat(pg_catalog.current_setting('rls_spy.seen', true), pg_catalog.to_jsonb(p_row), E'\\n'), true);
      return true;
  end $$;
  grant execute on function rls_spy.look(anyelement) to public`

export async function readCells(table: TableRun): Promise<void> {
  for (const role of roles) {
    table.report.ran(`${table.table} select as ${role}`)
    await readsRows(table, role)
    await counts(table, role)
    await locks(table, role)
    await spies(table, role)
    await failsOnCasts(table, role)
    await readsStatistics(table, role)
  }
}

async function readsRows(table: TableRun, role: RoleName): Promise<void> {
  const attempted = reading(table, role, '', `select to_jsonb(t)::text as text from ${table.table} as t`)
  const tried = await run(attempted)
  const reach = table.rules.select[role]
  if (reach === 'denied') return expectDenied(attempted, tried)
  if (!expectRun(attempted, tried, reach)) return
  const texts = tried.rows.map(({ text }) => text as string)
  expectRows(attempted, 'reads', within(reach, role, table.before), shown(table.before, texts))
}

/** Asks of no column, as `select=count()` does. */
async function counts(table: TableRun, role: RoleName): Promise<void> {
  const attempted = reading(table, role, 'count', `select count(*)::integer as count from ${table.table}`)
  const tried = await run(attempted)
  const reach = table.rules.select[role]
  if (reach === 'denied') return expectDenied(attempted, tried)
  if (!expectRun(attempted, tried, reach)) return
  const expected = within(reach, role, table.before).length
  const count = tried.rows[0]?.count
  if (count !== expected) fail(attempted, `counts ${count} rows instead of ${expected}`)
}

/** Locking a row is a write in disguise: whoever may not update may not lock. */
async function locks(table: TableRun, role: RoleName): Promise<void> {
  if (!['r', 'p'].includes(table.relation.kind)) return
  const { select, update } = table.rules
  const statement = `select to_jsonb(t)::text as text from ${table.table} as t for update`
  const attempted = reading(table, role, 'for update', statement)
  const tried = await run(attempted)
  if (select[role] === 'denied' || update[role] === 'denied') return expectDenied(attempted, tried)
  if (!expectRun(attempted, tried, update[role])) return
  const writable = within(update[role], role, table.before)
  const both = within(select[role], role, table.before).filter((row) => writable.includes(row))
  expectRows(attempted, 'locks', both, shown(table.before, tried.rows.map(({ text }) => text as string)))
}

async function spies(table: TableRun, role: RoleName): Promise<void> {
  const reach = table.rules.select[role]
  if (reach === 'denied') return
  const statement = `select from ${table.table} as t where rls_spy.look(t)`
  const { error, seen } = await attempt(table.tx, role, statement, {
    look: (tx) => tx.unsafe(`select current_setting('rls_spy.seen', true) as seen`),
  })
  const attempted = reading(table, role, 'a function in WHERE', statement)
  if (error) return fail(attempted, `found ${error.code} ${error.message}`)
  const texts = String(seen[0]?.seen ?? '').split('\n')
  expectRows(attempted, 'is shown', within(reach, role, table.before), shown(table.before, texts))
}

/** A cast that fails prints the value it failed on. */
async function failsOnCasts(table: TableRun, role: RoleName): Promise<void> {
  const reach = table.rules.select[role]
  if (reach === 'denied') return
  const statement = `select from ${table.table} as t where to_jsonb(t)::text::integer = 1`
  const attempted = reading(table, role, 'a failing cast in WHERE', statement)
  const { error } = await run(attempted)
  const expected = within(reach, role, table.before)
  if (error && !expected.some(({ text }) => error.message.includes(text))) {
    fail(attempted, `the error shows a row that the role may not see: ${error.message}`)
  }
}

async function readsStatistics(table: TableRun, role: RoleName): Promise<void> {
  if (table.rules.select[role] === 'all') return
  const statement = `
    select attname from pg_catalog.pg_stats where format('%I.%I', schemaname, tablename) = '${table.table}'`
  const { rows } = await attempt(table.tx, role, statement)
  if (rows.length > 0) {
    fail(reading(table, role, 'pg_stats', statement), `shows values of ${rows.map((row) => row.attname)}`)
  }
}

function reading(run: TableRun, role: RoleName, how: string, statement: string): Try {
  return { run, role, command: 'select', how, statement }
}

/** The rows that these texts are; a text of no row of the table is nothing that can leak. */
function shown(rows: Row[], texts: string[]): Row[] {
  const found = new Set(texts)
  return rows.filter(({ text }) => found.has(text))
}

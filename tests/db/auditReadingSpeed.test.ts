/** What reading costs in a trail of 200,000 changes over three months, in pages: the count holds on any machine. */
import { beforeAll, describe, expect, test } from 'vitest'
import { freshDatabase } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'

const changes = 200_000

let sql: Sql
let pages: number
let actor: string
let row: string
/** Both near the beginning of the month before this one, so that most of that month is younger. */
let hour: { from: string; to: string }
let days: { from: string; to: string }

beforeAll(async () => {
  const db = await freshDatabase()
  sql = openSql(db.url)
  // Months that are over, with as many changes each, as the trail has them after a while.
  await sql.unsafe(`
    do $$
    declare
        v_month date;
    begin
        for v_month in
            select generate_series(
                date_trunc('month', now() at time zone 'UTC') - interval '3 months',
                date_trunc('month', now() at time zone 'UTC') - interval '1 month', interval '1 month')
        loop
            execute format(
                'create table audit.%I partition of audit.database_changes for values from (%L) to (%L)',
                audit.partition_name(v_month), v_month || ' 00:00+00', (v_month + interval '1 month')::date || ' 00:00+00');
        end loop;
    end;
    $$`)
  await sql.unsafe(`create table public.loads (id uuid primary key, status text, total bigint)`)
  await sql`
    insert into audit.database_changes (
      occurred_at, transaction_id, actor_id, actor_role, request_id, schema_name, table_name, object_identity,
      operation, primary_key, details
    )
    select
      now() - (${changes} - n) * interval '90 days' / ${changes}, n,
      ('00000000-0000-4000-8000-' || lpad((n % 500)::text, 12, '0'))::uuid, 'authenticated', 'request-' || n,
      'public', 'loads', case n % 20 when 0 then 'public.others' else 'public.loads' end,
      case n % 4 when 0 then 'INSERT' else 'UPDATE' end, md5((n / 4)::text)::uuid::text,
      jsonb_build_object('row', jsonb_build_object(
        'old', jsonb_build_object('status', 'placed', 'total', n), 'new', jsonb_build_object(
          'id', md5((n / 4)::text)::uuid, 'status', 'shipped', 'total', n + 1, 'note', repeat('x', 100))))
    from generate_series(1, ${changes}) as n`
  await sql`vacuum analyze audit.database_changes`
  const [facts] = await sql`
    select
      (select sum(pg_relation_size(inhrelid)) / 8192 from pg_inherits
        where inhparent = 'audit.database_changes'::regclass)::int as pages,
      md5('20001')::uuid::text as row,
      to_json(t) #>> '{}' as start, to_json(t + interval '1 hour') #>> '{}' as later,
      to_json(t + interval '2 days') #>> '{}' as much_later
    from (select date_trunc('month', now() - interval '1 month') + interval '1 day') as month (t)`
  pages = facts!.pages
  row = facts!.row
  hour = { from: facts!.start, to: facts!.later }
  days = { from: facts!.start, to: facts!.much_later }
  actor = '00000000-0000-4000-8000-000000000007'
  await sql`insert into public.loads values (${row}, 'shipped', 1)`
  // The first call of a session also reads the catalogs.
  await sql`select * from audit.find_changes('{}', 1)`
  await sql`select * from audit.row_history('public.loads', ${row})`
})

/** Pages that a call has touched, with all statements inside of it, and the rows it gave. */
async function costOf(call: string): Promise<{ touched: number; rows: number }> {
  const [explained] = await sql.unsafe(`explain (analyze, buffers, format json) select * from ${call}`)
  const plan = explained!['QUERY PLAN'][0].Plan
  return {
    touched: plan['Shared Hit Blocks'] + plan['Shared Read Blocks'],
    rows: plan['Actual Rows'],
  }
}

const find = (filters: Record<string, string>, rest = '50') =>
  `audit.find_changes('${JSON.stringify(filters)}', ${rest})`

describe('in a trail of 200,000 changes', () => {
  test('there are some thousand pages', () => {
    expect(pages).toBeGreaterThan(5_000)
  })

  test.each([
    ['the history of a row', () => `audit.row_history('public.loads', '${row}')`, 3, 500],
    ['what became of a row', () => `audit.diff('public.loads', '${row}', '-infinity')`, 3, 500],
    ['one change', () => `audit.diff((select max(id) from audit.database_changes))`, 2, 100],
    ['the first page', () => find({}), 50, 2_000],
    ['the first page of a table', () => find({ table: 'public.others' }), 50, 2_500],
    ['the first page of a person', () => find({ actor }, '20'), 20, 4_000],
    ['all of a key', () => find({ key: row }), 4, 500],
    ['an hour of last month', () => find(hour), 50, 2_500],
    ['an hour of last month, of a table', () => find({ ...hour, table: 'public.others' }), 1, 2_500],
    ['two days of last month', () => find(days), 50, 2_500],
    ['the latest in Studio', () => '(select * from audit.recent_changes limit 100) as latest', 100, 2_000],
    ['a week by table', () => 'audit.changes_by_table', 2, 3_000],
    ['a week by person', () => 'audit.changes_by_person', 500, 6_000],
    ['a page from the middle on', () => find({}, '50, 100000'), 50, 2_000],
    [
      'a page from the middle on, of a table',
      () => find({ table: 'public.others' }, '50, 100000'),
      50,
      2_500,
    ],
  ])('%s is read without reading the rest', async (_, call, rows, most) => {
    const cost = await costOf(call())
    expect(cost.touched).toBeLessThan(most)
    expect(cost.rows).toBeGreaterThanOrEqual(rows)
  })
})

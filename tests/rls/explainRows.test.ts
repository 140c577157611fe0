/** `npm run rls -- --explain` about one row, about values, about large tables, and about what is no plain table. */
import { beforeAll, describe, expect, test } from 'vitest'
import { explain, type ExplainOptions } from '../../tools/rls/explain.ts'
import type { ExplainRequest } from '../../tools/rls/explainArguments.ts'
import type { Command, CommandExplanation } from '../../tools/rls/explanation.ts'
import { freshDatabase } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'

const ada = '00000000-0000-4000-8000-00000000000a'
const grace = '00000000-0000-4000-8000-00000000000b'

let url: string
let sql: Sql

beforeAll(async () => {
  const db = await freshDatabase()
  url = db.url
  sql = openSql(url)
  await sql.unsafe(`
    create table public.papers (
        id int primary key default 100,
        owner uuid default auth.uid(),
        n int not null,
        twice int generated always as (n * 2) stored
    );
    insert into public.papers (id, owner, n) select g, case when g < 4 then '${ada}'::uuid else '${grace}' end, g
        from generate_series(1, 5) as g;
    grant select, insert, update on public.papers to authenticated;
    alter table public.papers enable row level security;
    create policy "Owners see theirs" on public.papers for select to authenticated using (owner = (select auth.uid()));
    create policy "Owners write theirs" on public.papers for insert to authenticated
        with check (owner = (select auth.uid()) and n < 100);
    create policy "Anybody changes small ones" on public.papers for update to authenticated
        using (n < 100) with check (n < 100);
    create table public.parts (a text, b text, primary key (a, b));
    insert into public.parts values ('x', 'y');
    create table public.loose ("a column" text);
    insert into public.loose values ('it''s'), (null);
    grant select on public.parts, public.loose to anon;`)
})

async function ask(
  table: string,
  command: Command,
  as: string,
  more: Partial<ExplainRequest> = {},
): Promise<CommandExplanation> {
  const { commands } = await explain(url, { table, commands: [command], as, ...more })
  return commands[0]!
}

/** What stands in `before` holds for the work alone. */
async function having(before: string, after: string, work: () => Promise<void>): Promise<void> {
  await sql.unsafe(before)
  try {
    await work()
  } finally {
    await sql.unsafe(after)
  }
}

describe('one row', () => {
  test('is reached, or it is not', async () => {
    const own = await ask('papers', 'select', 'ada@example.com', { row: '1' })
    expect(own.verdict).toMatchObject({
      outcome: 'all',
      text: 'Allowed for this row, by "Owners see theirs"',
    })
    const other = await ask('papers', 'select', 'ada@example.com', { row: '4' })
    expect(other.verdict).toMatchObject({
      outcome: 'none',
      rows: { passed: 0, of: 1 },
      stoppedBy: 'Owners see theirs',
    })
    expect(other.verdict.text).toBe(
      'Runs without an error and does not reach this row: "Owners see theirs" does not hold for it',
    )
  })

  test.each([
    ['parts', 'x,y'],
    ['parts', '{"a":"x","b":"y"}'],
    ['parts', '{"b":"y"}'],
    ['loose', `{"a column":"it's"}`],
    ['loose', '{"a column":null}'],
    ['papers', ' {"id":1,"n":1}'],
  ])('of %s is found by %s', async (table, row) => {
    const { rows } = await explain(url, { table, commands: ['select'], as: 'anon', row })
    expect(rows).toEqual({ total: 1 })
  })

  test.each([
    ['papers', '77', /no row 77 in public\.papers$/],
    ['papers', 'seven', /no row seven in public\.papers: invalid input syntax for type integer/],
    ['papers', '', /no row {2}in public\.papers: invalid input syntax/],
    ['parts', 'x', /primary key of public\.parts has 2 columns: a, b/],
    ['loose', 'x', /public\.loose has no primary key/],
    ['loose', '{}', /--row names no column/],
    ['loose', '{"a":1}', /public\.loose has no column a/],
    ['loose', '{"a', /--row is no JSON object/],
  ])('of %s is not found by %j', async (table, row, message) => {
    await expect(ask(table, 'select', 'anon', { row })).rejects.toThrow(message)
  })
})

describe('values', () => {
  test('of an insert are completed by defaults in the name of the caller', async () => {
    const { verdict, notes } = await ask('papers', 'insert', 'grace@example.com', { values: { n: 7 } })
    expect(verdict).toMatchObject({ outcome: 'all', text: 'Allowed for this row, by "Owners write theirs"' })
    expect(notes).toContain(
      'With RETURNING (supabase-js: .select()) the row passes the policies for SELECT as well.',
    )
  })

  test.each([
    [{ n: 7, owner: ada }],
    [{ n: 100 }],
    [{ n: null }],
  ])('%j of an insert are refused', async (values) => {
    const { verdict } = await ask('papers', 'insert', 'grace@example.com', { values })
    expect(verdict).toMatchObject({ outcome: 'refused', stoppedBy: 'Owners write theirs' })
    expect(verdict.text).toBe('Refused with 42501: "Owners write theirs" does not hold for it')
  })

  test('are needed to say whether an insert passes', async () => {
    const { verdict, gates } = await ask('papers', 'insert', 'grace@example.com')
    expect(verdict).toMatchObject({ outcome: 'depends', text: 'Depends on the row: give one with --values' })
    expect(gates[0]?.rows).toEqual({ passed: 2, of: 5 })
  })

  test('of an update are held to WITH CHECK, and one row fails the statement', async () => {
    const refused = await ask('papers', 'update', 'ada@example.com', { values: { n: 100 } })
    expect(refused.verdict).toMatchObject({
      outcome: 'refused',
      stoppedBy: 'check',
      rows: { passed: 3, of: 5 },
    })
    expect(refused.verdict.text).toContain(
      'WITH CHECK does not accept 3 of the 3 rows it reaches with these values',
    )
    expect((await ask('papers', 'update', 'ada@example.com', { values: { n: 99 } })).verdict.outcome).toBe(
      'some',
    )
  })

  test('of an update may not take the row out of sight', async () => {
    const { verdict } = await ask('papers', 'update', 'ada@example.com', {
      values: { owner: grace },
      row: '1',
    })
    expect(verdict).toMatchObject({ outcome: 'refused', stoppedBy: 'select' })
    expect(verdict.text).toContain('the policies for SELECT do not accept this row with these values')
  })

  test('leave generated columns as they are, and say so', async () => {
    const { notes } = await ask('papers', 'update', 'ada@example.com', { values: { n: 9 } })
    expect(notes).toContain('Generated columns are not computed again: twice.')
  })

  test('never take a number from a sequence', async () => {
    await sql.unsafe(`
      create table public.counted (id serial, n int);
      alter table public.counted enable row level security;
      create policy "All may" on public.counted for insert to authenticated with check (true);
      grant insert on public.counted to authenticated;
      grant usage on sequence public.counted_id_seq to authenticated`)
    expect((await ask('counted', 'insert', 'ada@example.com', { values: { n: 1 } })).verdict.outcome).toBe(
      'all',
    )
    const [row] = await sql`select last_value, is_called from public.counted_id_seq`
    expect(row).toEqual({ last_value: '1', is_called: false })
  })

  test.each([
    [{ n: 'many' }, /Cannot read --values: invalid input syntax for type integer/],
    [{ m: 1 }, /public\.papers has no column m/],
  ])('%j are refused as such', async (values, message) => {
    await expect(ask('papers', 'insert', 'ada@example.com', { values })).rejects.toThrow(message)
  })
})

describe('a large table', () => {
  const askLarge = (options: ExplainOptions, table = 'many') =>
    explain(url, { table, commands: ['select'], as: 'ada@example.com' }, options)

  beforeAll(async () => {
    await sql.unsafe(`
      create table public.many (id int primary key, n int);
      insert into public.many select g, g from generate_series(1, 20000) as g;
      analyze public.many;
      grant select on public.many to authenticated;
      alter table public.many enable row level security;
      create policy "Every other" on public.many for select to authenticated using (n % 2 = 0)`)
  })

  test('is asked about in full up to a bound', async () => {
    const { rows, commands } = await askLarge({})
    expect([rows, commands[0]?.verdict.rows]).toEqual([{ total: 20_000 }, { passed: 10_000, of: 20_000 }])
  })

  test('is sampled beyond it', async () => {
    const { rows, commands } = await askLarge({ mostRows: 10_000, sampleRows: 2_000 })
    expect(rows.total).toBe(20_000)
    expect(rows.sampled).toBeGreaterThan(0)
    expect(rows.sampled).toBeLessThan(10_000)
    const { passed = 0, of } = commands[0]?.verdict.rows ?? {}
    expect(of).toBe(rows.sampled)
    expect(commands[0]?.verdict.text).toMatch(/^Allowed for [\d,]+ of [\d,]+ sampled rows, by "Every other"$/)
    expect(passed / rows.sampled!).toBeCloseTo(0.5, 1)
  })

  test('is sampled when its policies are slow, and that is refused when it does not help', async () => {
    await sql.unsafe(`
      create function public.slow() returns boolean language sql as 'select pg_sleep(0.0005) is not null';
      grant execute on function public.slow to authenticated;
      alter policy "Every other" on public.many using (public.slow())`)
    const { rows, commands } = await askLarge({ timeoutMs: 6_000, sampleRows: 1_500 })
    expect(rows.sampled).toBeGreaterThan(0)
    expect(commands[0]?.verdict.outcome).toBe('all')
    await expect(askLarge({ timeoutMs: 100 })).rejects.toMatchObject({
      message: expect.stringContaining('canceling statement due to statement timeout'),
      fix: expect.stringContaining('--row'),
    })
  })
})

describe('what is no plain table', () => {
  test('a view asks in the name of its owner, or of its caller', async () => {
    await sql.unsafe(`
      create view public.all_papers as select * from public.papers;
      create view public.own_papers with (security_invoker = true) as select * from public.papers;
      create materialized view public.counts as select count(*) from public.papers;
      grant select, delete on public.all_papers, public.own_papers, public.counts to authenticated`)
    const all = await ask('all_papers', 'select', 'ada@example.com')
    expect(all.verdict).toMatchObject({ outcome: 'all', text: 'Allowed: 5 rows can be seen' })
    expect(all.layers.at(-1)?.text).toContain('in the name of its owner, postgres')
    const own = await ask('own_papers', 'select', 'ada@example.com')
    expect(own.verdict.text).toBe('Allowed: 3 rows can be seen')
    expect((await ask('counts', 'delete', 'ada@example.com')).verdict).toMatchObject({
      outcome: 'refused',
      text: 'Refused: a materialized view that takes no delete',
    })
    expect((await ask('all_papers', 'select', 'anon')).verdict.stoppedBy).toBe('grant')
  })

  test('a view over what its caller may not read fails', async () => {
    await sql.unsafe(`
      create view public.peek with (security_invoker = true) as select * from public.papers;
      grant select on public.peek to anon`)
    const { verdict } = await ask('peek', 'select', 'anon')
    expect(verdict).toMatchObject({ outcome: 'fails', text: 'Fails: permission denied for table papers' })
  })

  test('a partitioned table and its partitions are asked with their own policies', async () => {
    await sql.unsafe(`
      create table public.log (at int) partition by range (at);
      create table public.log_1 partition of public.log for values from (0) to (10);
      create table public.log_2 partition of public.log for values from (10) to (20);
      insert into public.log select g from generate_series(1, 19) as g;
      grant select on public.log, public.log_1 to anon;
      alter table public.log enable row level security;
      alter table public.log_1 enable row level security;
      create policy "Even ones" on public.log for select to anon using (at % 2 = 0)`)
    expect((await ask('log', 'select', 'anon')).verdict.rows).toEqual({ passed: 9, of: 19 })
    const { verdict, notes } = await ask('log_1', 'select', 'anon')
    expect([verdict.outcome, verdict.rows]).toEqual(['none', { passed: 0, of: 9 }])
    expect(notes[0]).toContain('through public.log')
  })

  test('names and policies with anything in them are explained', async () => {
    await sql.unsafe(`
      create schema "Odd "" schema";
      grant usage on schema "Odd "" schema" to anon;
      create table "Odd "" schema"."a.table's name" ("select" int, "holdfast" text, "A ""b""" text, primary key ("select"));
      insert into "Odd "" schema"."a.table's name" values (1, 'x', 'y'), (2, 'x', 'z');
      grant select on "Odd "" schema"."a.table's name" to anon;
      alter table "Odd "" schema"."a.table's name" enable row level security;
      create policy "It's ""so"" -- \\ $$" on "Odd "" schema"."a.table's name" to anon
          using ("A ""b""" = 'y' and 'it''s \\' <> "holdfast" and exists (
              select from pg_catalog.pg_class where relname = "a.table's name"."holdfast" or true))`)
    for (const name of [`Odd " schema.a.table's name`, `"Odd "" schema"."a.table's name"`]) {
      const { verdict } = await ask(name, 'select', 'anon')
      expect(verdict).toMatchObject({ letThroughBy: [`It's "so" -- \\ $$`], rows: { passed: 1, of: 2 } })
    }
    const one = await ask(`Odd " schema.a.table's name`, 'select', 'anon', { row: '2' })
    expect(one.verdict.outcome).toBe('none')
  })

  test('policies with system columns are asked, but not in sub-selects', () =>
    having(
      `create policy "By its table" on public.parts to anon using (tableoid = 'public.parts'::regclass);
       alter table public.parts enable row level security`,
      'alter table public.parts disable row level security; drop policy "By its table" on public.parts',
      async () => {
        expect((await ask('parts', 'select', 'anon')).verdict).toMatchObject({
          outcome: 'all',
          rows: { passed: 1 },
        })
        await sql`alter policy "By its table" on public.parts using (exists (select where parts.cmin is not null))`
        const { verdict } = await ask('parts', 'select', 'anon')
        expect(verdict.outcome).toBe('unknown')
        expect(verdict.text).toMatch(
          /^Nobody can say: policy "By its table": it cannot be asked by itself: column/,
        )
      },
    ))
})

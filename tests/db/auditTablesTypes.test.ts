/** Columns of every kind of type: a change is told whenever a byte changed, and each value in a form that JSON can hold. */
import { beforeAll, describe, expect, test } from 'vitest'
import { changesOf, gaps, recorded } from '../support/auditProbe.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'

onEachPostgres('the trail', (pg) => {
  let admin: Sql
  let sql: Sql

  beforeAll(async () => {
    const database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    sql = openSql(database.url)
    await sql.unsafe(`
      create type public.mood as enum ('sad', 'happy');
      create type public.pair as (a int, b text);
      create domain public.short as text check (length(value) < 50);
      create domain public.document as json;
      create type public.holder as (document json, n int);
      create collation public.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
  })

  const values: [type: string, before: string, after: string, shownBefore: unknown, shownAfter: unknown][] = [
    ['int[]', `'{1,null,3}'`, `'{1,null,4}'`, [1, null, 3], [1, null, 4]],
    ['public.pair', `row(1, 'a"b')`, `row(1, null)`, { a: 1, b: 'a"b' }, { a: 1, b: null }],
    ['public.pair[]', `array[row(1, 'a')::public.pair]`, `'{}'`, [{ a: 1, b: 'a' }], []],
    ['public.mood', `'sad'`, `'happy'`, 'sad', 'happy'],
    ['public.short', `'a'`, `'b'`, 'a', 'b'],
    ['json', `'{"a": 1,  "b": [null]}'`, `'{"a": 2}'`, { a: 1, b: [null] }, { a: 2 }],
    ['json', `'null'`, 'null', null, null],
    ['jsonb', `'{"a": 1}'`, `'[]'`, { a: 1 }, []],
    ['xml', `'<a/>'`, `'<b>&amp;</b>'`, '<a/>', '<b>&amp;</b>'],
    ['point', `'(1,2)'`, `'(1,3)'`, '(1,2)', '(1,3)'],
    ['bytea', `'\\x00ff'`, `'\\x'`, '\\x00ff', '\\x'],
    ['numeric', `'NaN'`, `'1.10'`, 'NaN', 1.1],
    ['numeric', `1e100`, `'Infinity'`, 1e100, 'Infinity'],
    ['float8', `'-Infinity'`, `'NaN'`, '-Infinity', 'NaN'],
    ['timestamptz', `'infinity'`, `'-infinity'`, 'infinity', '-infinity'],
    ['date', `'infinity'`, `'4713-01-01 BC'`, 'infinity', '4713-01-01 BC'],
    ['interval', `'1 year'`, `'12 months 1 day'`, '1 year', '1 year 1 day'],
    ['time with time zone', `'12:00+02'`, `'11:00+01'`, '12:00:00+02', '11:00:00+01'],
    ['int4range', `'empty'`, `'[1,)'`, 'empty', '[1,)'],
    ['nummultirange', `'{[1,2]}'`, `'{}'`, '{[1,2]}', '{}'],
    ['tsvector', `'a:1'`, `'b:2'`, "'a':1", "'b':2"],
    ['bit(3)', `b'101'`, `b'111'`, '101', '111'],
    ['money', `'1'`, `'2'`, '$1.00', '$2.00'],
    ['cidr', `'10.0.0.0/8'`, `'::/0'`, '10.0.0.0/8', '::/0'],
    ['char(5)', `'a'`, `'b'`, 'a    ', 'b    '],
    ['"char"', `'a'`, `'b'`, 'a', 'b'],
    ['name', `'a'`, `'b'`, 'a', 'b'],
    ['pg_lsn', `'0/1'`, `'0/2'`, '0/1', '0/2'],
    ['regclass', `'pg_class'`, `'pg_type'`, 'pg_class', 'pg_type'],
    ['oidvector', `'1 2'`, `'1 3'`, ['1', '2'], ['1', '3']],
    ['text', `'a\u2028\u0001"\\'`, `'🐘'`, 'a\u2028\u0001"\\', '🐘'],
    // Equal to the type, not to a reader.
    ['text collate public.blind', `'straße'`, `'STRASSE'`, 'straße', 'STRASSE'],
    ['text collate public.blind', `'a'`, `'A'`, 'a', 'A'],
    // What jsonb refuses is kept as text.
    ['json', `'"\\u0000"'`, `'{"\\ud800": 1}'`, '"\\u0000"', '{"\\ud800": 1}'],
    ['json[]', `array['"\\u0000"'::json]`, `array['1'::json]`, expect.anything(), expect.anything()],
    ['public.document', `'"\\u0000"'`, `'{"a": 1}'`, expect.anything(), expect.anything()],
    ['public.holder', `row('"\\u0000"', 1)`, `row('1', 2)`, expect.anything(), expect.anything()],
  ]
  // json is shown another way than all else, so the tables that have some are recorded by other code.
  const hasJson = (type: string) => /json\b|document|holder/.test(type)
  const tableOf = (type: string) => hasJson(type) ? 'public.typed_with_json' : 'public.typed'

  beforeAll(async () => {
    for (const table of ['public.typed', 'public.typed_with_json']) {
      const columns = values.map(([type], i) => tableOf(type) === table ? `v${i} ${type}, ` : '')
      await sql.unsafe(`create table ${table} (id int primary key, ${columns.join('')} n int default 0)`)
    }
  })

  test.each(values.map((value, i) => [...value, i] as const))(
    'shows a %s that was %s and became %s',
    async (type, before, after, wasShown, isShown, i) => {
      const [table, column, ids] = [tableOf(type), `v${i}`, [2 * i, 2 * i + 1]]
      const shown = (row: Record<string, unknown> | undefined) =>
        row && column in row ? row[column] : 'absent'
      await sql.unsafe(`
        insert into ${table} (id, ${column}) values (${ids[0]}, ${before}), (${ids[1]}, ${before});
        update ${table} set n = 1 where id in (${ids});
        update ${table} set ${column} = ${after} where id = ${ids[1]};
        update ${table} set ${column} = ${before} where id = ${ids[1]};
        update ${table} set ${column} = ${after} where id in (${ids});
        delete from ${table} where id in (${ids})`)
      const changes = (await recorded(admin, table)).filter(({ key }) => ids.includes(Number(key)))
      expect(await gaps(admin, table)).toEqual([])
      expect(changes.map(({ operation, details: { row } }) => [operation, shown(row.old), shown(row.new)]))
        .toEqual([
          ['INSERT', 'absent', wasShown],
          ['INSERT', 'absent', wasShown],
          ['UPDATE', 'absent', 'absent'],
          ['UPDATE', 'absent', 'absent'],
          ['UPDATE', wasShown, isShown],
          ['UPDATE', isShown, wasShown],
          ['UPDATE', wasShown, isShown],
          ['UPDATE', wasShown, isShown],
          ['DELETE', isShown, 'absent'],
          ['DELETE', isShown, 'absent'],
        ])
    },
  )

  test('tells 1.0 from 1.00, though they are equal numbers', async () => {
    await sql`create table public.scaled (id int primary key, v numeric)`
    await sql`insert into public.scaled values (1, 1.0)`
    await sql`update public.scaled set v = 1.00`
    const [row] = await admin`
      select details #>> '{row,old,v}' as old, details #>> '{row,new,v}' as new from audit.database_changes
      where table_name = 'scaled' and operation = 'UPDATE'`
    expect(row).toEqual({ old: '1.0', new: '1.00' })
  })

  test('loses no digit and no order to the settings of a session', async () => {
    await sql`create table public.precise (id int primary key, f float8, b bytea, at timestamptz, span interval)`
    await sql.begin(async (tx) => {
      await tx.unsafe(`set local extra_float_digits = -10; set local bytea_output = 'escape';
        set local timezone = 'Asia/Tokyo'; set local intervalstyle = 'iso_8601'; set local datestyle = 'SQL, DMY'`)
        .simple()
      await tx`insert into public.precise values (1, 0.1::float8 + 0.2, '\\x00ff', '2026-01-01 00:00+00', '1 day')`
    })
    const [insert] = await recorded(admin, 'public.precise')
    expect(insert!.details.row.new).toMatchObject({ f: 0.30000000000000004, b: '\\x00ff', span: '1 day' })
    expect(new Date(insert!.details.row.new.at)).toEqual(new Date('2026-01-01T00:00Z'))
  })

  test('leaves out megabytes that did not change', async () => {
    await sql`create table public.toasted (id int primary key, big text, other text, n int)`
    await sql`alter table public.toasted alter column big set storage external`
    await sql`
      insert into public.toasted
      values (1, repeat('a', 4000000), (select string_agg(md5(i::text), '') from generate_series(1, 60000) i), 1)`
    await sql`update public.toasted set n = 2`
    await sql`update public.toasted set big = big || 'b'`
    const [insert, plain, grown] = await recorded(admin, 'public.toasted')
    expect(insert!.details.row.new.big).toHaveLength(4_000_000)
    expect(plain!.details.row).toEqual({ old: { n: 1 }, new: { id: 1, n: 2 } })
    expect(Object.keys(grown!.details.row.new)).toEqual(['id', 'big'])
    expect(grown!.details.row.new.big).toHaveLength(4_000_001)
    const [size] = await admin`
      select pg_column_size(details) as bytes from audit.database_changes where id = ${plain!.id}`
    expect(size!.bytes).toBeLessThan(200)
    expect(await gaps(admin, 'public.toasted')).toEqual([])
  })

  describe('of rows from before a change of the table', () => {
    test('has the default of a column that was added, and nothing of one that was dropped', async () => {
      await sql`create table public.aged (id int primary key, gone text, n int not null)`
      await sql`insert into public.aged values (1, 'x', 1), (2, 'y', 2)`
      await sql`alter table public.aged add column extra text default 'later'`
      await sql`alter table public.aged drop column gone`
      await sql`update public.aged set n = n + 1`
      await sql`update public.aged set extra = 'now' where id = 1`
      await sql`delete from public.aged where id = 2`
      expect((await changesOf(admin, 'public.aged')).slice(2)).toEqual([
        ['UPDATE', '1', { old: { n: 1 }, new: { id: 1, n: 2 } }],
        ['UPDATE', '2', { old: { n: 2 }, new: { id: 2, n: 3 } }],
        ['UPDATE', '1', { old: { extra: 'later' }, new: { id: 1, extra: 'now' } }],
        ['DELETE', '2', { old: { id: 2, n: 3, extra: 'later' } }],
      ])
    })

    test('has null where a column may be null by now', async () => {
      await sql`create table public.loosened (id int primary key, n int not null, v text not null)`
      await sql`insert into public.loosened values (1, 1, 'a'), (2, 2, 'b')`
      await sql`alter table public.loosened alter column n drop not null, alter column v drop not null`
      await sql`update public.loosened set n = null, v = null where id = 1`
      await sql`update public.loosened set n = null, v = null`
      expect((await changesOf(admin, 'public.loosened')).slice(2, 3)).toEqual([
        ['UPDATE', '1', { old: { n: 1, v: 'a' }, new: { id: 1, n: null, v: null } }],
      ])
    })
  })
})

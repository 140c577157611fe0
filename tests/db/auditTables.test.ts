/** Tables with odd names, odd columns and odd keys: each change is recorded with the right key and the right columns. */
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
  })

  describe('of a table with columns named like', () => {
    const names = [
      ...[
        'old',
        'new',
        'row',
        'details',
        'n',
        'o',
        'i',
        'v_claims',
        'v_headers',
        'v_oddities',
        'v_way',
        'tg_op',
        'change',
      ],
      ...[
        'new_rows',
        'old_rows',
        'audit',
        'found',
        'sqlstate',
        'sqlerrm',
        'session_user',
        'select',
        'null',
      ],
      ...[
        'weird "name"',
        'with spaces',
        'ünïcödé 🐘',
        'UPPER',
        '100% %I %s',
        'back\\slash',
        "it's",
        '$code$',
        '{"a":1}',
        ',',
      ],
      ...['clock_timestamp', 'jsonb_build_object', 'p_options', 'position', 'x'.repeat(63)],
    ]
    const ident = (name: string) => `"${name.replaceAll('"', '""')}"`

    beforeAll(async () => {
      const columns = names.map((name) => `${ident(name)} text`)
      await sql.unsafe(`create table public.named (id int primary key, ${columns.join(', ')})`)
      await sql`insert into public.named (id) values (1), (2)`
    })

    test.each(names)('%s is told by it, for one row and for many', async (name) => {
      const before = (await recorded(admin, 'public.named')).length
      await sql.unsafe(`
        update public.named set ${ident(name)} = 'one' where id = 1;
        update public.named set ${ident(name)} = 'both';
        update public.named set ${ident(name)} = null;
        update public.named set id = id`)
      const changes = (await changesOf(admin, 'public.named')).slice(before)
      expect(new Set(changes)).toEqual(
        new Set([
          ['UPDATE', '1', { old: { [name]: null }, new: { id: 1, [name]: 'one' } }],
          ['UPDATE', '1', { old: { [name]: 'one' }, new: { id: 1, [name]: 'both' } }],
          ['UPDATE', '2', { old: { [name]: null }, new: { id: 2, [name]: 'both' } }],
          ['UPDATE', '1', { old: { [name]: 'both' }, new: { id: 1, [name]: null } }],
          ['UPDATE', '2', { old: { [name]: 'both' }, new: { id: 2, [name]: null } }],
          ['UPDATE', '1', { old: {}, new: { id: 1 } }],
          ['UPDATE', '2', { old: {}, new: { id: 2 } }],
        ]),
      )
    })

    test('that, all of them, has each in whole rows', async () => {
      await sql`select audit.enable('public.named', p_whole_row => true)`
      await sql.unsafe(
        `update public.named set ${names.map((name) => `${ident(name)} = 'whole'`).join(', ')}`,
      )
      await sql.unsafe(`delete from public.named`)
      const all = (value: unknown) => Object.fromEntries(names.map((name) => [name, value]))
      const row = (id: number) => ({ old: { id, ...all(null) }, new: { id, ...all('whole') } })
      expect(new Set((await changesOf(admin, 'public.named')).slice(-4, -2)))
        .toEqual(new Set([['UPDATE', '1', row(1)], ['UPDATE', '2', row(2)]]))
    })
  })

  test('of a table with a column named as the generated code names one of its own has it', async () => {
    await sql`create table public.like_ours (id int primary key, "#audit" text)`
    await sql`insert into public.like_ours values (1, 'a'), (2, 'b')`
    await sql`update public.like_ours set "#audit" = 'c'`
    await sql`select audit.enable('public.like_ours', p_whole_row => true)`
    await sql`update public.like_ours set "#audit" = 'd'`
    expect((await changesOf(admin, 'public.like_ours')).slice(2)).toEqual([
      ['UPDATE', '1', { old: { '#audit': 'a' }, new: { id: 1, '#audit': 'c' } }],
      ['UPDATE', '2', { old: { '#audit': 'b' }, new: { id: 2, '#audit': 'c' } }],
      ['UPDATE', '1', { old: { id: 1, '#audit': 'c' }, new: { id: 1, '#audit': 'd' } }],
      ['UPDATE', '2', { old: { id: 2, '#audit': 'c' }, new: { id: 2, '#audit': 'd' } }],
    ])
  })

  test.each([
    ['a name of 63 characters', 'public', 'x'.repeat(63)],
    ['the same first 60 characters as another', 'public', `${'x'.repeat(60)}yyy`],
    ['a name that needs quotes', 'public', 'Weird "Table"; drop table x; --'],
    ['a name in unicode', 'public', 'täble 🐘'],
    ['a name with %', 'public', '100% %s %I %L'],
    ['the name of a transition table', 'public', 'new_rows'],
    ['a keyword as its name', 'public', 'select'],
    ['a schema of 63 characters', 's'.repeat(63), 't'.repeat(63)],
    ['a schema that needs quotes', 'My "Schema"', 'My.Table'],
  ])('of a table with %s is told by schema, table and identity', async (_, schema, table) => {
    await sql`create schema if not exists ${sql(schema)}`
    const name = `"${schema.replaceAll('"', '""')}"."${table.replaceAll('"', '""')}"`
    await sql.unsafe(`create table ${name} (id int primary key, note text)`)
    await sql`select audit.enable(${name}::regclass)`
    await sql.unsafe(
      `insert into ${name} values (1, 'one'); update ${name} set note = 'two'; truncate ${name}`,
    )
    const [{ identity }] =
      await sql`select format('%I.%I', ${schema}::text, ${table}::text) as identity` as unknown as [{
        identity: string
      }]
    const changes = await recorded(admin, identity)
    expect(changes.map((change) => [change.schema, change.table, change.operation])).toEqual([
      [schema, table, 'INSERT'],
      [schema, table, 'UPDATE'],
      [schema, table, 'TRUNCATE'],
    ])
    expect(await gaps(admin, identity)).toEqual([])
  })

  test('of a table with 400 columns has those that changed', async () => {
    const columns = Array.from({ length: 399 }, (_, i) => `c${i} text default 'value ${i}'`)
    await sql.unsafe(`create table public.wide (id int primary key, ${columns.join(', ')})`)
    await sql`insert into public.wide (id) values (1), (2)`
    await sql`update public.wide set c0 = 'first', c200 = null, c398 = 'last' where id = 2`
    const [insert, , update] = await recorded(admin, 'public.wide')
    expect(Object.keys(insert!.details.row.new)).toHaveLength(400)
    expect(update!.details.row).toEqual({
      old: { c0: 'value 0', c200: 'value 200', c398: 'value 398' },
      new: { id: 2, c0: 'first', c200: null, c398: 'last' },
    })
    await sql`update public.wide set ${
      sql(Object.fromEntries(Array.from({ length: 399 }, (_, i) => [`c${i}`, 'all'])))
    }`
    const changes = await recorded(admin, 'public.wide')
    expect(changes.slice(3).map(({ details }) => Object.keys(details.row.new).length)).toEqual([400, 400])
  })

  describe('of a table', () => {
    test('without a key has whole rows, or nobody could tell which they were', async () => {
      await sql`create table public.keyless (a int, b text)`
      await sql`insert into public.keyless values (1, 'same'), (1, 'same')`
      await sql`update public.keyless set b = 'changed' where ctid = '(0,1)'`
      await sql`update public.keyless set a = 2`
      await sql`delete from public.keyless where b = 'same'`
      expect(await changesOf(admin, 'public.keyless')).toEqual([
        ['INSERT', null, { new: { a: 1, b: 'same' } }],
        ['INSERT', null, { new: { a: 1, b: 'same' } }],
        ['UPDATE', null, { old: { a: 1, b: 'same' }, new: { a: 1, b: 'changed' } }],
        ['UPDATE', null, { old: { a: 1, b: 'same' }, new: { a: 2, b: 'same' } }],
        ['UPDATE', null, { old: { a: 1, b: 'changed' }, new: { a: 2, b: 'changed' } }],
        ['DELETE', null, { old: { a: 2, b: 'same' } }],
      ])
    })

    test('without columns has its rows', async () => {
      await sql`create table public.columnless ()`
      await sql`insert into public.columnless default values`
      await sql`delete from public.columnless`
      expect(await changesOf(admin, 'public.columnless'))
        .toEqual([['INSERT', null, { new: {} }], ['DELETE', null, { old: {} }]])
    })

    test('with a key of several columns has them in the order of the key', async () => {
      await sql`create table public.composed (b text, n int, a timestamptz, primary key (a, b))`
      await sql`insert into public.composed values ('x, "y"', 1, '2026-01-01 12:00+02')`
      await sql`set timezone = 'Asia/Tokyo'`
      await sql`update public.composed set n = 2`
      await sql`set datestyle = 'German'`
      await sql`delete from public.composed`
      await sql`reset timezone`
      await sql`reset datestyle`
      const changes = await recorded(admin, 'public.composed')
      // The same key whatever the session's settings are.
      expect(new Set(changes.map(({ key }) => key)).size).toBe(1)
      expect(JSON.parse(changes[0]!.key!)).toEqual([expect.stringContaining('2026-01-01T10:00:00'), 'x, "y"'])
    })

    const keys: [type: string, value: string, shown: string][] = [
      ['uuid', `'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'`, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
      ['bytea', `'\\x00ff'`, '\\x00ff'],
      ['text', `'null'`, 'null'],
      ['text', `''`, ''],
      ['numeric', '1.50', '1.50'],
      ['float8', '0.1::float8 + 0.2', '0.30000000000000004'],
      ['date', `'2026-02-01'`, '2026-02-01'],
      ['inet', `'10.0.0.1'`, '10.0.0.1/32'],
      ['int4range', `'[1,5)'`, '[1,5)'],
      ['interval', `'1 day 2 hours'`, '1 day 02:00:00'],
      ['text[]', `'{a,"b c"}'`, '{a,"b c"}'],
    ]
    test.each(keys)('with a key of %s %s shows it the same in every session', async (type, value, shown) => {
      const table = `keyed_${keys.findIndex((key) => key[0] === type && key[1] === value)}`
      await sql.unsafe(`create table public.${table} (id ${type} primary key, n int)`)
      await sql.unsafe(`insert into public.${table} values (${value}, 1)`)
      await sql.begin(async (tx) => {
        await tx.unsafe(`set local datestyle = 'SQL, DMY'; set local intervalstyle = 'iso_8601';
          set local bytea_output = 'escape'; set local extra_float_digits = -5`).simple()
        await tx.unsafe(`update public.${table} set n = 2`)
      })
      expect((await recorded(admin, `public.${table}`)).map(({ key }) => key)).toEqual([shown, shown])
    })

    test('whose keys change has the new one, and the old one among the old values', async () => {
      await sql`create table public.rekeyed (id int primary key deferrable, note text)`
      await sql`insert into public.rekeyed values (1, 'one'), (2, 'two')`
      await sql`update public.rekeyed set id = 3 where id = 1`
      await sql`update public.rekeyed set id = case id when 2 then 3 else 2 end`
      expect((await changesOf(admin, 'public.rekeyed')).slice(2)).toEqual([
        ['UPDATE', '3', { old: { id: 1 }, new: { id: 3 } }],
        ['UPDATE', '3', { old: { id: 2 }, new: { id: 3 } }],
        ['UPDATE', '2', { old: { id: 3 }, new: { id: 2 } }],
      ])
    })

    test('with generated columns and an identity has what they became', async () => {
      await sql`
        create table public.generated (
          id bigint generated always as identity primary key,
          n int, twice int generated always as (n * 2) stored
        )`
      await sql`insert into public.generated (n) values (1)`
      await sql`update public.generated set n = 5`
      expect(await changesOf(admin, 'public.generated')).toEqual([
        ['INSERT', '1', { new: { id: 1, n: 1, twice: 2 } }],
        ['UPDATE', '1', { old: { n: 1, twice: 2 }, new: { id: 1, n: 5, twice: 10 } }],
      ])
    })

    test('that is unlogged is recorded like any other, and a temporary one where it is asked for', async () => {
      await sql`create unlogged table public.unlogged (id int primary key)`
      await sql`insert into public.unlogged values (1)`
      expect(await changesOf(admin, 'public.unlogged')).toEqual([['INSERT', '1', { new: { id: 1 } }]])
      await sql`create temporary table fleeting (id int primary key)`
      await sql`insert into fleeting values (1)`
      await sql`select audit.enable('pg_temp.fleeting')`
      await sql`insert into fleeting values (2)`
      await sql`drop table fleeting`
      const [{ count }] = await admin`
        select count(*)::int from audit.database_changes
        where table_name = 'fleeting' and operation = 'INSERT'` as unknown as [{ count: number }]
      expect(count).toBe(1)
    })
  })
})

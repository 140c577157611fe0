/** The history of a row: audit.row_history and audit.diff, on a trail that the triggers have written. */
import { beforeAll, describe, expect, test } from 'vitest'
import { newAccount, withRequest } from '../support/auditReading.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { asCaller, openSql, type Sql, user } from '../support/sql.ts'

const id = () => crypto.randomUUID()

onEachPostgres('the history of a row', (pg) => {
  let sql: Sql
  let ada: string

  beforeAll(async () => {
    const db = await freshDatabase(pg.major)
    sql = openSql(db.url, { max: 3 })
    ada = await newAccount(openSql(db.adminUrl), 'history@example.com')
    await sql.unsafe(`
      create table public.parcels (
        id uuid primary key, place text, weight numeric, api_token text, checked_at timestamptz
      );
      grant all on public.parcels to authenticated;
      create table public.shelves (aisle integer, "Level" text, content text, primary key (aisle, "Level"));
      create table public.notes (body text);
      create table public.counters (n bigint primary key, hits integer);
    `)
    await sql`
      select audit.enable(t::regclass)
      from unnest('{public.parcels,public.shelves,public.notes,public.counters}'::text[]) as t`
  })

  const parcel = async (values: { id?: string; place?: string; api_token?: string } = {}) => {
    const row = { id: id(), place: 'harbour', api_token: null, ...values }
    await sql`insert into public.parcels ${sql(row)}`
    return row.id
  }
  const history = async (table: string, key: string) => [
    ...await sql`select * from audit.row_history(${table}::text, ${key}::text)`,
  ]
  const operations = async (table: string, key: string) =>
    (await history(table, key)).map(({ operation, primary_key }) => `${operation} ${primary_key}`)

  describe('row_history()', () => {
    test('tells who did what to the row, oldest first, with the request behind it', async () => {
      const key = id()
      const headers = {
        'x-request-id': `request-${key}`,
        'user-agent': 'curl/8',
        'x-function-name': 'parcels',
      }
      await asCaller(sql, user(ada), async (tx) => {
        await withRequest(tx, headers)
        await tx`insert into public.parcels (id, place) values (${key}, 'harbour')`
      })
      await asCaller(
        sql,
        user(ada),
        (tx) => tx`update public.parcels set place = 'ship', weight = 2.50 where id = ${key}`,
      )
      await sql`delete from public.parcels where id = ${key}`

      const [inserted, updated, deleted, ...more] = await history('public.parcels', key)
      expect(more).toEqual([])
      expect(inserted).toMatchObject({
        operation: 'INSERT',
        object_identity: 'public.parcels',
        primary_key: key,
        actor: 'history@example.com',
        actor_id: ada,
        actor_email: 'history@example.com',
        actor_role: 'authenticated',
        request_id: headers['x-request-id'],
        user_agent: 'curl/8',
        function_name: 'parcels',
        changed: null,
        old: null,
        new: { id: key, place: 'harbour', weight: null },
      })
      expect(updated).toMatchObject({
        operation: 'UPDATE',
        changed: ['place', 'weight'],
        old: { place: 'harbour', weight: null },
        new: { id: key, place: 'ship', weight: 2.5 },
        request_id: null,
      })
      expect(deleted).toMatchObject({
        operation: 'DELETE',
        actor: 'postgres',
        actor_id: null,
        actor_email: null,
        actor_role: 'postgres',
        old: { id: key, place: 'ship', weight: 2.5 },
        new: null,
      })
      expect(Number(deleted!.id)).toBeGreaterThan(Number(updated!.id))
      expect(deleted!.occurred_at.getTime()).toBeGreaterThanOrEqual(inserted!.occurred_at.getTime())
    })

    test('takes the key as uuid, text, number or jsonb, and the table as a name or a regclass', async () => {
      const key = await parcel()
      await sql`insert into public.counters values (7, 0)`
      const counts = await sql.unsafe(`
        select
          (select count(*)::int from audit.row_history('public.parcels', '${key}')) as literals,
          (select count(*)::int from audit.row_history('public.parcels', '${key.toUpperCase()}')) as capitals,
          (select count(*)::int from audit.row_history('public.parcels', '${key}'::uuid)) as uuid,
          (select count(*)::int from audit.row_history('public.parcels'::regclass, '${key}')) as regclass,
          (select count(*)::int from audit.row_history('public.parcels'::regclass, '${key}'::text)) as regclass_text,
          (select count(*)::int from audit.row_history('public.parcels', to_jsonb('${key}'::text))) as jsonb,
          (select count(*)::int from audit.row_history('public.counters', 7)) as integer,
          (select count(*)::int from audit.row_history('public.counters', 7::bigint)) as bigint,
          (select count(*)::int from audit.row_history('public.counters', ' 007')) as padded,
          (select sum(n) from (select (audit.row_history('public.parcels', p.id)).id * 0 + 1 as n
            from public.parcels as p where p.id = '${key}') as each)::int as of_a_column`)
      expect(Object.values(counts[0]!)).toEqual(Array(10).fill(1))
    })

    test('of a key of several columns takes an object, an array, or their text, in any spacing', async () => {
      await sql`insert into public.shelves values (3, 'top "left"', 'rope')`
      const rows = await sql`
        select
          (select count(*)::int from audit.row_history(
            'public.shelves', jsonb_build_object('Level', 'top "left"', 'aisle', 3))) as object,
          (select count(*)::int from audit.row_history(
            'public.shelves', jsonb_build_array(3, 'top "left"'))) as array,
          (select count(*)::int from audit.row_history(
            'public.shelves', '[ "3","top \\"left\\"" ]')) as text,
          (select count(*)::int from audit.row_history(
            'public.shelves', '{"aisle": "03", "Level": "top \\"left\\""}')) as padded`
      expect(rows[0]).toEqual({ object: 1, array: 1, text: 1, padded: 1 })
    })

    test.each(['[3]', '[3,"a",4]', '{"aisle": 3}', '3', 'nonsense', '"3"'])(
      'of a key of several columns refuses %s, and says which it has',
      async (key) => {
        await expect(history('public.shelves', key)).rejects.toMatchObject({
          code: '22023',
          message: expect.stringContaining('its key has the columns aisle, Level; received '),
        })
      },
    )

    test('follows the row back over changes of its key, and says where the old key went', async () => {
      const [first, second, third] = [id(), id(), id()]
      await parcel({ id: first })
      await sql`update public.parcels set id = ${second} where id = ${first}`
      await sql`update public.parcels set place = 'ship' where id = ${second}`
      await sql`update public.parcels set id = ${third}, place = 'shop' where id = ${second}`
      expect(await operations('public.parcels', third)).toEqual([
        `INSERT ${first}`,
        `UPDATE ${second}`,
        `UPDATE ${second}`,
        `UPDATE ${third}`,
      ])
      expect(await operations('public.parcels', first)).toEqual([`INSERT ${first}`, `UPDATE ${second}`])
      expect(await operations('public.parcels', second)).toEqual([
        `INSERT ${first}`,
        `UPDATE ${second}`,
        `UPDATE ${second}`,
        `UPDATE ${third}`,
      ])
    })

    test('follows no further than the life of the row that had the key', async () => {
      const [key, other] = [id(), id()]
      await parcel({ id: key, place: 'an earlier row' })
      await sql`delete from public.parcels where id = ${key}`
      await parcel({ id: key })
      await sql`update public.parcels set id = ${other} where id = ${key}`
      expect(await operations('public.parcels', other)).toEqual([`INSERT ${key}`, `UPDATE ${other}`])
    })

    test('ends where keys were swapped to and fro', async () => {
      const [a, b] = [id(), id()]
      await parcel({ id: a })
      for (let swap = 0; swap < 5; swap++) {
        await sql`update public.parcels set id = ${b} where id = ${a}`
        await sql`update public.parcels set id = ${a} where id = ${b}`
      }
      expect(await operations('public.parcels', a)).toEqual([
        `INSERT ${a}`,
        ...Array.from({ length: 5 }, () => [`UPDATE ${b}`, `UPDATE ${a}`]).flat(),
      ])
    })

    test('follows a key of several columns', async () => {
      await sql`insert into public.shelves values (10, 'a', 'rope')`
      await sql`update public.shelves set "Level" = 'b' where aisle = 10`
      expect(await operations('public.shelves', '[10, "b"]')).toEqual([
        'INSERT ["10", "a"]',
        'UPDATE ["10", "b"]',
      ])
    })

    test('ends with the TRUNCATE that took the row', async () => {
      await sql`create table public.crates (n integer primary key)`
      await sql`select audit.enable('public.crates')`
      await sql`insert into public.crates values (1), (2)`
      await sql`delete from public.crates where n = 2`
      await sql`truncate public.crates`
      expect(await operations('public.crates', '1')).toEqual(['INSERT 1', 'TRUNCATE null'])
      expect(await operations('public.crates', '2')).toEqual(['INSERT 2', 'DELETE 2'])
      await sql`insert into public.crates values (1)`
      expect(await operations('public.crates', '1')).toEqual(['INSERT 1', 'INSERT 1'])
    })

    test('of a partitioned table is found by the table and by the partition', async () => {
      await sql.unsafe(`
        create table public.visits (day date, n integer, page text, primary key (day, n)) partition by range (day);
        create table public.visits_may partition of public.visits for values from ('2026-05-01') to ('2026-06-01');
        select audit.enable('public.visits');
        insert into public.visits values ('2026-05-04', 1, 'home');
        update public.visits_may set page = 'shop' where n = 1;`)
      const expected = ['INSERT ["2026-05-04", "1"]', 'UPDATE ["2026-05-04", "1"]']
      expect(await operations('public.visits', '["2026-05-04", 1]')).toEqual(expected)
      expect(await operations('public.visits_may', '["2026-05-04", 1]')).toEqual(expected)
    })

    test('of a table that was dropped or renamed is found by the name it had', async () => {
      await sql.unsafe(`
        create table public."Old Things" (n integer primary key);
        select audit.enable('public."Old Things"');
        insert into public."Old Things" values (1);
        alter table public."Old Things" rename to older_things;
        insert into public.older_things values (2);`)
      expect(await operations('public."Old Things"', '1')).toEqual(['INSERT 1'])
      expect(await operations('public.older_things', '2')).toEqual(['INSERT 2'])
      await sql`drop table public.older_things`
      expect(await operations('public.older_things', '2')).toEqual(['INSERT 2'])
    })

    test('has the events that were recorded of the row under the name of its table', async () => {
      const key = await parcel()
      await sql`select audit.record('parcel.weighed', 'public.parcels', ${key}, null, '{"grams": 7}')`
      expect(await operations('public.parcels', key)).toEqual([`INSERT ${key}`, `EVENT ${key}`])
      expect(await history('public.parcels', key)).toMatchObject([{ action: null }, {
        action: 'parcel.weighed',
      }])
    })

    test('is empty for a key that nothing was recorded of', async () => {
      expect(await history('public.parcels', id())).toEqual([])
    })

    test('refuses what can have no history, instead of answering that nothing happened', async () => {
      await sql`create table private.unaudited (n integer primary key)`
      await sql`insert into public.notes values ('keyless')`
      for (
        const [table, key, code, found] of [
          ['public.parcel', '1', '42P01', 'there is no such table'],
          ['parcels', '1', '42P01', 'there is no such table'],
          ['public.notes', '1', '22023', 'without a primary key'],
          ['private.unaudited', '1', '22023', 'never audited'],
          ['public.parcels', 'no-uuid', '22P02', 'invalid input syntax for type uuid'],
        ] as const
      ) {
        await expect(history(table, key), table).rejects.toMatchObject({
          code,
          message: expect.stringContaining(found),
        })
      }
    })

    test('keeps masked what is masked, and tells that it changed', async () => {
      const key = await parcel({ api_token: 'open sesame' })
      await sql`update public.parcels set api_token = 'another' where id = ${key}`
      const rows = await history('public.parcels', key)
      expect(rows.map((row) => row.changed)).toEqual([null, ['api_token']])
      expect(JSON.stringify(rows)).not.toMatch(/sesame|another/)
      expect([...await sql`select * from audit.diff(${rows[1]!.id})`]).toEqual([
        { column_name: 'api_token', before: '***', after: '***' },
      ])
    })
  })

  describe('diff()', () => {
    const clock = async () => {
      const [row] = await sql<{ now: string }[]>`select clock_timestamp()::text as now`
      return row!.now
    }
    const between = async (key: string, from: string, to: string) => [
      ...await sql`
        select * from audit.diff('public.parcels', ${key}::uuid, ${from}::text::timestamptz, ${to}::text::timestamptz)`,
    ]

    test('of a change shows each column before and after', async () => {
      const key = await parcel()
      await sql`update public.parcels set place = 'ship', weight = 3 where id = ${key}`
      const [inserted, updated] = await history('public.parcels', key)
      expect([
        ...await sql`select * from audit.diff(${inserted!.id}) where before is null and after <> 'null'`,
      ])
        .toEqual([
          { column_name: 'id', before: null, after: key },
          { column_name: 'place', before: null, after: 'harbour' },
        ])
      expect([...await sql`select * from audit.diff(${updated!.id})`]).toEqual([
        { column_name: 'place', before: 'harbour', after: 'ship' },
        { column_name: 'weight', before: null, after: 3 },
      ])
    })

    test('of a change recorded with whole rows shows what changed alone', async () => {
      await sql`select audit.enable('public.counters', p_whole_row => true)`
      await sql`insert into public.counters values (100, 1)`
      await sql`update public.counters set hits = 2 where n = 100`
      const [, updated] = await history('public.counters', '100')
      expect(updated).toMatchObject({ old: { n: 100, hits: 1 }, new: { n: 100, hits: 2 }, changed: ['hits'] })
      expect([...await sql`select * from audit.diff(${updated!.id})`]).toEqual([
        { column_name: 'hits', before: 1, after: 2 },
      ])
    })

    test('between two times leaves out what was changed and changed back', async () => {
      const start = await clock()
      const key = await parcel()
      const stored = await clock()
      await sql`update public.parcels set place = 'ship', weight = 1 where id = ${key}`
      const shipped = await clock()
      await sql`update public.parcels set place = 'harbour' where id = ${key}`
      await sql`update public.parcels set weight = 2 where id = ${key}`
      const returned = await clock()
      await sql`delete from public.parcels where id = ${key}`
      const end = await clock()

      expect(await between(key, stored, returned)).toEqual([{
        column_name: 'weight',
        before: null,
        after: 2,
      }])
      expect(await between(key, shipped, returned)).toEqual([
        { column_name: 'place', before: 'ship', after: 'harbour' },
        { column_name: 'weight', before: 1, after: 2 },
      ])
      expect(await between(key, returned, end)).toMatchObject([
        { column_name: 'api_token' },
        { column_name: 'checked_at' },
        { column_name: 'id', before: key, after: null },
        { column_name: 'place', before: 'harbour', after: null },
        { column_name: 'weight', before: 2, after: null },
      ])
      expect(await between(key, start, end)).toEqual([])
      expect(await between(key, end, end)).toEqual([])
    })

    test('over a TRUNCATE shows what was lost', async () => {
      await sql.unsafe(`
        create table public.bins (n integer primary key, content text);
        select audit.enable('public.bins');
        insert into public.bins values (1, 'rope');
        update public.bins set content = 'cleats';`)
      const from = await clock()
      await sql`truncate public.bins`
      expect([...await sql`select * from audit.diff('public.bins', 1, ${from}::text::timestamptz)`]).toEqual([
        { column_name: 'content', before: 'cleats', after: null },
        { column_name: 'n', before: 1, after: null },
      ])
    })

    test('of a change that is not there says so', async () => {
      await expect(sql`select * from audit.diff(9223372036854775807)`).rejects.toMatchObject({
        code: 'PT404',
        message: 'Cannot show change 9223372036854775807: there is none with this id',
      })
    })
  })
})

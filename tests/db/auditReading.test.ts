/** Who may read the trail, how it is found by filters, and what audit.record writes to it. */
import { beforeAll, describe, expect, test } from 'vitest'
import { adminCaller, newAccount, strangers, withRequest } from '../support/auditReading.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { asCaller, openSql, type Sql, user } from '../support/sql.ts'

const id = () => crypto.randomUUID()

const readings = [
  'select * from audit.find_changes()',
  `select * from audit.by_actor('${id()}')`,
  `select * from audit.by_actor('${id()}'::uuid)`,
  `select * from audit.row_history('public.orders', '${id()}')`,
  `select * from audit.row_history('public.orders'::regclass, '${id()}'::text)`,
  `select * from audit.row_history('public.orders', '${id()}'::uuid)`,
  'select * from audit.diff((select 1::bigint))',
  `select * from audit.diff('public.orders', '${id()}', now() - interval '1 day', now())`,
  `select * from audit.diff('public.orders', '${id()}'::uuid, now() - interval '1 day')`,
]

const views = [
  'changes',
  'recent_changes',
  'changes_by_person',
  'changes_by_table',
  'recent_events',
  'recent_schema_changes',
  'unrecorded',
  'audited_tables',
]

onEachPostgres('reading the trail', (pg) => {
  let sql: Sql
  let platform: Sql

  beforeAll(async () => {
    const db = await freshDatabase(pg.major)
    sql = openSql(db.url, { max: 3 })
    platform = openSql(db.adminUrl)
  })

  const changeIds = async () => {
    const [row] = await sql<
      { last: string }[]
    >`select coalesce(max(id), 0) as last from audit.database_changes`
    return row!.last
  }
  const find = async (filters: Record<string, unknown>, limit = 50, before: string | null = null) => [
    ...await sql`select * from audit.find_changes(${sql.json(filters as never)}, ${limit}, ${before})`,
  ]

  describe('is for admins by their JWT, and for postgres', () => {
    test.each(readings)('%s', async (reading) => {
      const refused = reading.includes('audit.diff((')
        ? asCaller(sql, adminCaller(), (tx) => tx.unsafe(reading.replace('1::bigint', '-1::bigint')))
        : undefined
      if (refused) await expect(refused).rejects.toMatchObject({ code: 'PT404' })
      else await asCaller(sql, adminCaller(), (tx) => tx.unsafe(reading))
      await sql.unsafe(reading.replace('1::bigint', '(select min(id) from audit.database_changes)'))
    })

    describe.each(strangers)('%s', (_, stranger) => {
      test('gets 42501 from every function, and leaves no line', async () => {
        const before = await changeIds()
        for (const reading of readings) {
          await expect(asCaller(sql, stranger, (tx) => tx.unsafe(reading)), reading).rejects.toMatchObject({
            code: '42501',
          })
        }
        expect(await changeIds()).toBe(before)
      })

      test('reaches no view and no table', async () => {
        for (const name of [...views, 'database_changes', 'gaps', 'tables', 'settings']) {
          await expect(asCaller(sql, stranger, (tx) => tx.unsafe(`select from audit.${name}`)), name).rejects
            .toMatchObject({ code: '42501' })
        }
      })
    })

    test('and an admin reaches no view and no table either: functions alone, which record it', async () => {
      for (const name of [...views, 'database_changes', 'gaps', 'tables', 'settings']) {
        await expect(asCaller(sql, adminCaller(), (tx) => tx.unsafe(`select from audit.${name}`)), name)
          .rejects
          .toMatchObject({ code: '42501' })
      }
    })

    test('says what is missing', async () => {
      await expect(asCaller(sql, user(id()), (tx) => tx`select * from audit.find_changes()`)).rejects
        .toMatchObject({
          message: 'Only an admin may read the audit trail; this is the role authenticated',
          hint: expect.stringContaining('app_metadata.role'),
        })
    })

    test('not for service_role by way of another function of the owner', async () => {
      await sql`
        create function private.peek() returns bigint language sql security definer set search_path = ''
        as 'select count(*) from audit.find_changes()'`
      await sql`grant execute on function private.peek() to service_role`
      await expect(asCaller(sql, { role: 'service_role' }, (tx) => tx`select private.peek()`)).rejects
        .toMatchObject({ code: '42501', message: expect.stringContaining('service_role') })
    })

    test.each(['key_text', 'find_change_ids', 'history_ids', 'note_reading', 'email_of', 'users_named'])(
      'with no API role able to call audit.%s',
      async (name) => {
        const rows = await sql`
          select r.rolname from pg_proc as p
          cross join (values ('anon'), ('authenticated'), ('service_role')) as r (rolname)
          where p.pronamespace = 'audit'::regnamespace and p.proname = ${name}
          and has_function_privilege(r.rolname, p.oid, 'execute')`
        expect([...rows]).toEqual([])
      },
    )
  })

  describe('every read by an admin stands in the trail', () => {
    test.each([
      [readings[0]!, { function: 'find_changes', filters: {}, before: null }],
      [readings[3]!, { function: 'row_history', table: 'public.orders' }],
      [readings[7]!, { function: 'diff', table: 'public.orders' }],
    ])('%s', async (reading, metadata) => {
      const admin = id()
      await asCaller(sql, adminCaller(admin), (tx) => tx.unsafe(reading))
      expect(await find({ actor: admin })).toMatchObject([
        { action: 'audit.read', actor_id: admin, details: { event: { metadata } } },
      ])
    })

    test('one by postgres does not: they could read the table itself', async () => {
      const before = await changeIds()
      await sql.unsafe(readings[0]!)
      expect(await changeIds()).toBe(before)
    })

    test('is answered in a transaction that may not write, too', async () => {
      const admin = id()
      const rows = await asCaller(sql, adminCaller(admin), async (tx) => {
        await tx`set transaction read only`
        return await tx`select id from audit.find_changes('{}', 1)`
      })
      expect(rows.length).toBe(1)
    })
  })

  describe('find_changes()', () => {
    test('finds by each filter, and by all of them', async () => {
      const [ada, type, other] = [await newAccount(platform, `${id()}@Example.com`.toLowerCase()), id(), id()]
      await asCaller(sql, user(ada), async (tx) => {
        await withRequest(tx, { 'x-request-id': `request-${type}` })
        await tx`select audit.record('report.made', ${type}, '1')`
      })
      await asCaller(sql, user('a|subject'), (tx) => tx`select audit.record('report.read', ${type}, '1')`)
      await sql`select audit.record('report.read', ${type}, '2')`
      await sql`select audit.record('report.read', ${other}, '1')`
      const [account] = await platform`select email from auth.users where id = ${ada}`
      const keys = async (filters: Record<string, string>) =>
        (await find({ table: type, ...filters })).map((row) =>
          `${row.action} ${row.primary_key} ${row.actor}`
        )
      const [first, second, third] = [
        `report.made 1 ${account!.email}`,
        'report.read 1 a|subject',
        'report.read 2 postgres',
      ]
      expect(await keys({})).toEqual([third, second, first])
      expect(await keys({ key: '1' })).toEqual([second, first])
      expect(await keys({ actor: ada })).toEqual([first])
      expect(await keys({ actor: account!.email.toUpperCase() })).toEqual([first])
      expect(await keys({ actor: 'a|subject' })).toEqual([second])
      expect(await keys({ actor: 'postgres' })).toEqual([third])
      expect(await keys({ actor: 'authenticated' })).toEqual([])
      expect(await keys({ requestId: `request-${type}` })).toEqual([first])
      expect(await keys({ action: 'report.read' })).toEqual([third, second])
      expect(await keys({ operation: 'EVENT', action: 'report.read', key: '2' })).toEqual([third])
      expect(await keys({ operation: 'INSERT' })).toEqual([])
      expect(await keys({ from: new Date(Date.now() + 60_000).toISOString() })).toEqual([])
      expect(await keys({ from: '-infinity', to: 'infinity' })).toEqual([third, second, first])
      expect((await sql`select * from audit.by_actor(${account!.email})`).length).toBe(1)
      expect(
        (await sql`select * from audit.by_actor(${ada}::uuid, now() - interval '1 hour', now(), 5)`).length,
      ).toBe(1)
      expect((await sql`select * from audit.by_actor(${ada}::uuid, now() + interval '1 hour')`).length).toBe(
        0,
      )
    })

    test.each([
      [{ user: 'ada' }, 'user'],
      [{ table: 7 }, 'table'],
      [{ table: null }, 'table'],
      [{ key: '' }, 'key'],
      [{ key: 'x'.repeat(4_001) }, 'key'],
      [{ operation: 'SELECT' }, 'operation'],
      [{ actor: 'nobody@example.com' }, 'actor'],
      [{ from: 'yesterdayish' }, 'from'],
      [{ to: '2026-13-01' }, 'to'],
      [{ from: '2026-01-02', to: '2026-01-02' }, 'to'],
    ])('refuses the filter %j by its name', async (filters, name) => {
      await expect(find(filters)).rejects.toMatchObject({
        code: 'PT400',
        detail: expect.stringContaining(`"path": "${name}"`),
      })
    })

    test.each([0, -1, 10_001])('refuses the limit %d', async (limit) => {
      await expect(find({}, limit)).rejects.toMatchObject({ code: 'PT400' })
    })

    test('pages by id through changes of one moment, of many months, and of ids that do not follow time', async () => {
      const type = id()
      // Four months, ids shuffled over them, three changes a moment: nothing here is as the sequence would have it.
      await sql`
        insert into audit.database_changes (
          id, occurred_at, transaction_id, schema_name, table_name, object_identity, operation, details
        )
        select 1000000000 + (n * 37) % 61, now() - (n / 3) * interval '6 days', 1, 'application', ${type}, ${type}, 'EVENT', '{}'
        from generate_series(0, 60) as n`
      const [{ all } = { all: [] }] = await sql<{ all: string[] }[]>`
        select array_agg(id::text order by id desc) as all from audit.database_changes where object_identity = ${type}`
      for (const limit of [1, 7, 60, 61, 100]) {
        const seen: string[] = []
        for (let before: string | null = null;;) {
          const page: string[] = (await find({ table: type }, limit, before)).map((row) => String(row.id))
          seen.push(...page)
          if (page.length < limit) break
          before = page.at(-1)!
        }
        expect(seen, `pages of ${limit}`).toEqual(all)
      }
    })

    test.each([
      ['a day', 20, 19],
      ['forty days', 60, 20],
      ['what is to come', -1, -2],
      ['from then on', 100, -1],
    ])('of a window of %s gives what lies in it, newest first', async (_, from, to) => {
      const type = id()
      await sql`
        insert into audit.database_changes (
          occurred_at, transaction_id, schema_name, table_name, object_identity, operation, details
        )
        select now() - n * interval '1 day', 1, 'application', ${type}, ${type}, 'EVENT', jsonb_build_object('n', n)
        from generate_series(99, -3, -1) as n`
      const [window] = await sql`
        select to_json(now() - ${from} * interval '1 day' - interval '1 hour') #>> '{}' as from,
          to_json(now() - ${to} * interval '1 day' - interval '1 hour') #>> '{}' as to`
      const found = await find({ table: type, from: window!.from, to: window!.to }, 200)
      const [first, last] = [Math.max(to + 1, -3), Math.min(from, 99)]
      expect(found.map((row) => row.details.n)).toEqual(
        Array.from({ length: last - first + 1 }, (_, i) => first + i),
      )
    })
  })
})

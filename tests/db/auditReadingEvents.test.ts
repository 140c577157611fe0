/** Events of audit.record, and the views that Studio shows. */
import { beforeAll, describe, expect, test } from 'vitest'
import { newAccount, withRequest } from '../support/auditReading.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { asCaller, type Caller, openSql, type Sql, user } from '../support/sql.ts'

const id = () => crypto.randomUUID()

onEachPostgres('events and views of the trail', (pg) => {
  let sql: Sql
  let ada: string

  beforeAll(async () => {
    const db = await freshDatabase(pg.major)
    sql = openSql(db.url, { max: 3 })
    ada = await newAccount(openSql(db.adminUrl), 'ada-of-events@example.com')
  })

  const eventsOf = async (type: string) => [
    ...await sql`select * from audit.changes where object_identity = ${type} order by id`,
  ]

  describe('audit.record()', () => {
    test('returns the id of a line that says who, from where, and what', async () => {
      const type = id()
      const returned = await asCaller(sql, user(ada), async (tx) => {
        await withRequest(tx, {
          'x-request-id': `request-${type}`,
          'x-forwarded-for': '203.0.113.7',
          'user-agent': 'curl/8',
          'x-function-name': 'reports',
        })
        const [row] = await tx`
          select audit.record('report.exported', ${type}, '7', '{"format": ["csv", "pdf"]}', '{"rows": 3}') as id`
        return row!.id
      })
      expect(await eventsOf(type)).toMatchObject([{
        id: returned,
        operation: 'EVENT',
        primary_key: '7',
        action: 'report.exported',
        actor: 'ada-of-events@example.com',
        actor_id: ada,
        actor_role: 'authenticated',
        ip: '203.0.113.7',
        user_agent: 'curl/8',
        request_id: `request-${type}`,
        function_name: 'reports',
        changed: null,
        old: null,
        new: null,
        details: {
          event: {
            action: 'report.exported',
            resource_type: type,
            resource_id: '7',
            changes: { format: ['csv', 'pdf'] },
            metadata: { rows: 3 },
          },
        },
      }])
      const [raw] = await sql`
        select schema_name, table_name from audit.database_changes where id = ${returned}`
      expect(raw).toEqual({ schema_name: 'application', table_name: type })
    })

    test.each<[string, Caller]>([
      ['authenticated', user(crypto.randomUUID())],
      ['service_role', { role: 'service_role' }],
    ])('may be called by %s, and names that role', async (role, caller) => {
      const type = id()
      await asCaller(sql, caller, (tx) => tx`select audit.record('called', ${type})`)
      expect(await eventsOf(type)).toMatchObject([{ actor_role: role, primary_key: null }])
    })

    test('may not be called by anon, which could fill the trail', async () => {
      const type = id()
      await expect(asCaller(sql, { role: 'anon' }, (tx) => tx`select audit.record('called', ${type})`))
        .rejects
        .toMatchObject({ code: '42501' })
      expect(await eventsOf(type)).toEqual([])
    })

    test('believes the claims alone: nobody can say that it was another', async () => {
      const type = id()
      await asCaller(sql, user(ada), (tx) =>
        tx`
          select audit.record('forged', ${type}, null, null,
            ${tx.json({ actor_id: id(), actor: 'somebody@example.com', actor_role: 'postgres' })})`)
      expect(await eventsOf(type)).toMatchObject([{ actor_id: ada, actor_role: 'authenticated' }])
    })

    test('notes a subject that is no UUID beside the event', async () => {
      const type = id()
      await asCaller(sql, user('auth0|7'), (tx) => tx`select audit.record('called', ${type})`)
      expect(await eventsOf(type)).toMatchObject([
        { actor: 'auth0|7', actor_id: null, details: { actor: 'auth0|7', event: { action: 'called' } } },
      ])
    })

    test('is undone with the work it tells of', async () => {
      const type = id()
      const undone = sql.begin(async (tx) => {
        await tx`select audit.record('called', ${type})`
        throw new Error('the work failed')
      })
      await expect(undone).rejects.toThrow('the work failed')
      expect(await eventsOf(type)).toEqual([])
    })

    test.each([
      ['no action', [null, 'report'], 'action must have 1 to 100 characters'],
      ['an empty action', [' ', 'report'], 'action must have 1 to 100 characters'],
      ['an action of 101 characters', ['x'.repeat(101), 'report'], 'action must have 1 to 100 characters'],
      ['no resource type', ['read', null], 'resource_type must have 1 to 100 characters'],
      ['an empty resource type', ['read', ''], 'resource_type must have 1 to 100 characters'],
      [
        'a resource id of 1,001 bytes',
        ['read', 'report', 'x'.repeat(1_001)],
        'resource_id has 1001 bytes, more than the 1000',
      ],
      ['changes of 64 KiB and more', ['read', 'report', null, 'x'.repeat(65_536)], 'changes has 65538 bytes'],
      [
        'metadata of 64 KiB and more',
        ['read', 'report', null, null, 'é'.repeat(40_000)],
        'metadata has 80002 bytes',
      ],
    ])('refuses %s and writes nothing', async (_, [action, type, resource, changes, metadata], message) => {
      const [before] = await sql`select max(id) as id from audit.database_changes`
      const json = (value: string | null | undefined) => value ? sql.json(value) : null
      await expect(sql`
        select audit.record(${action as string}, ${type as string}, ${resource ?? null}, ${json(changes)}, ${
        json(metadata)
      })`)
        .rejects.toMatchObject({ code: 'PT400', message: expect.stringContaining(message) })
      expect([...await sql`select max(id) as id from audit.database_changes`]).toEqual([before])
    })
  })

  describe('the views', () => {
    test('show what happened lately, newest first, by whom and where', async () => {
      await sql`create table public.view_things (n integer primary key, body text)`
      await sql`select audit.enable('public.view_things')`
      await asCaller(sql, user(ada), async (tx) => {
        await tx`reset role`
        await tx`insert into public.view_things values (1, 'a'), (2, 'b')`
        await tx`update public.view_things set body = 'c' where n = 1`
        await tx`delete from public.view_things where n = 2`
      })
      const recent = await sql`
        select operation, primary_key, actor from audit.recent_changes where object_identity = 'public.view_things' limit 3`
      expect([...recent]).toEqual([
        { operation: 'DELETE', primary_key: '2', actor: 'ada-of-events@example.com' },
        { operation: 'UPDATE', primary_key: '1', actor: 'ada-of-events@example.com' },
        { operation: 'INSERT', primary_key: '2', actor: 'ada-of-events@example.com' },
      ])
      const [table] =
        await sql`select * from audit.changes_by_table where object_identity = 'public.view_things'`
      expect(table).toMatchObject({
        changes: '4',
        inserts: '2',
        updates: '1',
        deletes: '1',
        truncates: '0',
        people: '1',
      })
      const [person] = await sql`
        select * from audit.changes_by_person where actor_id = ${ada} and 'public.view_things' = any (tables)`
      expect(person).toMatchObject({ actor: 'ada-of-events@example.com' })
      const [schema] =
        await sql`select * from audit.recent_schema_changes where object = 'public.view_things' limit 1`
      expect(schema).toMatchObject({ command: 'CREATE TABLE', object_type: 'table', actor: 'postgres' })
    })

    test('show events with what was recorded of them', async () => {
      const type = id()
      await sql`select audit.record('mail.sent', ${type}, '9', null, '{"to": "ada"}')`
      expect([...await sql`select * from audit.recent_events where resource_type = ${type}`]).toMatchObject([
        { actor: 'postgres', action: 'mail.sent', resource_id: '9', changes: null, metadata: { to: 'ada' } },
      ])
    })

    test('show nothing that is older than a week', async () => {
      const type = id()
      await sql`
        insert into audit.database_changes (
          occurred_at, transaction_id, actor_id, schema_name, table_name, object_identity, operation, details
        )
        select now() - days * interval '1 day', 1, ${id()}, 'public', ${type}, ${type}, 'UPDATE', '{"row": {"old": {}, "new": {}}}'
        from unnest('{6,8}'::integer[]) as days`
      expect((await sql`select from audit.recent_changes where object_identity = ${type}`).length).toBe(1)
      expect([...await sql`select changes from audit.changes_by_table where object_identity = ${type}`])
        .toEqual([{ changes: '1' }])
      expect((await sql`select from audit.changes_by_person where ${type} = any (tables)`).length).toBe(1)
    })

    test('show every table of the application, and those that nobody audits first', async () => {
      await sql`create table public.view_secrets (n integer, body text)`
      await sql`select audit.enable('public.view_secrets', p_leave_out => '{body}')`
      await sql`create table public.view_left (n integer primary key)`
      await sql`select audit.disable('public.view_left')`
      const rows = await sql`
        select object_identity, audited, leave_out, has_key from audit.audited_tables
        where object_identity like 'public.view\_%'`
      expect([...rows]).toMatchObject([
        { object_identity: 'public.view_left', audited: false, has_key: true },
        { object_identity: 'public.view_secrets', audited: true, leave_out: ['body'], has_key: false },
        { object_identity: 'public.view_things', audited: true, leave_out: [], has_key: true },
      ])
    })

    test('show what could not be recorded, newest first', async () => {
      await sql`select audit.count_gap('public.first', 'UPDATE', '53100', 'disk full')`
      await sql`select audit.count_gap('public.second', 'INSERT', '53100', 'disk full')`
      const rows = await sql`select object_identity, message from audit.unrecorded limit 2`
      expect([...rows]).toEqual([
        { object_identity: 'public.second', message: 'disk full' },
        { object_identity: 'public.first', message: 'disk full' },
      ])
    })
  })
})

/** Everybody's attempts to read, change, forge or switch off the audit trail: all fail, and the trail stays as it is. */
import { beforeAll, describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { gaps, recorded } from '../support/auditProbe.ts'
import { newUser, type SignedIn } from '../support/client.ts'
import { callFunction, orderOf } from '../support/shop.ts'
import { asCaller, type Caller, openSql, type Sql, user } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'

let stack: TestStack
let admin: Sql
let sql: Sql
let customer: SignedIn
let partition: string

beforeAll(async () => {
  stack = await testStack()
  admin = openSql(stack.db.adminUrl)
  sql = openSql(stack.db.url)
  customer = await newUser(stack)
  const placed = await callFunction(stack, '/orders', {
    method: 'POST',
    token: customer.accessToken,
    body: orderOf({ 'ROPE-10': 1 }),
  })
  expect(placed.status).toBe(201)
  const [row] = await admin`select tableoid::regclass::text as name from audit.database_changes limit 1`
  partition = row!.name
})

/** All there is in the trail, and all that writes it. */
async function trail(): Promise<unknown> {
  const [row] = await admin`
    select
      (select md5(string_agg(c::text, ',' order by id)) from audit.database_changes c) as rows,
      (select md5(string_agg(t::text, ',' order by id)) from audit.tables t) as tables,
      (select md5(string_agg(s::text, ',')) from audit.settings s) as settings,
      (select count(*)::int from audit.gaps) as gaps,
      (select count(*)::int from pg_trigger where tgname ~ '^(audit_|append_only)' and tgenabled <> 'D') as triggers,
      (select count(*)::int from pg_event_trigger where evtname like 'audit%' and evtenabled <> 'D') as watchers,
      (select last_value::int from audit.change_ids) as last_id`
  return row
}

const callers = (): [string, Caller][] => [
  ['anon', { role: 'anon' }],
  ['a customer', user(customer.userId)],
  ['an admin', user(crypto.randomUUID(), { app_metadata: { role: 'admin' } })],
  ['service_role', { role: 'service_role' }],
]

const row = `(occurred_at, transaction_id, schema_name, table_name, object_identity, operation, details)
  values (now(), 1, 'public', 'orders', 'public.orders', 'DELETE', '{}')`

const attempts = (): [string, string[]][] => [
  ['read', [
    'select from audit.database_changes',
    `select from ${partition}`,
    'select from audit.database_changes_default',
    'select count(*) from audit.gaps',
    'select from audit.tables',
    'select from audit.settings',
    'copy audit.database_changes to stdout',
    'select last_value from audit.change_ids',
  ]],
  ['forge', [
    `insert into audit.database_changes ${row}`,
    `insert into ${partition} ${row}`,
    `insert into audit.gaps (message) values ('noise')`,
    `select nextval('audit.change_ids')`,
    `select setval('audit.change_ids', 1)`,
    `create trigger forge after insert on public.products for each row execute function audit.record_1()`,
    `create table audit.forged (id int)`,
    `create function audit.writer() returns text language sql as 'select 1'`,
  ]],
  ['change', [
    `update audit.database_changes set actor_id = null`,
    `update ${partition} set details = '{}'`,
    'delete from audit.database_changes',
    `delete from ${partition} where id > 0`,
    'truncate audit.database_changes',
    `truncate ${partition}`,
    'lock table audit.database_changes',
    `insert into audit.database_changes (id) values (1) on conflict do nothing`,
    `update audit.tables set enabled = false`,
    `update audit.settings set retention = '1 month'`,
    `update audit.gaps set seen_at = now()`,
  ]],
  ['switch off', [
    'drop table audit.database_changes',
    `drop table ${partition}`,
    'drop schema audit cascade',
    'alter table public.orders disable trigger audit_insert',
    'alter table public.orders disable trigger all',
    'drop trigger audit_insert on public.orders',
    'drop trigger append_only on audit.database_changes',
    `alter table ${partition} disable row level security`,
    'drop function audit.append_only() cascade',
    'alter function audit.count_gap(text, text, text, text) rename to elsewhere',
    'drop event trigger audit_ddl',
    'alter event trigger audit_ddl disable',
    'set session_replication_role = replica',
    `select audit.disable('public.orders')`,
    'select audit.see_gaps(null)',
    'alter sequence audit.change_ids restart',
    'grant select on audit.database_changes to anon',
    'alter role authenticated bypassrls',
  ]],
]

describe.each(['anon', 'a customer', 'an admin', 'service_role'])('by SQL %s', (name) => {
  test.each(['read', 'forge', 'change', 'switch off'])('cannot %s the trail', async (what) => {
    const caller = callers().find(([each]) => each === name)![1]
    const before = await trail()
    for (const attempt of attempts().find(([each]) => each === what)![1]) {
      await expect(asCaller(sql, caller, (tx) => tx.unsafe(attempt)), attempt).rejects.toMatchObject({
        code: '42501',
      })
    }
    expect(await trail()).toEqual(before)
  })

  test('cannot stand types or tables of its own in the way of the trail', async () => {
    // A temporary schema comes before all others, for types and for tables, unless a function names it last.
    const caller = callers().find(([each]) => each === name)![1]
    await sql`create table if not exists public.open_to_all (id bigint generated always as identity primary key, v text)`
    await sql`grant insert on public.open_to_all to anon, authenticated, service_role`
    const session = openSql(stack.db.url)
    const ranAs = await asCaller(session, caller, async (tx) => {
      await tx.unsafe(`
        create function pg_temp.intrude(pg_catalog.text) returns boolean language plpgsql as
          $$ begin perform set_config('intruder.ran_as', current_user::pg_catalog.text, true); return true; end $$`)
      for (const type of ['uuid', 'inet', 'jsonb']) {
        await tx.unsafe(`create domain pg_temp."${type}" as pg_catalog.text check (pg_temp.intrude(value))`)
      }
      await tx.unsafe('create temp table new_rows (id int)')
      await tx.unsafe('create temp table database_changes (id int)')
      await tx.unsafe(`select set_config('request.headers', '{"x-forwarded-for": "203.0.113.7"}', true)`)
      await tx.unsafe(`insert into public.open_to_all (v) values ('intruded')`)
      return (await tx`select nullif(current_setting('intruder.ran_as', true), '') as role`)[0]!.role
    })
    await session.end()
    expect(ranAs).toBeNull()
    expect((await recorded(admin, 'public.open_to_all')).at(-1)).toMatchObject({
      operation: 'INSERT',
      actorRole: caller.role,
      actorId: caller.claims?.sub ?? null,
      ip: '203.0.113.7',
    })
    expect(await gaps(admin)).toEqual([])
  })
})

describe('by REST', () => {
  const headersOf: [string, () => Record<string, string>][] = [
    ['a guest', () => ({ apikey: localKeys.publishable })],
    [
      'a customer',
      () => ({ apikey: localKeys.publishable, authorization: `Bearer ${customer.accessToken}` }),
    ],
    ['the service', () => ({ apikey: localKeys.secret, authorization: `Bearer ${localKeys.secret}` })],
  ]
  const calls: [method: string, path: string, body?: unknown][] = [
    ['GET', 'database_changes'],
    ['HEAD', 'database_changes'],
    ['GET', 'gaps'],
    ['GET', 'orders?select=*,database_changes(*)'],
    ['POST', 'database_changes', { details: {} }],
    ['PATCH', 'database_changes?id=gt.0', { actor_id: null }],
    ['DELETE', 'database_changes?id=gt.0'],
    ['POST', 'rpc/disable', { p_table: 'public.orders' }],
    ['POST', 'rpc/count_gap', { p_object: 'x', p_operation: 'x', p_sqlstate: 'x', p_message: 'x' }],
    ['POST', 'rpc/see_gaps', { p_note: 'nothing' }],
  ]

  test.each(headersOf)('%s cannot reach the trail', async (_, headers) => {
    const before = await trail()
    for (const [method, path, body] of calls) {
      for (
        const profile of [{} as Record<string, string>, {
          'accept-profile': 'audit',
          'content-profile': 'audit',
        }]
      ) {
        const response = await fetch(`${stack.url}/rest/v1/${path}`, {
          method,
          headers: { ...headers(), ...profile, 'content-type': 'application/json' },
          body: body === undefined ? undefined : JSON.stringify(body),
        })
        await response.body?.cancel()
        expect(response.status, `${method} ${path} ${JSON.stringify(profile)}`).toBeGreaterThanOrEqual(400)
        expect(response.status).toBeLessThan(500)
      }
    }
    expect(await trail()).toEqual(before)
  })
})

describe('the owner', () => {
  const statements = () => [
    'update audit.database_changes set actor_id = null',
    'update audit.database_changes set id = id where id = (select min(id) from audit.database_changes)',
    `update ${partition} set details = '{}' where id > 0`,
    'delete from audit.database_changes',
    `delete from ${partition}`,
    'truncate audit.database_changes',
    `truncate ${partition}`,
    'truncate audit.database_changes_default',
    `with gone as (delete from audit.database_changes returning *) select count(*) from gone`,
    `merge into audit.database_changes c using (values (1)) s (n) on c.id > 0 when matched then delete`,
  ]

  test('cannot change a row of the trail, nor can the superuser by accident', async () => {
    const before = await trail()
    for (const each of [sql, admin]) {
      for (const statement of statements()) {
        await expect(each.unsafe(statement), statement).rejects.toMatchObject({
          code: 'HF451',
          message: expect.stringContaining('the audit trail is append-only'),
        })
      }
    }
    expect(await trail()).toEqual(before)
  })

  test('leaves a line where they take the guard away', async () => {
    const meddling = [
      'disable trigger append_only',
      'enable trigger append_only',
      'disable row level security',
    ]
    for (const what of meddling) await sql.unsafe(`alter table audit.database_changes ${what}`)
    await sql`alter table audit.database_changes enable row level security`
    const told = await admin`
      select details #>> '{ddl,statement}' as statement, actor_role as role from audit.database_changes
      where operation = 'DDL' and object_identity = 'audit.database_changes' order by id desc limit 4`
    for (const what of meddling) {
      expect(told).toContainEqual({
        statement: `alter table audit.database_changes ${what}`,
        role: 'postgres',
      })
    }
  })
})

/** The contract of GET /admin/audit: over real HTTP, on a trail that real requests have written. */
import { beforeAll, describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { demoClient, newUser, type SignedIn } from '../support/client.ts'
import { callFunction, type CallOptions, orderOf } from '../support/shop.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'

let stack: TestStack
let sql: Sql
let admin: SignedIn
let customer: SignedIn

beforeAll(async () => {
  stack = await testStack()
  sql = openSql(stack.db.url)
  admin = await demoClient(stack, 'admin')
  customer = await newUser(stack)
})

const audit = (filters: Record<string, string | number> = {}, options: CallOptions = {}) =>
  callFunction(stack, `/admin/audit?${new URLSearchParams(filters as Record<string, string>)}`, {
    token: admin.accessToken,
    ...options,
  })

async function placeOrder(who: SignedIn = customer): Promise<{ id: string; requestId: string }> {
  const requestId = `order-${crypto.randomUUID()}`
  const { status, json } = await callFunction(stack, '/orders', {
    method: 'POST',
    token: who.accessToken,
    body: orderOf({ 'ROPE-10': 1 }),
    headers: { 'x-request-id': requestId },
  })
  expect(status).toBe(201)
  return { id: json.data.order.id, requestId }
}

describe('GET /admin/audit', () => {
  test('tells an admin who changed what, by which request, and what was there before', async () => {
    const order = await placeOrder()
    await callFunction(stack, `/orders/${order.id}/cancel`, { method: 'POST', token: customer.accessToken })
    const { status, json, headers } = await audit({ table: 'public.orders', key: order.id })
    expect([status, headers.get('cache-control'), headers.get('ratelimit-policy')]).toEqual([
      200,
      'no-store',
      '"admin";q=120;w=60',
    ])
    const [cancelled, placed, ...more] = json.data.changes
    expect(more).toEqual([])
    expect(cancelled).toMatchObject({
      operation: 'UPDATE',
      changed: ['cancelled_at', 'status', 'updated_at'],
      details: { row: { old: { status: 'paid' }, new: { id: order.id, status: 'cancelled' } } },
    })
    expect(placed).toEqual({
      id: expect.stringMatching(/^\d+$/),
      occurredAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      operation: 'INSERT',
      table: 'public.orders',
      key: order.id,
      actor: {
        name: customer.email,
        id: customer.userId,
        email: customer.email,
        role: 'authenticated',
      },
      request: {
        id: order.requestId,
        ip: expect.any(String),
        userAgent: expect.any(String),
        function: 'orders',
      },
      transactionId: expect.stringMatching(/^\d+$/),
      changed: null,
      details: { row: { new: expect.objectContaining({ id: order.id, user_id: customer.userId }) } },
    })
    expect(json.pagination).toEqual({ limit: 50, nextCursor: null, hasMore: false })
  })

  test('finds all that one request did', async () => {
    const order = await placeOrder()
    const { json } = await audit({ requestId: order.requestId })
    const tables = new Set(json.data.changes.map(({ table }: { table: string }) => table))
    expect([...tables].filter((table) => `${table}`.startsWith('public.')).sort()).toEqual([
      'public.order_items',
      'public.orders',
      'public.payments',
      'public.products',
    ])
  })

  test('combines filters, and takes an actor by id, by e-mail, or by role', async () => {
    const buyer = await newUser(stack)
    const order = await placeOrder(buyer)
    await sql`update public.orders set deleted_at = now() where id = ${order.id}`
    const keys = async (filters: Record<string, string>) => {
      const { json } = await audit({ table: 'public.orders', ...filters })
      return json.data.changes.map(({ operation, key }: { operation: string; key: string }) =>
        `${operation} ${key}`
      )
    }
    expect(await keys({ actor: buyer.userId })).toEqual([`INSERT ${order.id}`])
    expect(await keys({ actor: buyer.email.toUpperCase() })).toEqual([`INSERT ${order.id}`])
    expect(await keys({ actor: 'postgres', key: order.id })).toEqual([`UPDATE ${order.id}`])
    expect(await keys({ actor: buyer.email, operation: 'UPDATE' })).toEqual([])
    expect(await keys({ actor: crypto.randomUUID() })).toEqual([])
  })

  test('finds events by their action', async () => {
    const action = `report.exported-${crypto.randomUUID()}`
    await sql`select audit.record(${action}, 'report', '7', null, ${sql.json({ rows: 3 })})`
    const { json } = await audit({ action })
    expect(json.data.changes).toMatchObject([{
      operation: 'EVENT',
      table: 'report',
      key: '7',
      actor: { name: 'postgres', id: null },
      changed: null,
      details: { event: { action, resource_type: 'report', resource_id: '7', metadata: { rows: 3 } } },
    }])
  })

  test('cuts time from inclusive to exclusive', async () => {
    const order = await placeOrder()
    const [row] = await sql`
      select to_json(occurred_at) #>> '{}' as at, to_json(occurred_at + interval '1 us') #>> '{}' as after
      from audit.database_changes where object_identity = 'public.orders' and primary_key = ${order.id}`
    const found = async (filters: Record<string, string>) =>
      (await audit({ table: 'public.orders', key: order.id, ...filters })).json.data.changes.length
    expect(await found({ from: row!.at })).toBe(1)
    expect(await found({ from: row!.after })).toBe(0)
    expect(await found({ to: row!.at })).toBe(0)
    expect(await found({ from: row!.at, to: row!.after })).toBe(1)
    expect(await found({ from: '2026-01-01T00:00:00+02:00' })).toBe(1)
  })

  test('keeps numbers as they were written', async () => {
    const action = crypto.randomUUID()
    await sql`select audit.record(${action}, 'number', null, null, '{"n": 12345678901234567890, "price": 1.10}')`
    const response = await fetch(`${stack.functionsUrl}/admin/audit?action=${action}`, {
      headers: { authorization: `Bearer ${admin.accessToken}` },
    })
    expect(await response.text()).toContain('"metadata":{"n":12345678901234567890,"price":1.10}')
  })

  test('leaves out details above 64 KiB, and says so by null', async () => {
    const action = crypto.randomUUID()
    await sql`
      select audit.record(${action}, 'large', null, ${sql.json({ text: 'x'.repeat(40_000) })},
        ${sql.json({ text: 'y'.repeat(40_000) })})`
    const { json } = await audit({ action })
    expect(json.data.changes).toMatchObject([{ table: 'large', details: null }])
  })

  describe('page by page', () => {
    test('shows each change once, newest first, while others arrive', async () => {
      const type = `page-${crypto.randomUUID()}`
      const record = (n: number) => sql`select audit.record('counted', ${type}, ${String(n)})`
      for (let n = 1; n <= 7; n++) await record(n)
      const seen: string[] = []
      let cursor: string | undefined
      let arriving = 100
      do {
        const { status, json } = await audit({ table: type, limit: 3, ...(cursor && { cursor }) })
        expect(status).toBe(200)
        seen.push(...json.data.changes.map(({ key }: { key: string }) => key))
        expect(json.pagination).toMatchObject({ limit: 3, hasMore: json.pagination.nextCursor !== null })
        cursor = json.pagination.nextCursor ?? undefined
        await record(arriving++)
      } while (cursor !== undefined)
      expect(seen).toEqual(['7', '6', '5', '4', '3', '2', '1'])
    })

    test('refuses a cursor of other filters, and one it has never given', async () => {
      const type = `page-${crypto.randomUUID()}`
      for (let n = 1; n <= 3; n++) await sql`select audit.record('counted', ${type})`
      const cursor = (await audit({ table: type, limit: 1 })).json.pagination.nextCursor
      expect((await audit({ cursor, table: type, limit: 2 })).status).toBe(200)
      const forge = (position: unknown) => btoa(JSON.stringify(position)).replaceAll('=', '')
      const [, question] = JSON.parse(atob(cursor.replaceAll('-', '+').replaceAll('_', '/')))
      for (
        const [forged, message] of [
          [cursor, 'belongs to other filters'],
          [forge(['1', 'deadbeefdeadbeef']), 'belongs to other filters'],
          ...[
            'x',
            '!!!',
            forge([]),
            forge(['1']),
            forge([1, question]),
            forge(['0', question]),
            forge(['-1', question]),
            forge(['9223372036854775808', question]),
            forge(["1' or '1'='1", question]),
            forge(['1', question, 'more']),
            forge({ id: '1' }),
          ].map((one) => [one, 'not a cursor this list has given']),
        ]
      ) {
        const table = forged === cursor ? 'public.orders' : type
        const { status, json } = await audit({ table, cursor: forged })
        expect([status, json.error.code, json.error.details]).toEqual([
          400,
          'VALIDATION_ERROR',
          [{ in: 'query', path: 'cursor', message }],
        ])
      }
    })

    test('gives at most 200 at once', async () => {
      await sql`select audit.record('counted', 'many') from generate_series(1, 230)`
      const { json } = await audit({ table: 'many', limit: 200 })
      expect([json.data.changes.length, json.pagination.hasMore]).toEqual([200, true])
    })
  })

  describe('refuses, naming the filter,', () => {
    test.each([
      ['an unknown filter', { user: 'ada' }, ''],
      ['a limit above 200', { limit: 201 }, 'limit'],
      ['a limit of nothing', { limit: 0 }, 'limit'],
      ['a limit in words', { limit: 'all' }, 'limit'],
      ['an unknown operation', { operation: 'SELECT' }, 'operation'],
      ['an operation in small letters', { operation: 'insert' }, 'operation'],
      ['a time that is none', { from: 'yesterday' }, 'from'],
      ['a time without a zone', { to: '2026-11-01T00:00:00' }, 'to'],
      ['a time before all time', { from: '0000-01-01T00:00:00Z' }, 'from'],
      [
        'a period that ends before it begins',
        { from: '2026-11-02T00:00:00Z', to: '2026-11-01T00:00:00Z' },
        'to',
      ],
      ['an empty table', { table: '' }, 'table'],
      ['a key of 1,001 characters', { key: 'x'.repeat(1_001) }, 'key'],
      ['an e-mail nobody has', { actor: 'nobody@example.com' }, 'actor'],
      ['a NUL', { requestId: 'a\0b' }, 'requestId'],
    ])('%s', async (_, filters, path) => {
      const { status, json } = await audit(filters as Record<string, string>)
      expect([status, json.error.code]).toEqual([400, 'VALIDATION_ERROR'])
      expect(json.error.details).toMatchObject([{ in: 'query', path, message: expect.any(String) }])
      expect(JSON.stringify(json)).not.toMatch(/audit\.|select|pg_|SQLSTATE/i)
    })

    test('a filter given twice', async () => {
      const { status, json } = await callFunction(stack, '/admin/audit?table=a&table=b', {
        token: admin.accessToken,
      })
      expect([status, json.error.details]).toMatchObject([400, [{ in: 'query', path: 'table' }]])
    })

    test.each(["public.orders' or '1'='1", '{"$ne":""}', '%', "'; drop table audit.database_changes; --"])(
      'nothing of %j: it is a name that no table has',
      async (table) => {
        const { status, json } = await audit({ table })
        expect([status, json.data.changes]).toEqual([200, []])
      },
    )
  })
})

describe('the admin function is closed', () => {
  const attempts: [who: string, options: () => CallOptions, status: number, code: string][] = [
    ['nobody', () => ({}), 401, 'UNAUTHENTICATED'],
    ['the publishable key as a token', () => ({ token: localKeys.publishable }), 401, 'UNAUTHENTICATED'],
    ['the secret key', () => ({ headers: { apikey: localKeys.secret } }), 401, 'UNAUTHENTICATED'],
    ['the secret key as a token', () => ({ token: localKeys.secret }), 401, 'UNAUTHENTICATED'],
    [
      'a token with another signature',
      () => ({ token: `${admin.accessToken.slice(0, -6)}AAAAAA` }),
      401,
      'UNAUTHENTICATED',
    ],
    ['a signed-in customer', () => ({ token: customer.accessToken }), 403, 'FORBIDDEN'],
  ]

  test.each(attempts)('to %s', async (_, options, status, code) => {
    const [before] = await sql`select max(id) as id from audit.database_changes`
    const answer = await audit({ table: 'public.orders' }, { token: undefined, ...options() })
    expect([answer.status, answer.json.error.code]).toEqual([status, code])
    expect(answer.json).not.toHaveProperty('data')
    expect([
      ...await sql`select action from audit.changes where id > ${before!.id} and action = 'audit.read'`,
    ]).toEqual([])
  })

  test('to a user who writes it into their own metadata', async () => {
    const user = await newUser(stack)
    await user.client.auth.updateUser({ data: { role: 'admin', app_metadata: { role: 'admin' } } })
    const { data } = await user.client.auth.refreshSession()
    expect((await audit({}, { token: data.session!.access_token })).status).toBe(403)
  })

  test('until the next token to whoever was made an admin, and no longer to whoever had been one', async () => {
    const user = await newUser(stack)
    const platform = openSql(stack.db.adminUrl)
    const setRole = (role: string) =>
      platform`
        update auth.users set raw_app_meta_data = jsonb_build_object('role', ${role}::text)
        where id = ${user.userId}`
    await setRole('admin')
    expect((await audit({}, { token: user.accessToken })).status).toBe(403)
    const { data } = await user.client.auth.refreshSession()
    const promoted = data.session!.access_token
    expect((await audit({}, { token: promoted })).status).toBe(200)
    await setRole('customer')
    expect((await audit({}, { token: promoted })).status).toBe(200)
    const { data: later } = await user.client.auth.refreshSession()
    expect((await audit({}, { token: later.session!.access_token })).status).toBe(403)
  })

  test('to every other method', async () => {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
      const { status, headers } = await audit({}, { method })
      expect([status, headers.get('allow')]).toEqual([405, expect.stringContaining('GET')])
    }
  })
})

describe('a read of the trail', () => {
  test('stands in the trail itself, with who asked for what', async () => {
    const table = `nothing-${crypto.randomUUID()}`
    const { json, headers } = await audit({ table, operation: 'DELETE' })
    expect(json.data.changes).toEqual([])
    const [line, ...more] =
      (await audit({ action: 'audit.read', requestId: headers.get('x-request-id')! })).json.data
        .changes
    expect(more).toEqual([])
    expect(line).toMatchObject({
      operation: 'EVENT',
      table: 'audit.database_changes',
      actor: { email: 'admin@example.com', role: 'authenticated' },
      request: { function: 'admin' },
      details: {
        event: {
          action: 'audit.read',
          metadata: { function: 'find_changes', filters: { table, operation: 'DELETE' }, before: null },
        },
      },
    })
  })

  test('is answered although it cannot be recorded, and leaves a gap', async () => {
    const order = await placeOrder()
    await sql`
      create function audit.break_events() returns trigger language plpgsql as
      $$ begin raise exception 'the disk is full' using errcode = '53100'; end $$`
    await sql`
      create trigger break_events before insert on audit.database_changes
      for each row when (new.operation = 'EVENT') execute function audit.break_events()`
    const { status, json } = await audit({ key: order.id, table: 'public.orders' })
    await sql`drop function audit.break_events() cascade`
    expect([status, json.data.changes.length]).toEqual([200, 1])
    expect([...await sql`select operation, sqlstate, message from audit.gaps order by id desc limit 1`])
      .toEqual([
        { operation: 'EVENT', sqlstate: '53100', message: 'the disk is full' },
      ])
  })
})

describe('while the database is away', () => {
  test('the trail is answered with 503 and Retry-After', async () => {
    const away = await testStack()
    const reader = await demoClient(away, 'admin')
    const control = openSql(away.db.server.adminUrl)
    await control.unsafe(`alter database ${away.db.name} with allow_connections false`)
    await control`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = ${away.db.name} and application_name like 'holdfast%'`
    const { status, json, headers } = await callFunction(away, '/admin/audit', { token: reader.accessToken })
    expect([status, json.error.code, headers.get('retry-after')]).toEqual([503, 'SERVICE_UNAVAILABLE', '1'])
    await control.unsafe(`alter database ${away.db.name} with allow_connections true`)
    expect((await callFunction(away, '/admin/audit', { token: reader.accessToken })).status).toBe(200)
    await away.close()
  })
})

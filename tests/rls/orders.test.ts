/** The deny paths of the shop: by function, by REST and by SQL, each with the proof that nothing was written. */
import { SignJWT, UnsecuredJWT } from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { demoClient, guestClient, newUser, serviceClient, type SignedIn } from '../support/client.ts'
import { callFunction, orderOf, shopState } from '../support/shop.ts'
import { asCaller, type Caller, openSql, type Queries, type Sql, user } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'

let stack: TestStack
let admin: Sql
let sql: Sql
let owner: SignedIn
let other: SignedIn
let orderId: string

beforeAll(async () => {
  stack = await testStack()
  admin = openSql(stack.db.adminUrl)
  sql = openSql(stack.db.url)
  owner = await newUser(stack)
  other = await newUser(stack)
  const placed = await callFunction(stack, '/orders', {
    method: 'POST',
    token: owner.accessToken,
    body: orderOf({ 'ROPE-10': 2 }),
  })
  orderId = placed.json.data.order.id
})

const secret = new TextEncoder().encode(localKeys.jwtSecret)
const claims = () => ({ sub: owner.userId, role: 'authenticated', aud: 'authenticated' })

describe('by function', () => {
  const credentials: [string, () => Promise<Record<string, string>> | Record<string, string>][] = [
    ['no key and no token', () => ({})],
    ['the publishable key alone', () => ({ apikey: localKeys.publishable })],
    ['the publishable key as the bearer', () => ({ authorization: `Bearer ${localKeys.publishable}` })],
    [
      'the secret key, which is nobody',
      () => ({ apikey: localKeys.secret, authorization: `Bearer ${localKeys.secret}` }),
    ],
    ['a tampered token', () => ({ authorization: `Bearer ${owner.accessToken.slice(0, -4)}AAAA` })],
    ['an expired token', async () => ({
      authorization: `Bearer ${await new SignJWT(claims()).setProtectedHeader({ alg: 'HS256' })
        .setExpirationTime('-1m').sign(secret)}`,
    })],
    ['an alg: none token', () => ({
      authorization: `Bearer ${new UnsecuredJWT(claims()).setExpirationTime('1h').encode()}`,
    })],
    ['a token signed by another secret', async () => ({
      authorization: `Bearer ${await new SignJWT(claims()).setProtectedHeader({ alg: 'HS256' })
        .setExpirationTime('1h')
        .sign(new TextEncoder().encode('another-secret-of-at-least-32-characters'))}`,
    })],
    ['a token of the service role', async () => ({
      authorization: `Bearer ${await new SignJWT({ ...claims(), role: 'service_role' }).setProtectedHeader({
        alg: 'HS256',
      })
        .setExpirationTime('1h').sign(secret)}`,
    })],
    ['a good token beside a key that is not ours', () => ({
      apikey: 'sb_publishable_forged',
      authorization: `Bearer ${owner.accessToken}`,
    })],
  ]
  const routes = [
    ['POST', '/orders'],
    ['GET', '/orders'],
    ['GET', '/orders/:id'],
    ['POST', '/orders/:id/cancel'],
    ['DELETE', '/orders/:id'],
  ] as const

  describe.each(credentials)('with %s', (_, headersOf) => {
    test.each(routes)('%s %s is 401 and writes nothing', async (method, path) => {
      const before = await shopState(admin)
      const response = await fetch(stack.functionsUrl + path.replace(':id', orderId), {
        method,
        headers: { ...await headersOf(), 'content-type': 'application/json' },
        body: method === 'POST' ? JSON.stringify(orderOf({ 'ROPE-10': 1 })) : undefined,
      })
      expect([response.status, (await response.json()).error.code]).toEqual([401, 'UNAUTHENTICATED'])
      expect(await shopState(admin)).toEqual(before)
    })
  })

  test("an admin's list is their own orders, not everybody's", async () => {
    const { accessToken } = await demoClient(stack, 'admin')
    const { json } = await callFunction(stack, '/orders', { token: accessToken })
    expect(json.data.orders).toEqual([])
  })
})

describe('by REST', () => {
  test('the owner reads their order with its items and payment', async () => {
    const { data, error } = await owner.client.from('orders')
      .select('id, status, order_items(sku, quantity), payments(status)').eq('id', orderId)
    expect(error).toBeNull()
    expect(data).toMatchObject([{
      id: orderId,
      status: 'paid',
      order_items: [{ sku: 'ROPE-10', quantity: 2 }],
    }])
  })

  test.each(['orders', 'order_items', 'payments'])('another customer finds no row in %s', async (table) => {
    const { data, error, count } = await other.client.from(table).select('*', { count: 'exact' })
    expect([data, error, count]).toEqual([[], null, 0])
  })

  test.each(['orders', 'order_items', 'payments'])('a guest may not read %s', async (table) => {
    const { data, error } = await guestClient(stack).from(table).select('*')
    expect(data).toBeNull()
    expect(error?.code).toBe('42501')
  })

  test('without any key is 401', async () => {
    const response = await fetch(`${stack.url}/rest/v1/products`)
    await response.body?.cancel()
    expect(response.status).toBe(401)
  })

  test('a guest reads what is sold', async () => {
    const { data } = await guestClient(stack).from('products').select('sku')
    expect(data?.length).toBeGreaterThan(0)
  })

  describe('nobody writes', () => {
    const writers: [string, () => SignedIn['client']][] = [
      ['the owner', () => owner.client],
      ['another customer', () => other.client],
      ['a guest', () => guestClient(stack)],
    ]
    const row = () => ({ user_id: owner.userId, status: 'paid', total_minor: 1, currency: 'EUR' })

    test.each(writers)('%s', async (_, client) => {
      const before = await shopState(admin)
      const attempts = await Promise.all([
        client().from('orders').insert(row()),
        client().from('orders').update({ total_minor: 1 }).eq('id', orderId),
        client().from('orders').delete().eq('id', orderId),
        client().from('products').update({ stock: 9_999 }).eq('sku', 'ROPE-10'),
        client().from('products').update({ price_minor: 1 }).eq('sku', 'ROPE-10'),
        client().from('payments').update({ status: 'refunded' }).eq('order_id', orderId),
        client().from('order_items').delete().eq('order_id', orderId),
      ])
      for (const { error } of attempts) expect(error?.code).toBe('42501')
      expect(await shopState(admin)).toEqual(before)
    })

    test.each(writers)('%s, nor calls a private function', async (_, client) => {
      for (const name of ['place_order', 'cancel_order', 'delete_order', 'record_refund', 'order_as_json']) {
        const { data, error } = await client().rpc(name, { p_order_id: orderId })
        expect([name, data]).toEqual([name, null])
        expect(error).not.toBeNull()
      }
    })
  })

  test('the service sees past row level security', async () => {
    const { data } = await serviceClient(stack).from('orders').select('id').eq('id', orderId)
    expect(data).toEqual([{ id: orderId }])
  })
})

describe('by SQL', () => {
  const anon: Caller = { role: 'anon' }
  const refused = { code: '42501' }

  test('each sees their own orders, an admin sees all, deleted ones included', async () => {
    const seen = (caller: Caller) =>
      asCaller(sql, caller, async (tx) => (await tx`select id from public.orders`).map((row) => row.id))
    expect(await seen(user(owner.userId))).toEqual([orderId])
    expect(await seen(user(other.userId))).toEqual([])
    expect(await seen(user(other.userId, { app_metadata: { role: 'admin' } }))).toEqual([orderId])
    expect(await seen(user(other.userId, { user_metadata: { role: 'admin' } }))).toEqual([])
    await expect(seen(anon)).rejects.toMatchObject(refused)
  })

  const writes: [string, (tx: Queries) => Promise<unknown>][] = [
    [
      'insert an order',
      (tx) =>
        tx`insert into public.orders (user_id, status, total_minor, currency) values (auth.uid(), 'paid', 1, 'EUR')`,
    ],
    ['update an order', (tx) => tx`update public.orders set total_minor = 1`],
    ['delete an order', (tx) => tx`delete from public.orders`],
    ['truncate orders', (tx) => tx`truncate public.orders cascade`],
    ['change stock', (tx) => tx`update public.products set stock = 0`],
    [
      'insert a payment',
      (tx) =>
        tx`insert into public.payments (id, order_id, provider_charge_id, status, amount_minor, currency) values (gen_random_uuid(), ${orderId}, 'x', 'succeeded', 1, 'EUR')`,
    ],
    ['change an item', (tx) => tx`update public.order_items set quantity = 1`],
  ]

  describe.each([['anon', () => anon], ['the owner', () => user(owner.userId)], [
    'an admin',
    () => user(other.userId, { app_metadata: { role: 'admin' } }),
  ]] as [string, () => Caller][])('%s may not', (_, caller) => {
    test.each(writes)('%s', async (_, write) => {
      const before = await shopState(admin)
      await expect(asCaller(sql, caller(), write)).rejects.toMatchObject(refused)
      expect(await shopState(admin)).toEqual(before)
    })
  })

  test('anon may call none of the private functions', async () => {
    await expect(asCaller(sql, anon, (tx) => tx`select private.cancel_order(${orderId})`)).rejects
      .toMatchObject(refused)
    await expect(asCaller(sql, anon, (tx) => tx`select private.delete_order(${orderId})`)).rejects
      .toMatchObject(refused)
  })

  test("a private function acts for its caller alone: another's order is PT404", async () => {
    const before = await shopState(admin)
    for (const call of ['cancel_order', 'delete_order']) {
      await expect(
        asCaller(sql, user(other.userId), (tx) => tx.unsafe(`select private.${call}('${orderId}')`)),
      )
        .rejects.toMatchObject({ code: 'PT404' })
    }
    expect(await shopState(admin)).toEqual(before)
  })

  test('bad rows cannot be stored, whoever writes', async () => {
    const bad: [string, string][] = [
      [`update public.products set stock = -1`, 'stock_is_not_negative'],
      [`update public.products set currency = 'eur'`, 'currency_is_iso'],
      [`update public.orders set status = 'shipped'`, 'status_is_known'],
      [`update public.orders set status = 'cancelled'`, 'cancelled_orders_say_when'],
      [`update public.payments set status = 'refunded'`, 'refunds_name_the_providers_refund'],
      [`update public.order_items set quantity = 0`, 'quantity_is_positive'],
    ]
    for (const [statement, constraint] of bad) {
      await expect(admin.unsafe(statement)).rejects.toMatchObject({
        code: '23514',
        constraint_name: constraint,
      })
    }
  })

  test('times are stamped by the database whatever the statement says', async () => {
    await admin`update public.orders set created_at = '2000-01-01', updated_at = '2000-01-01' where id = ${orderId}`
    const [row] = await admin`
      select created_at > '2001-01-01' as created, updated_at > created_at as updated from public.orders where id = ${orderId}`
    expect(row).toEqual({ created: true, updated: true })
  })

  test('deleting an account keeps its orders and makes no write to auth fail', async () => {
    const leaver = await newUser(stack)
    const { json } = await callFunction(stack, '/orders', {
      method: 'POST',
      token: leaver.accessToken,
      body: orderOf({ 'ROPE-10': 1 }),
    })
    await admin`delete from auth.users where id = ${leaver.userId}`
    const [row] = await admin`select user_id from public.orders where id = ${json.data.order.id}`
    expect(row).toEqual({ user_id: null })
  })
})

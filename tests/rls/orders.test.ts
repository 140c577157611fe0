/**
 * The deny paths of the shop that are no cell of the matrix: forged and missing credentials, bad rows, and what holds
 * whoever writes.
 */
import { SignJWT, UnsecuredJWT } from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { newUser, type SignedIn } from '../support/client.ts'
import { callFunction, orderOf, shopState } from '../support/shop.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'

let stack: TestStack
let admin: Sql
let owner: SignedIn
let orderId: string

beforeAll(async () => {
  stack = await testStack()
  admin = openSql(stack.db.adminUrl)
  owner = await newUser(stack)
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

  test('without any key is 401', async () => {
    const response = await fetch(`${stack.url}/rest/v1/products`)
    await response.body?.cancel()
    expect(response.status).toBe(401)
  })
})

describe('by SQL', () => {
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

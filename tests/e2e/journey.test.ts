/** The whole way of a customer, by supabase-js: sign up, sign in, order by function, read under RLS by REST. */
import { beforeAll, expect, test } from 'vitest'
import { guestClient, newUser } from '../support/client.ts'
import { provider } from '../support/shop.ts'
import { type TestStack, testStack } from '../support/stack.ts'

let stack: TestStack

beforeAll(async () => {
  stack = await testStack({ isolates: 2 })
})

test('a customer signs up, signs in, orders, reads, cancels, signs out', async () => {
  const supabase = guestClient(stack)
  const credentials = {
    email: `journey-${crypto.randomUUID()}@example.com`,
    password: 'correct-horse-battery',
  }

  const signUp = await supabase.auth.signUp(credentials)
  expect(signUp.error).toBeNull()
  const signIn = await supabase.auth.signInWithPassword(credentials)
  expect(signIn.error).toBeNull()
  const userId = signIn.data.user?.id

  const products = await supabase.from('products').select('sku, price_minor, stock').eq('sku', 'ANCHOR-4')
    .single()
  expect(products.data).toEqual({ sku: 'ANCHOR-4', price_minor: 3900, stock: 25 })

  const placed = await supabase.functions.invoke('orders', {
    headers: { 'Idempotency-Key': crypto.randomUUID() },
    body: { items: [{ sku: 'ANCHOR-4', quantity: 2 }], payment: { token: 'tok_visa' } },
  })
  expect(placed.error).toBeNull()
  expect(placed.data).toMatchObject({ success: true, data: { order: { status: 'paid', totalMinor: 7800 } } })
  const { order } = placed.data.data

  const read = await supabase.from('orders').select('id, user_id, total_minor, order_items(sku, quantity)')
  expect(read.data).toEqual([{
    id: order.id,
    user_id: userId,
    total_minor: 7800,
    order_items: [{ sku: 'ANCHOR-4', quantity: 2 }],
  }])
  const list = await supabase.functions.invoke('orders?limit=5', { method: 'GET' })
  expect(list.data.data.orders).toEqual([order])

  const cancelled = await supabase.functions.invoke(`orders/${order.id}/cancel`, { method: 'POST' })
  expect(cancelled.data.data).toMatchObject({ order: { status: 'cancelled' }, refund: 'refunded' })
  const stock = await supabase.from('products').select('stock').eq('sku', 'ANCHOR-4').single()
  expect(stock.data).toEqual({ stock: 25 })
  expect(await provider(stack).charges()).toMatchObject([{ amountMinor: 7800, refunded: true }])

  const removed = await supabase.functions.invoke(`orders/${order.id}`, { method: 'DELETE' })
  expect(removed.error).toBeNull()
  expect((await supabase.from('orders').select('id')).data).toEqual([])

  expect((await supabase.auth.signOut()).error).toBeNull()
  const afterwards = await supabase.functions.invoke('orders', { method: 'GET' })
  expect(afterwards.error?.context.status).toBe(401)
})

test('a refresh token gives a session that still orders', async () => {
  const { client } = await newUser(stack)
  const { data, error } = await client.auth.refreshSession()
  expect(error).toBeNull()
  expect(data.session?.access_token).toBeTruthy()
  const answer = await client.functions.invoke('orders', { method: 'GET' })
  expect(answer.data).toMatchObject({ success: true, data: { orders: [] } })
})

test('an error of a function reaches the client of supabase-js with its envelope', async () => {
  const { client } = await newUser(stack)
  const { data, error } = await client.functions.invoke('orders', {
    headers: { 'Idempotency-Key': crypto.randomUUID() },
    body: { items: [{ sku: 'NO-SUCH', quantity: 1 }], payment: { token: 'tok_visa' } },
  })
  expect(data).toBeNull()
  expect(error.context.status).toBe(409)
  expect(await error.context.json()).toMatchObject({
    success: false,
    error: { code: 'CONFLICT', details: { unknownSkus: ['NO-SUCH'] } },
  })
})

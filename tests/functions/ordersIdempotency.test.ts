/** An order is placed and paid once for each key, whatever happens to the client, the isolate or the provider. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { newUser, type SignedIn } from '../support/client.ts'
import { callFunction, orderOf, provider, shopState } from '../support/shop.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'
import { waitFor } from '../support/wait.ts'

let stack: TestStack
let admin: Sql
let customer: SignedIn
let payments: ReturnType<typeof provider>

beforeAll(async () => {
  stack = await testStack({ isolates: 3 })
  admin = openSql(stack.db.adminUrl, { max: 4 })
  payments = provider(stack)
  customer = await newUser(stack)
})

beforeEach(() => payments.behave({ mode: 'ok' }))

const place = (key: string, body: unknown = orderOf({ 'ROPE-10': 1 }), who: SignedIn = customer) =>
  callFunction(stack, '/orders', {
    method: 'POST',
    token: who.accessToken,
    body,
    headers: { 'idempotency-key': key },
  })
const newKey = () => crypto.randomUUID()

/** What changed since: orders, payments, stock sold, charges made and how many of them were given back. */
async function changes(): Promise<() => Promise<Record<string, number>>> {
  const [before, known] = [await shopState(admin), (await payments.charges()).length]
  return async () => {
    const after = await shopState(admin)
    const made = (await payments.charges()).slice(known)
    return {
      orders: after.orders - before.orders,
      payments: after.payments - before.payments,
      sold: before.stock['ROPE-10']! - after.stock['ROPE-10']!,
      charges: made.length,
      refunded: made.filter(({ refunded }) => refunded).length,
    }
  }
}

const once = { orders: 1, payments: 1, sold: 1, charges: 1, refunded: 0 }

/** Waits until a slow provider has booked the charge and keeps its answer back. */
const charging = () =>
  waitFor(async () => (await payments.calls()).at(-1)?.mode === 'slow', { what: 'the charge to be booked' })

const endLeases = () =>
  admin`update holdfast.idempotency_keys set leased_until = now() - interval '1 second' where status is null`
const effectsDue = () => admin`update holdfast.compensations set due_at = now() - interval '1 second'`
const undo = (key: string = localKeys.secret) =>
  callFunction(stack, '/orders/compensations', { method: 'POST', headers: { apikey: key } })

test('POST /orders without a key is refused with a link to what a key is, and changes nothing', async () => {
  const change = await changes()
  const response = await fetch(`${stack.functionsUrl}/orders`, {
    method: 'POST',
    headers: { authorization: `Bearer ${customer.accessToken}`, 'content-type': 'application/json' },
    body: JSON.stringify(orderOf({ 'ROPE-10': 1 })),
  })
  const { error } = await response.json()
  expect([response.status, error.code]).toEqual([400, 'IDEMPOTENCY_KEY_REQUIRED'])
  expect(response.headers.get('link')).toContain('rel="describedby"')
  expect(await change()).toMatchObject({ orders: 0, charges: 0 })
})

test('the same key again gets the same order, byte for byte, and nothing is charged again', async () => {
  const [key, change] = [newKey(), await changes()]
  const [first, second] = [await place(key), await place(key)]
  expect([first.status, second.status]).toEqual([201, 201])
  expect(second.json).toEqual(first.json)
  expect(second.headers.get('location')).toBe(first.headers.get('location'))
  expect([first.headers.get('idempotency-replayed'), second.headers.get('idempotency-replayed')]).toEqual([
    null,
    'true',
  ])
  expect(await change()).toEqual(once)
})

test('fifty at once with one key, on three isolates, place one order', async () => {
  const [key, change] = [newKey(), await changes()]
  const answers = await Promise.all(Array.from({ length: 50 }, () => place(key)))
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]))
  expect(new Set(answers.map(({ json }) => json.data.order.id)).size).toBe(1)
  expect(await change()).toEqual(once)
})

test('a declined card stays declined for its key, without asking the provider again, and leaves no duty behind', async () => {
  const [key, change] = [newKey(), await changes()]
  const declined = orderOf({ 'ROPE-10': 1 }, 'tok_declined')
  const first = await place(key, declined)
  const calls = (await payments.calls()).length
  const second = await place(key, declined)
  expect([first.status, second.status, second.json.error.code]).toEqual([402, 402, 'PAYMENT_DECLINED'])
  expect((await payments.calls()).length).toBe(calls)
  expect(await change()).toMatchObject({ orders: 0, charges: 0 })
  const [duties] =
    await admin`select count(*)::int as count from holdfast.compensations where status <> 'undone'`
  expect(duties?.count).toBe(0)
})

test('another order under a used key is refused', async () => {
  const key = newKey()
  await place(key)
  const change = await changes()
  const answer = await place(key, orderOf({ 'ROPE-10': 2 }))
  expect([answer.status, answer.json.error.code]).toEqual([422, 'IDEMPOTENCY_KEY_REUSED'])
  expect(await change()).toMatchObject({ orders: 0, charges: 0 })
})

test('a charge whose answer never came is found again by the retry, not made twice', async () => {
  const [key, change] = [newKey(), await changes()]
  await payments.behave({ mode: 'hang', next: 1 })
  const first = await place(key)
  expect([first.status, first.json.error.code]).toEqual([504, 'UPSTREAM_TIMEOUT'])
  const second = await place(key)
  expect(second.status).toBe(201)
  expect(await change()).toEqual(once)
  // The retry asked for the charge; it did not send one.
  expect((await payments.calls()).at(-1)).toMatchObject({ method: 'GET', path: '/charges' })
})

describe('an isolate that dies between the charge and the order', () => {
  async function dieAfterCharge(key: string): Promise<void> {
    await payments.behave({ mode: 'slow', delayMs: 60_000, next: 1 })
    const pending = place(key)
    await charging()
    for (const { function: name, pid } of stack.host.isolates()) {
      if (name === 'orders') Deno.kill(pid, 'SIGKILL')
    }
    expect((await pending).status).toBe(500)
    await payments.behave({ mode: 'ok' })
  }

  test('leaves the key to the retry once its lease ends: the charge is taken up, the order written', async () => {
    const [key, change] = [newKey(), await changes()]
    await dieAfterCharge(key)
    await endLeases()
    expect((await place(key)).status).toBe(201)
    expect(await change()).toEqual(once)
    await effectsDue()
    expect((await undo()).json.data).toEqual({ undone: 0, failed: 0 })
    expect(await change()).toEqual(once)
  })

  test('and whose client never comes back: the sweep refunds the charge', async () => {
    const [key, change] = [newKey(), await changes()]
    await dieAfterCharge(key)
    await effectsDue()
    expect((await undo()).json.data).toEqual({ undone: 1, failed: 0 })
    expect(await change()).toEqual({ orders: 0, payments: 0, sold: 0, charges: 1, refunded: 1 })
  })

  test('and whose client comes back after the refund: it is charged anew, once', async () => {
    const [key, change] = [newKey(), await changes()]
    await dieAfterCharge(key)
    await effectsDue()
    await undo()
    await endLeases()
    expect((await place(key)).status).toBe(201)
    expect(await change()).toEqual({ ...once, charges: 2, refunded: 1 })
  })
})

test('a client that leaves while it is charged gets its order from the retry', async () => {
  const [key, change] = [newKey(), await changes()]
  const abort = new AbortController()
  await payments.behave({ mode: 'slow', delayMs: 300, next: 1 })
  const left = fetch(`${stack.functionsUrl}/orders`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${customer.accessToken}`,
      'content-type': 'application/json',
      'idempotency-key': key,
    },
    body: JSON.stringify(orderOf({ 'ROPE-10': 1 })),
    signal: abort.signal,
  }).catch(() => undefined)
  await charging()
  abort.abort()
  await left
  const retry = await place(key)
  expect(retry.status).toBe(201)
  expect(await change()).toEqual(once)
})

test('POST /orders/compensations is for the secret key alone', async () => {
  const answers = [await undo(localKeys.publishable), await undo('sb_secret_wrong')]
  expect(answers.map(({ status }) => status)).toEqual([403, 401])
})

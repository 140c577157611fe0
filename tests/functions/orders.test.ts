/** The contract of the function `orders`: over real HTTP, on real PostgreSQL, with the payment provider's ledger beside. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { newUser, type SignedIn } from '../support/client.ts'
import { callFunction, orderOf, provider, shopState } from '../support/shop.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'

let stack: TestStack
let admin: Sql
let customer: SignedIn
let other: SignedIn
let payments: ReturnType<typeof provider>

beforeAll(async () => {
  stack = await testStack()
  admin = openSql(stack.db.adminUrl, { max: 4 })
  payments = provider(stack)
  customer = await newUser(stack)
  other = await newUser(stack)
})

beforeEach(() => payments.behave({ mode: 'ok' }))

const place = (body: unknown, who: SignedIn = customer) =>
  callFunction(stack, '/orders', { method: 'POST', token: who.accessToken, body })
const get = (path: string, who: SignedIn = customer) => callFunction(stack, path, { token: who.accessToken })
const cancel = (id: string, who: SignedIn = customer) =>
  callFunction(stack, `/orders/${id}/cancel`, { method: 'POST', token: who.accessToken })
const remove = (id: string, who: SignedIn = customer) =>
  callFunction(stack, `/orders/${id}`, { method: 'DELETE', token: who.accessToken })

describe('POST /orders', () => {
  test('writes order, items and payment, takes the stock, and charges once', async () => {
    const before = await shopState(admin)
    const { status, json, headers } = await place(orderOf({ 'ROPE-10': 2, 'CLEAT-S': 3 }))
    expect(status).toBe(201)
    const { order } = json.data
    expect(order).toEqual({
      id: expect.stringMatching(/^[\da-f-]{36}$/),
      status: 'paid',
      totalMinor: 2 * 2450 + 3 * 890,
      currency: 'EUR',
      items: [
        { sku: 'CLEAT-S', name: 'Dock cleat, small', quantity: 3, unitPriceMinor: 890 },
        { sku: 'ROPE-10', name: 'Kernmantle rope, 10 m', quantity: 2, unitPriceMinor: 2450 },
      ],
      createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      cancelledAt: null,
    })
    expect(headers.get('location')).toBe(`/functions/v1/orders/${order.id}`)
    const after = await shopState(admin)
    expect(after).toEqual({
      ...before,
      stock: {
        ...before.stock,
        'ROPE-10': before.stock['ROPE-10']! - 2,
        'CLEAT-S': before.stock['CLEAT-S']! - 3,
      },
      orders: before.orders + 1,
      items: before.items + 2,
      payments: before.payments + 1,
    })
    const [payment] = await admin`select * from public.payments where order_id = ${order.id}`
    const charge = (await payments.charges()).find(({ id }) => id === payment?.provider_charge_id)
    expect(charge).toMatchObject({ amountMinor: order.totalMinor, refunded: false })
    expect(payment).toMatchObject({
      status: 'succeeded',
      amount_minor: String(order.totalMinor),
      currency: 'EUR',
    })
  })

  test('adds up a sku that is named twice', async () => {
    const items = [{ sku: 'ROPE-10', quantity: 1 }, { sku: 'ROPE-10', quantity: 2 }]
    const { json } = await place({ items, payment: { token: 'tok_visa' } })
    expect(json.data.order.items).toMatchObject([{ sku: 'ROPE-10', quantity: 3 }])
  })

  describe('changes nothing and charges nothing', () => {
    test.each([
      ['an unknown sku', orderOf({ 'ROPE-10': 1, 'NO-SUCH': 1, 'ALSO-NOT': 1 }), 409, 'CONFLICT', {
        unknownSkus: ['ALSO-NOT', 'NO-SUCH'],
      }],
      ['too little stock', orderOf({ 'ROPE-10': 1, 'FLAG-H': 1, 'LAMP-1': 9 }), 409, 'CONFLICT', {
        insufficientStock: [
          { sku: 'FLAG-H', requested: 1, available: 0 },
          { sku: 'LAMP-1', requested: 9, available: 3 },
        ],
      }],
      ['another currency', { ...orderOf({ 'ROPE-10': 1 }), currency: 'USD' }, 409, 'CONFLICT', {
        currencies: ['EUR'],
        requested: 'USD',
      }],
      ['a declined card', orderOf({ 'ROPE-10': 1 }, 'tok_declined'), 402, 'PAYMENT_DECLINED', {
        reason: 'card_declined',
      }],
    ])('for %s', async (_, body, status, code, details) => {
      const before = [await shopState(admin), await payments.charges()]
      const answer = await place(body)
      expect([answer.status, answer.json.error.code]).toEqual([status, code])
      expect(answer.json.error.details).toEqual(details)
      expect([await shopState(admin), await payments.charges()]).toEqual(before)
    })

    test.each([
      ['no items', { items: [], payment: { token: 'x' } }],
      ['no payment', { items: [{ sku: 'ROPE-10', quantity: 1 }] }],
      ['a quantity of zero', { items: [{ sku: 'ROPE-10', quantity: 0 }], payment: { token: 'x' } }],
      ['a negative quantity', { items: [{ sku: 'ROPE-10', quantity: -1 }], payment: { token: 'x' } }],
      ['half a piece', { items: [{ sku: 'ROPE-10', quantity: 0.5 }], payment: { token: 'x' } }],
      ['a quantity in words', { items: [{ sku: 'ROPE-10', quantity: '1' }], payment: { token: 'x' } }],
      ['a huge quantity', { items: [{ sku: 'ROPE-10', quantity: 1e9 }], payment: { token: 'x' } }],
      ['a price of the caller', {
        items: [{ sku: 'ROPE-10', quantity: 1, unitPriceMinor: 1 }],
        payment: { token: 'x' },
      }],
      ['a customer of the caller', { ...orderOf({ 'ROPE-10': 1 }), userId: 'somebody' }],
      ['a currency in lower case', { ...orderOf({ 'ROPE-10': 1 }), currency: 'eur' }],
      ['101 items', {
        items: Array.from({ length: 101 }, (_, i) => ({ sku: `S${i}`, quantity: 1 })),
        payment: { token: 'x' },
      }],
      ['null', null],
    ])('for %s: 400 that says where', async (_, body) => {
      const before = [await shopState(admin), await payments.charges()]
      const answer = await place(body)
      expect([answer.status, answer.json.error.code]).toEqual([400, 'VALIDATION_ERROR'])
      expect(answer.json.error.details[0]).toMatchObject({ in: 'body', message: expect.any(String) })
      expect([await shopState(admin), await payments.charges()]).toEqual(before)
    })
  })

  describe('when the payment provider', () => {
    test('fails, answers 502 and writes nothing', async () => {
      await payments.behave({ mode: 'fail', status: 500 })
      const before = await shopState(admin)
      const answer = await place(orderOf({ 'ROPE-10': 1 }))
      expect([answer.status, answer.json.error.code]).toEqual([502, 'UPSTREAM_ERROR'])
      expect(await shopState(admin)).toEqual(before)
    })

    test('never answers, gives up with 504 within its five seconds and writes nothing', async () => {
      await payments.behave({ mode: 'hang' })
      const before = await shopState(admin)
      const startedAt = performance.now()
      const answer = await place(orderOf({ 'ROPE-10': 1 }))
      expect([answer.status, answer.json.error.code]).toEqual([504, 'UPSTREAM_TIMEOUT'])
      expect(performance.now() - startedAt).toBeLessThan(8_000)
      expect(await shopState(admin)).toEqual(before)
    })
  })

  test('sells the last pieces once to a crowd, and refunds whoever came too late', async () => {
    const [{ stock }] = await admin<[{ stock: number }]>`
      select stock from public.products where sku = 'LAMP-1'`
    const before = await payments.charges()
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, i) => place(orderOf({ 'LAMP-1': 1 }), i % 2 ? customer : other)),
    )
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(stock)
    expect(answers.filter(({ status }) => status === 409)).toHaveLength(12 - stock)
    const [left] = await admin`select stock from public.products where sku = 'LAMP-1'`
    expect(left?.stock).toBe(0)
    const made = (await payments.charges()).slice(before.length)
    expect(made.filter(({ refunded }) => !refunded)).toHaveLength(stock)
  })

  test('orders that name the same products in opposite order do not deadlock', async () => {
    const [up, down] = [orderOf({ 'CLEAT-S': 1, 'ROPE-10': 1 }), orderOf({ 'ROPE-10': 1, 'CLEAT-S': 1 })]
    const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => place(i % 2 ? up : down)))
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(201))
  })

  test('a price that changes while it is being paid refuses the order and refunds the charge', async () => {
    const known = (await payments.charges()).length
    const before = await shopState(admin)
    await payments.behave({ mode: 'slow', delayMs: 400, next: 1 })
    const pending = place(orderOf({ 'CLEAT-S': 1 }))
    await expect.poll(async () => (await payments.calls()).at(-1)?.mode, { timeout: 3_000 }).toBe('slow')
    await admin`update public.products set price_minor = price_minor + 10 where sku = 'CLEAT-S'`
    const answer = await pending
    await admin`update public.products set price_minor = price_minor - 10 where sku = 'CLEAT-S'`
    expect([answer.status, answer.json.error.details]).toEqual([409, { chargedMinor: 890, totalMinor: 900 }])
    expect(await shopState(admin)).toEqual(before)
    expect((await payments.charges()).slice(known)).toMatchObject([{ refunded: true }])
  })
})

describe('GET /orders', () => {
  let buyer: SignedIn
  let ids: string[]

  beforeAll(async () => {
    buyer = await newUser(stack)
    ids = []
    for (let i = 0; i < 5; i++) {
      ids.unshift((await place(orderOf({ 'ROPE-10': 1 }), buyer)).json.data.order.id)
    }
  })

  const idsOf = (answer: { json: { data: { orders: { id: string }[] } } }) =>
    answer.json.data.orders.map(({ id }) => id)

  test('gives the newest first, by cursor, without gap or repetition, also when one arrives in between', async () => {
    const first = await get('/orders?limit=2', buyer)
    expect(first.json.pagination).toEqual({ limit: 2, nextCursor: expect.any(String), hasMore: true })
    const newcomer = (await place(orderOf({ 'ROPE-10': 1 }), buyer)).json.data.order.id
    const second = await get(`/orders?limit=2&cursor=${first.json.pagination.nextCursor}`, buyer)
    const third = await get(`/orders?limit=2&cursor=${second.json.pagination.nextCursor}`, buyer)
    expect([first, second, third].flatMap(idsOf)).toEqual(ids)
    expect(third.json.pagination).toEqual({ limit: 2, nextCursor: null, hasMore: false })
    ids.unshift(newcomer)
  })

  test('gives pages with their total', async () => {
    const page = await get('/orders?page=2&perPage=4', buyer)
    expect(idsOf(page)).toEqual(ids.slice(4))
    expect(page.json.pagination).toEqual({ page: 2, perPage: 4, total: 6, totalPages: 2 })
    const beyond = await get('/orders?page=9&perPage=4', buyer)
    expect([idsOf(beyond), beyond.json.pagination.total]).toEqual([[], 6])
  })

  test('of somebody without orders is empty', async () => {
    const stranger = await newUser(stack)
    const { json } = await get('/orders', stranger)
    expect([json.data.orders, json.pagination]).toEqual([[], { limit: 20, nextCursor: null, hasMore: false }])
  })

  test("a cursor of another's list opens nothing", async () => {
    const { json } = await get('/orders?limit=1', buyer)
    const answer = await get(`/orders?cursor=${json.pagination.nextCursor}`, await newUser(stack))
    expect(answer.json.data.orders).toEqual([])
  })

  test.each([
    '?limit=0',
    '?limit=101',
    '?page=1&limit=2',
    '?cursor=nonsense',
    '?limit=1&limit=2',
    '?sort=price',
  ])(
    'refuses %s',
    async (query) => {
      const { status, json } = await get(`/orders${query}`, buyer)
      expect([status, json.error.code]).toEqual([400, 'VALIDATION_ERROR'])
    },
  )
})

describe('GET /orders/:id', () => {
  test('gives the order as it was placed', async () => {
    const { order } = (await place(orderOf({ 'ROPE-10': 1 }))).json.data
    const answer = await get(`/orders/${order.id}`)
    expect([answer.status, answer.json.data.order]).toEqual([200, order])
  })

  test.each(['not-a-uuid', '00000000', "1' or '1'='1"])('refuses the id %j', async (id) => {
    const { status, json } = await get(`/orders/${encodeURIComponent(id)}`)
    expect([status, json.error.code]).toEqual([400, 'VALIDATION_ERROR'])
  })

  test('of an order that never was is 404', async () => {
    const { status, json } = await get(`/orders/${crypto.randomUUID()}`)
    expect([status, json.error.code]).toEqual([404, 'NOT_FOUND'])
  })
})

describe('POST /orders/:id/cancel', () => {
  test('returns the stock and the money once, however often and however concurrently it is asked', async () => {
    const before = await shopState(admin)
    const { order } = (await place(orderOf({ 'ROPE-10': 5 }))).json.data
    const answers = await Promise.all(Array.from({ length: 6 }, () => cancel(order.id)))
    expect(answers.map(({ status }) => status)).toEqual(Array(6).fill(200))
    expect((await cancel(order.id)).json.data).toMatchObject({
      refund: 'refunded',
      order: { status: 'cancelled' },
    })
    expect((await shopState(admin)).stock).toEqual(before.stock)
    const [payment] = await admin`select * from public.payments where order_id = ${order.id}`
    expect(payment).toMatchObject({ status: 'refunded', provider_refund_id: expect.any(String) })
    const charge = (await payments.charges()).find(({ id }) => id === payment?.provider_charge_id)
    expect(charge?.refunded).toBe(true)
  })

  test('with the provider away notes the refund as due, and asks again when called again', async () => {
    const { order } = (await place(orderOf({ 'ROPE-10': 1 }))).json.data
    await payments.behave({ mode: 'fail', status: 503 })
    expect((await cancel(order.id)).json.data).toMatchObject({
      refund: 'due',
      order: { status: 'cancelled' },
    })
    const owed = () => admin`select status from public.payments where order_id = ${order.id}`
    expect(await owed()).toMatchObject([{ status: 'refund_due' }])
    await payments.behave({ mode: 'ok' })
    expect((await cancel(order.id)).json.data.refund).toBe('refunded')
    expect(await owed()).toMatchObject([{ status: 'refunded' }])
  })
})

describe('DELETE /orders/:id', () => {
  test('takes the order out of sight and keeps the row', async () => {
    const buyer = await newUser(stack)
    const { order } = (await place(orderOf({ 'ROPE-10': 1 }), buyer)).json.data
    const answer = await remove(order.id, buyer)
    expect([answer.status, answer.json.data.order]).toEqual([200, {
      id: order.id,
      deletedAt: expect.any(String),
    }])
    expect((await get(`/orders/${order.id}`, buyer)).status).toBe(404)
    expect((await get('/orders', buyer)).json.data.orders).toEqual([])
    expect((await remove(order.id, buyer)).status).toBe(404)
    expect((await cancel(order.id, buyer)).status).toBe(404)
    const [row] =
      await admin`select deleted_at is not null as deleted, status from public.orders where id = ${order.id}`
    expect(row).toEqual({ deleted: true, status: 'paid' })
  })
})

describe("another's order", () => {
  test('is absent by every route, and stays as it was', async () => {
    const { order } = (await place(orderOf({ 'ROPE-10': 1 }))).json.data
    const before = await shopState(admin)
    const answers = [
      await get(`/orders/${order.id}`, other),
      await cancel(order.id, other),
      await remove(order.id, other),
    ]
    for (const { status, json } of answers) expect([status, json.error.code]).toEqual([404, 'NOT_FOUND'])
    expect((await get('/orders?limit=100', other)).json.data.orders.map(({ id }: { id: string }) => id)).not
      .toContain(order.id)
    expect(await shopState(admin)).toEqual(before)
  })
})

describe('a database that is away', () => {
  test('makes orders answer 503 with Retry-After, and ready say so, until it is back', async () => {
    const away = await testStack()
    const awayAdmin = openSql(away.db.server.adminUrl)
    const buyer = await newUser(away)
    await awayAdmin.unsafe(`alter database ${away.db.name} with allow_connections false`)
    await awayAdmin`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = ${away.db.name} and application_name like 'holdfast%'`
    const order = () =>
      callFunction(away, '/orders', {
        method: 'POST',
        token: buyer.accessToken,
        body: orderOf({ 'ROPE-10': 1 }),
      })
    const refused = await order()
    expect([refused.status, refused.json.error.code, refused.headers.get('retry-after')]).toEqual([
      503,
      'SERVICE_UNAVAILABLE',
      '1',
    ])
    const ready = await callFunction(away, '/health/ready')
    expect([ready.status, ready.json.error.details.checks.database]).toEqual([
      503,
      { state: 'down', needed: true, latencyMs: expect.any(Number) },
    ])
    expect((await callFunction(away, '/health')).status).toBe(200)
    await awayAdmin.unsafe(`alter database ${away.db.name} with allow_connections true`)
    expect((await order()).status).toBe(201)
    expect((await callFunction(away, '/health/ready')).json.data.status).toBe('ready')
    await away.close()
  })
})

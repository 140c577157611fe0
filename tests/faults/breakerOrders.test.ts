/**
 * The payment provider fails while customers order: they are refused at once instead of each waiting for it, nothing is
 * written by half, and orders are placed again by themselves when it is back.
 */
import { beforeAll, expect, test } from 'vitest'
import { medianMs } from '../fixtures/guardsProject.ts'
import { newUser, type SignedIn } from '../support/client.ts'
import { type Answer, callFunction, orderOf, provider, shopState } from '../support/shop.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'
import { waitFor } from '../support/wait.ts'

const isolates = 3

let stack: TestStack
let admin: Sql
let payments: ReturnType<typeof provider>
/** Each may place sixty orders a minute. */
let customers: SignedIn[]
let turn = 0

beforeAll(async () => {
  stack = await testStack({ isolates })
  admin = openSql(stack.db.adminUrl)
  payments = provider(stack)
  customers = await Promise.all(Array.from({ length: 4 }, () => newUser(stack)))
}, 60_000)

interface Placed extends Answer {
  ms: number
  key: string
  customer: SignedIn
}

/** An order of the customer whose turn it is; or the same again. */
async function order(same?: { key: string; customer: SignedIn }): Promise<Placed> {
  const { key, customer } = same ??
    { key: crypto.randomUUID(), customer: customers[turn++ % customers.length]! }
  const startedAt = performance.now()
  const answer = await callFunction(stack, '/orders', {
    method: 'POST',
    token: customer.accessToken,
    body: orderOf({ 'ROPE-10': 1 }),
    headers: { 'idempotency-key': key },
  })
  return { ...answer, ms: performance.now() - startedAt, key, customer }
}

async function list(): Promise<{ ms: number }> {
  const startedAt = performance.now()
  const { status } = await callFunction(stack, '/orders', { token: customers[0]!.accessToken })
  expect(status).toBe(200)
  return { ms: performance.now() - startedAt }
}

const codeOf = ({ json }: Answer): string | undefined => json?.error?.code

/** What requests leave before they have done anything: keys that are held, transactions, duties to refund. */
async function books() {
  const [row] = await admin`
    select
      (select count(*)::int from holdfast.idempotency_keys
        where status is not null or leased_until > clock_timestamp()) as keys,
      (select count(*)::int from holdfast.transactions) as transactions,
      (select count(*)::int from holdfast.compensations) as compensations`
  return row
}

/** Orders from all isolates at once, until each answers so; gives all answers on the way. */
async function orderUntil(what: string, holds: (answer: Answer) => boolean): Promise<Answer[]> {
  const answers: Answer[] = []
  await waitFor(async () => {
    const round = await Promise.all(Array.from({ length: isolates }, () => order()))
    answers.push(...round)
    return round.every(holds)
  }, { what, timeoutMs: 10_000, everyMs: 50 })
  return answers
}

const refusedNow = (answer: Answer) => answer.status === 503 && codeOf(answer) === 'CIRCUIT_OPEN'
const placedNow = ({ status }: Answer) => status === 201

test('orders are refused at once while the provider is down, and placed again when it is back', async () => {
  await orderUntil('orders to be placed', placedNow)
  const before = await shopState(admin)

  await payments.behave({ mode: 'fail' })
  const failed = await orderUntil('every isolate to refuse orders', refusedNow)
  expect(new Set(failed.map(codeOf))).toEqual(new Set(['UPSTREAM_ERROR', 'CIRCUIT_OPEN']))

  // Nobody calls the provider now and nothing is written, whoever asks and however often.
  const callsBefore = (await payments.calls()).length
  const booksBefore = await books()
  const refused: Placed[] = []
  const read: { ms: number }[] = []
  // Well within the cooldown, after which one of them would look whether the provider is back.
  for (let round = 0; round < 20; round++) {
    refused.push(...await Promise.all(Array.from({ length: isolates }, () => order())))
    read.push(...await Promise.all(Array.from({ length: isolates }, list)))
  }
  expect(refused.filter((answer) => !refusedNow(answer))).toEqual([])
  expect(await payments.calls()).toHaveLength(callsBefore)
  expect(await books()).toEqual(booksBefore)
  expect(await shopState(admin)).toEqual(before)
  for (const { headers } of refused) {
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
    expect(Number(headers.get('retry-after'))).toBeLessThanOrEqual(10)
  }
  // Reading takes a trip or two as well: on a machine with other things to do, it takes its time.
  expect(medianMs(refused)).toBeLessThan(Math.max(50, 3 * medianMs(read)))

  await payments.behave({ mode: 'ok' })
  await endCooldown()
  await orderUntil('every isolate to place orders again', placedNow)
  // A key that was refused leads to one order and one charge, however often it is asked for.
  const [first] = refused
  const placed = await order(first)
  expect(placed.status).toBe(201)
  expect(placed.headers.get('idempotency-replayed')).toBeNull()
  expect((await order(first)).json).toEqual(placed.json)
  const after = await shopState(admin)
  const kept = (await payments.charges()).filter(({ refunded }) => !refunded)
  expect(kept).toHaveLength(after.orders)
  expect([after.payments, after.items]).toEqual([after.orders, after.orders])
}, 30_000)

test('an admin stops all orders with one statement, and lets them go on with another', async () => {
  await payments.behave({ mode: 'ok' })
  await endCooldown()
  await orderUntil('orders to be placed', placedNow)
  await admin`select holdfast.force_circuit_breaker('payments', 'open', 'the provider asked us to')`
  await orderUntil('every isolate to refuse', refusedNow)
  await admin`select holdfast.force_circuit_breaker('payments', null, 'the provider is well')`
  await orderUntil('orders to be placed again', placedNow)
})

/** Ten seconds in the shop's breaker: the test moves their end here instead of waiting for it. */
async function endCooldown(): Promise<void> {
  await admin`update holdfast.circuit_breakers set retry_at = clock_timestamp() where name = 'payments' and state = 'open'`
}

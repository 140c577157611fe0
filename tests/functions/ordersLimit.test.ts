/** How often a customer may ask for what the payment provider is needed for: in all isolates together. */
import { beforeAll, describe, expect, test } from 'vitest'
import { newUser, type SignedIn } from '../support/client.ts'
import { type Answer, callFunction, orderOf, provider, shopState } from '../support/shop.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'

let stack: TestStack
let admin: Sql

beforeAll(async () => {
  stack = await testStack({ isolates: 3 })
  admin = openSql(stack.db.adminUrl)
})

const place = (who: SignedIn, body: unknown): Promise<Answer> =>
  callFunction(stack, '/orders', { method: 'POST', token: who.accessToken, body })
const unknownSku = orderOf({ 'NO-SUCH-THING': 1 })

describe('a customer who asks seventy times at once, of three isolates', () => {
  let greedy: SignedIn
  let answers: Answer[]

  beforeAll(async () => {
    greedy = await newUser(stack)
    answers = await Promise.all(Array.from({ length: 70 }, () => place(greedy, unknownSku)))
    // What comes back each second would admit one of the calls below.
    await admin`update holdfast.rate_limits set forget_at = forget_at + 600000000 where key like 'orders%'`
  })

  test('is admitted sixty times, and refused with 429 and the time to come back', () => {
    // While seventy are asked, a second may pass, which gives one more.
    const admitted = answers.filter(({ status }) => status === 409)
    const refused = answers.filter(({ status }) => status === 429)
    expect(admitted.length + refused.length).toBe(70)
    expect(admitted.length).toBeGreaterThanOrEqual(60)
    expect(admitted.length).toBeLessThan(66)
    expect(refused[0]!.json.error).toMatchObject({ code: 'RATE_LIMITED', details: { policies: ['orders'] } })
    expect(refused[0]!.headers.get('ratelimit-policy')).toBe('"orders";q=60;w=60')
    expect(Number(refused[0]!.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(admitted[0]!.headers.get('ratelimit')).toMatch(/^"orders";r=\d+;t=\d+$/)
  })

  test('is charged nothing for what is refused, and leaves no claim of a key', async () => {
    const [before, keys] = await Promise.all([shopState(admin), claims()])
    const answer = await place(greedy, orderOf({ 'ROPE-10': 1 }))
    expect(answer.status).toBe(429)
    expect(await shopState(admin)).toEqual(before)
    expect(await claims()).toBe(keys)
    expect(await provider(stack).charges()).toEqual([])
  })

  test('may cancel no more either: it is the same limit', async () => {
    const path = `/orders/${crypto.randomUUID()}/cancel`
    const answer = await callFunction(stack, path, { method: 'POST', token: greedy.accessToken, body: {} })
    expect(answer.status).toBe(429)
  })

  test('takes nothing from another, nor from reading', async () => {
    const other = await newUser(stack)
    expect((await place(other, orderOf({ 'ROPE-10': 1 }))).status).toBe(201)
    expect((await callFunction(stack, '/orders', { token: greedy.accessToken })).status).toBe(200)
  })
})

test('an order that is refused for its form takes nothing', async () => {
  const clumsy = await newUser(stack)
  const bad = await Promise.all(Array.from({ length: 20 }, () => place(clumsy, { items: [] })))
  expect(new Set(bad.map(({ status }) => status))).toEqual(new Set([400]))
  const answer = await place(clumsy, orderOf({ 'ROPE-10': 1 }))
  expect(answer.headers.get('ratelimit')).toMatch(/^"orders";r=59;/)
})

async function claims(): Promise<number> {
  const [row] = await admin`select count(*)::int as count from holdfast.idempotency_keys`
  return row!.count
}

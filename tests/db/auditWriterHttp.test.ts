/** Odd headers over real HTTP, through REST and through an edge function: what is accepted is recorded, and safely. */
import { beforeAll, describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { gaps, type Recorded, recorded } from '../support/auditProbe.ts'
import { newUser, type SignedIn } from '../support/client.ts'
import { orderOf } from '../support/shop.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'

let stack: TestStack
let admin: Sql
let customer: SignedIn

beforeAll(async () => {
  stack = await testStack()
  admin = openSql(stack.db.adminUrl)
  customer = await newUser(stack)
})

/**
 * A request byte for byte, since `fetch` joins repeated headers and refuses what is no header at all. Gives the status;
 * 0 where the server hung up without one.
 */
async function send(path: string, headers: [string, string][], body: unknown): Promise<number> {
  const bytes = new TextEncoder().encode(JSON.stringify(body))
  const head = [
    `POST ${path} HTTP/1.1`,
    `host: 127.0.0.1:${stack.port}`,
    'connection: close',
    'content-type: application/json',
    `content-length: ${bytes.length}`,
    ...headers.map(([name, value]) => `${name}: ${value}`),
  ].join('\r\n')
  const connection = await Deno.connect({ hostname: '127.0.0.1', port: stack.port })
  try {
    const answer = new Response(connection.readable).text()
    const writer = connection.writable.getWriter()
    // A server that refuses early stops reading.
    await writer.write(new TextEncoder().encode(`${head}\r\n\r\n`)).then(() => writer.write(bytes)).catch(
      () => {},
    )
    return Number((await answer.catch(() => '')).slice(9, 12))
  } finally {
    try {
      connection.close()
    } catch {
      // The stream has closed it.
    }
  }
}

const long = (length: number) => 'x'.repeat(length)

const oddities: [string, [string, string][]][] = [
  ['a request id of 1 MB', [['x-request-id', long(1_000_000)]]],
  ['a request id of 4 kB', [['x-request-id', long(4_096)]]],
  ['a request id in unicode', [['x-request-id', 'ünïcödé 🐘 \u202e']]],
  ['a request id twice', [['x-request-id', 'first'], ['x-request-id', 'second']]],
  ['an empty request id', [['x-request-id', '']]],
  ['control characters', [['x-request-id', 'a\tb'], ['user-agent', '\u001b[31mred']]],
  ['JSON, deeply nested', [['x-request-id', '['.repeat(10_000)], ['user-agent', '{"a":'.repeat(1_000)]]],
  ['a user agent of 1 MB', [['user-agent', long(1_000_000)]]],
  ['a user agent of 4 kB', [['user-agent', long(4_096)]]],
  ['a user agent in quotes and backslashes', [['user-agent', '"\\"\\u0000\\ud800", "sub": "admin"']]],
  ['no user agent', []],
  ['a forged address', [['x-forwarded-for', '1.2.3.4, evil']]],
  ['an address that is none', [['x-forwarded-for', '999.1.1.1']]],
  ['an empty address', [['x-forwarded-for', '']]],
  ['a list of addresses of 10 kB', [['x-forwarded-for', '1.2.3.4, '.repeat(1_100)]]],
  ['two lists of addresses', [['x-forwarded-for', '1.1.1.1'], ['x-forwarded-for', '2.2.2.2']]],
  ['IPv6 with a port', [['x-forwarded-for', '[2001:db8::1]:443']]],
  ['a role and claims of their own', [
    ['role', 'service_role'],
    ['request.jwt.claims', '{"sub": "admin"}'],
    ['x-function-name', 'admin'],
  ]],
]

/** Header fields that no server takes: too long, or no text. */
const refused = new Set(['a request id of 1 MB', 'a user agent of 1 MB', 'control characters'])

/** What any recorded change may hold, whatever was sent. */
function expectSafe(change: Recorded | undefined): void {
  expect(change?.requestId?.length ?? 0).toBeLessThanOrEqual(200)
  expect(change?.userAgent?.length ?? 0).toBeLessThanOrEqual(512)
  // The gateway is the only proxy here, and it saw this machine.
  expect([null, '127.0.0.1']).toContain(change?.ip)
  expect(change?.details).not.toHaveProperty('unreadable')
}

describe('a write through REST', () => {
  test.each(oddities)('with %s is recorded, or refused before it writes', async (what, headers) => {
    const sku = `odd-${crypto.randomUUID().slice(0, 8)}`
    const status = await send('/rest/v1/products', [
      ['apikey', localKeys.secret],
      ['authorization', `Bearer ${localKeys.secret}`],
      ...headers,
    ], { sku, name: 'Odd', price_minor: 1, currency: 'EUR', stock: 1 })
    const changes = (await recorded(admin, 'public.products')).filter(({ details }) =>
      details.row.new?.sku === sku
    )
    const [stored] = await admin`select count(*)::int as rows from public.products where sku = ${sku}`
    expect({ rows: stored!.rows, changes: changes.length }).toEqual(
      status === 201 ? { rows: 1, changes: 1 } : { rows: 0, changes: 0 },
    )
    expect(status === 201, `${what}: ${status}`).toBe(!refused.has(what))
    expect(status).toBeLessThan(500)
    if (status === 201) {
      expect(changes[0]).toMatchObject({ operation: 'INSERT', actorId: null, actorRole: 'service_role' })
      expectSafe(changes[0])
    }
    expect(await gaps(admin)).toEqual([])
  })
})

describe('a write through an edge function', () => {
  test.each(oddities)('with %s is recorded, or refused before it writes', async (what, headers) => {
    const before = (await recorded(admin, 'public.orders')).length
    const status = await send('/functions/v1/orders', [
      ['apikey', localKeys.publishable],
      ['authorization', `Bearer ${customer.accessToken}`],
      ['idempotency-key', crypto.randomUUID()],
      ...headers,
    ], orderOf({ 'CLEAT-S': 1 }))
    const changes = (await recorded(admin, 'public.orders')).slice(before)
    expect(changes).toHaveLength(status === 201 ? 1 : 0)
    expect(status === 201, `${what}: ${status}`).toBe(!refused.has(what))
    expect(status).toBeLessThan(500)
    if (status === 201) {
      expect(changes[0]).toMatchObject({
        operation: 'INSERT',
        actorId: customer.userId,
        actorRole: 'authenticated',
        functionName: 'orders',
      })
      expectSafe(changes[0])
    }
    expect(await gaps(admin)).toEqual([])
  })

  test('has the id of its request, its client and its address', async () => {
    const requestId = crypto.randomUUID()
    expect(
      await send('/functions/v1/orders', [
        ['apikey', localKeys.publishable],
        ['authorization', `Bearer ${customer.accessToken}`],
        ['idempotency-key', crypto.randomUUID()],
        ['x-request-id', requestId],
        ['user-agent', 'Odd/1.0 (of no kind)'],
        ['x-forwarded-for', '203.0.113.7'],
      ], orderOf({ 'CLEAT-S': 1 })),
    ).toBe(201)
    expect((await recorded(admin, 'public.orders')).at(-1)).toMatchObject({
      requestId,
      userAgent: 'Odd/1.0 (of no kind)',
      ip: '127.0.0.1',
      functionName: 'orders',
    })
  })
})

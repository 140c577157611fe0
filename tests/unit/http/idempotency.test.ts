/** Routes that declare `idempotency`: the declaration, its types, and what HTTP makes of keys, with keys in memory. */
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
import { HoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import { sql, type SqlQuery } from '../../../supabase/functions/_shared/db/client.ts'
import { defineApi, type Reply, route } from '../../../supabase/functions/_shared/http/api.ts'
import { createLogger } from '../../../supabase/functions/_shared/observability/logger.ts'
import type { IdempotencyStore } from '../../../supabase/functions/_shared/resilience/idempotency.ts'
import { MemoryIdempotencyStore } from '../../../supabase/functions/_shared/resilience/stores/memory.ts'

const lines: string[] = []
const docsUrl = 'https://docs.example/keys'

/** What happens in the handler. */
const work = vi.fn<() => Reply<Record<string, unknown>>>()

function apiWith(store: IdempotencyStore) {
  return defineApi({
    name: 'shop',
    title: 'Shop',
    logger: createLogger({ write: (_, line) => lines.push(line) }),
    idempotency: { store, docsUrl },
    routes: [
      route({
        method: 'POST',
        path: '/',
        auth: 'none',
        summary: 'x',
        body: z.strictObject({ count: z.int().min(1) }),
        response: z.object({}).loose(),
        idempotency: 'leased',
        handler: () => work(),
      }),
      route({
        method: 'POST',
        path: '/local',
        auth: 'none',
        summary: 'x',
        response: z.object({}).loose(),
        idempotency: { mode: 'leased', onUnavailable: 'local' },
        handler: () => work(),
      }),
      route({
        method: 'GET',
        path: '/',
        auth: 'none',
        summary: 'x',
        response: z.object({}).loose(),
        handler: () => work(),
      }),
    ],
  })
}

let api = apiWith(new MemoryIdempotencyStore())

const away: IdempotencyStore = {
  claim: () => Promise.reject(new HoldfastError('SERVICE_UNAVAILABLE', 'away', { retryAfterMs: 1_000 })),
  complete: () => Promise.reject(new HoldfastError('SERVICE_UNAVAILABLE', 'away')),
  release: () => Promise.reject(new HoldfastError('SERVICE_UNAVAILABLE', 'away')),
  close: () => Promise.resolve(),
}

async function post(path: string, key: string | undefined, body?: unknown) {
  const headers = new Headers({ 'content-type': 'application/json' })
  if (key !== undefined) headers.set('idempotency-key', key)
  const init = { method: 'POST', headers, body: body === undefined ? undefined : JSON.stringify(body) }
  const response = await api.fetch(new Request(`http://localhost/shop${path}`, init))
  const text = await response.text()
  return { status: response.status, headers: response.headers, text, json: JSON.parse(text) }
}

const lastLine = () => JSON.parse(lines.at(-1)!)

beforeEach(() => {
  lines.length = 0
  api = apiWith(new MemoryIdempotencyStore())
  work.mockReset().mockImplementation(() => ({ data: { id: crypto.randomUUID() } }))
})

describe('a route with keys', () => {
  test('IK2: sends whoever brings none to the page of the API', async () => {
    const { status, headers, json } = await post('', undefined, { count: 1 })
    expect([status, json.error.code]).toEqual([400, 'IDEMPOTENCY_KEY_REQUIRED'])
    expect(json.error.details).toEqual({ documentation: docsUrl })
    expect(headers.get('link')).toBe(`<${docsUrl}>; rel="describedby"`)
  })

  test('IK7: looks at the input before it looks at the key', async () => {
    const { json } = await post('', undefined, { count: 0 })
    expect(json.error.code).toBe('VALIDATION_ERROR')
  })

  test('takes the key out of the body before the schema sees it', async () => {
    const first = await post('', undefined, { count: 1, idempotencyKey: 'a' })
    const second = await post('', 'a', { count: 1 })
    expect([first.status, second.text]).toEqual([200, first.text])
    expect(work).toHaveBeenCalledOnce()
  })

  test('replays with the same bytes whatever the handler answered, and says so in header and log', async () => {
    work.mockReturnValue({
      data: { text: 'ö "quoted"\u2028😀', list: [1.5, null, { a: true }] },
      status: 202,
      headers: { 'set-cookie': ['a=1', 'b=2'], 'content-type': 'application/vnd.shop+json' },
      pagination: { limit: 1, nextCursor: null, hasMore: false },
    })
    const first = await post('', 'a', { count: 1 })
    expect(lastLine()).not.toHaveProperty('replayed')
    const second = await post('', 'a', { count: 1 })
    expect(second.text).toBe(first.text)
    expect(first.json).toMatchObject({ data: { list: [1.5, null, { a: true }] }, pagination: { limit: 1 } })
    expect(lastLine()).toMatchObject({ level: 'info', status: 202, replayed: true })
    for (const { status, headers } of [first, second]) {
      expect([status, headers.getSetCookie(), headers.get('content-type')])
        .toEqual([202, ['a=1', 'b=2'], 'application/vnd.shop+json'])
    }
    expect([first, second].map(({ headers }) => headers.get('idempotency-replayed'))).toEqual([null, 'true'])
    expect(second.headers.get('access-control-expose-headers')).toContain('idempotency-replayed')
  })

  test('logs what the handler refused with, once', async () => {
    work.mockImplementation(() => {
      throw new HoldfastError('NO_ROOM', 'There is no room', { status: 409 })
    })
    await post('', 'a', { count: 1 })
    expect(lastLine()).toMatchObject({
      level: 'info',
      status: 409,
      code: 'NO_ROOM',
      error: 'There is no room',
    })
    await post('', 'a', { count: 1 })
    expect(lastLine()).toMatchObject({ status: 409, replayed: true })
    expect(lastLine()).not.toHaveProperty('error')
  })

  test('logs an attempt that takes over from one without an answer', async () => {
    work.mockImplementationOnce(() => {
      throw new Error('broken')
    })
    expect((await post('', 'a', { count: 1 })).status).toBe(500)
    await post('', 'a', { count: 1 })
    expect(lastLine()).toMatchObject({ status: 200, resumed: true })
  })

  test('refuses with 503 while the store is away', async () => {
    api = apiWith(away)
    const { status, headers, json } = await post('', 'a', { count: 1 })
    expect([status, json.error.code]).toEqual([503, 'SERVICE_UNAVAILABLE'])
    expect(headers.has('retry-after')).toBe(true)
    expect(work).not.toHaveBeenCalled()
  })

  test('goes on in memory while the store is away where it declares so, and says so', async () => {
    api = apiWith(away)
    const first = await post('/local', 'a')
    const second = await post('/local', 'a')
    expect([first.status, second.text]).toEqual([200, first.text])
    expect([first, second].map(({ headers }) => headers.get('idempotency-store'))).toEqual(['local', 'local'])
    expect(second.headers.get('idempotency-replayed')).toBe('true')
    expect(lastLine()).toMatchObject({ replayed: true, local: true })
    expect(work).toHaveBeenCalledOnce()
  })

  test('that throws what is no error of ours has no answer stored', async () => {
    work.mockImplementation(() => {
      // deno-lint-ignore no-throw-literal
      throw 'a text'
    })
    expect((await post('', 'a', { count: 1 })).status).toBe(500)
    expect((await post('', 'a', { count: 1 })).status).toBe(500)
    expect(work).toHaveBeenCalledTimes(2)
  })
})

test('a route without keys takes no notice of one, nor of a field of that name', async () => {
  const get = () => api.fetch(new Request('http://localhost/shop', { headers: { 'idempotency-key': '"' } }))
  expect([(await get()).status, (await get()).status]).toEqual([200, 200])
  expect(work).toHaveBeenCalledTimes(2)
})

describe('route()', () => {
  const valid = { method: 'POST', path: '/', auth: 'none', summary: 'x', response: z.object({}) } as const
  const handler = () => ({ data: {} })

  test.each([
    ['GET', 'atomic', /methods that change/],
    ['POST', { mode: 'both' }, /atomic or leased, received both/],
    ['POST', 'both', /atomic or leased, received both/],
    ['POST', { mode: 'atomic', onUnavailable: 'local' }, /atomic and local/],
    ['POST', { mode: 'leased', onUnavailable: 'open' }, /closed or local, received open/],
    ['POST', { mode: 'leased', isolation: 'serializable' }, /isolation only/],
    ['POST', { mode: 'atomic', waitMs: -1 }, /waitMs .* received -1/],
    ['POST', { mode: 'atomic', waitMs: Number.NaN }, /waitMs .* received NaN/],
    ['POST', { mode: 'atomic', ttlMs: 0 }, /ttlMs .* received 0/],
    ['POST', { mode: 'atomic', ttlMs: Number.POSITIVE_INFINITY }, /ttlMs .* received Infinity/],
    ['POST', { mode: 'atomic', maxStoredBytes: 1.5 }, /maxStoredBytes .* received 1.5/],
  ])('refuses %s with idempotency %j when it is declared', (method, idempotency, message) => {
    expect(() => route({ ...valid, method, idempotency, handler } as never)).toThrow(message)
    expect(() => route({ ...valid, method, idempotency, handler } as never)).toThrow(/POST|GET/)
  })

  test('fills in the defaults', () => {
    expect(route({ ...valid, idempotency: 'leased', handler }).idempotency).toEqual({
      mode: 'leased',
      required: true,
      waitMs: 5_000,
      ttlMs: 86_400_000,
      maxStoredBytes: 65_536,
      onUnavailable: 'closed',
      isolation: undefined,
    })
    expect(route({ ...valid, handler }).idempotency).toBeUndefined()
  })

  test('gives handlers by type what their declaration brings, and nothing else', () => {
    const response = z.object({ a: z.number() })
    const statement: SqlQuery = sql`select 1`
    // Compiled by `deno check`; never called.
    const declared = [
      route({
        ...valid,
        response,
        idempotency: 'atomic',
        async handler(context) {
          // @ts-expect-error -- that is for leased routes
          void context.idempotency
          return { data: { a: (await context.tx.query(statement)).length } }
        },
      }),
      route({
        ...valid,
        response,
        idempotency: { mode: 'atomic', waitMs: 1 },
        handler: () => ({ data: statement }),
      }),
      route({
        ...valid,
        response,
        idempotency: { mode: 'leased' },
        handler(context) {
          // @ts-expect-error -- that is for atomic routes
          void context.tx
          // @ts-expect-error -- not what the response declares
          context.idempotency.complete(context as never, { data: { a: 'text' } })
          return context.idempotency.complete(context as never, { data: statement })
        },
      }),
      route({
        ...valid,
        response,
        idempotency: 'leased',
        // @ts-expect-error -- a statement has to travel with a transaction
        handler: () => ({ data: statement }),
      }),
      route({
        ...valid,
        response,
        // @ts-expect-error -- nothing would run it
        handler: () => ({ data: statement }),
      }),
    ]
    expect(declared).toHaveLength(5)
  })
})

/** What http/api.ts promises of every function, on an API of its own, without a server. */
import { SignJWT } from 'jose'
import { beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
import { HoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import { createLogger } from '../../../supabase/functions/_shared/observability/logger.ts'
import { type Api, defineApi, route } from '../../../supabase/functions/_shared/http/api.ts'

const secret = 'a-shared-secret-of-at-least-32-characters'
const userId = '00000000-0000-4000-8000-00000000000a'
const done = z.object({}).loose()

// Read at the first request.
Deno.env.set('JWT_SECRET', secret)

const lines: string[] = []

/** What the routes were called with. */
const seen = vi.fn()

const api: Api = defineApi({
  name: 'shop',
  title: 'Shop',
  logger: createLogger({ write: (_, line) => lines.push(line) }),
  routes: [
    route({
      method: 'GET',
      path: '/',
      auth: 'none',
      summary: 'x',
      response: done,
      handler: () => ({ data: { ok: true } }),
    }),
    route({
      method: 'POST',
      path: '/things/:id',
      auth: 'user',
      summary: 'x',
      params: z.object({ id: z.uuid() }),
      query: z.object({ dry: z.enum(['yes', 'no']).optional() }),
      body: z.strictObject({ count: z.int().min(1) }),
      response: done,
      status: 201,
      maxBodyBytes: 1_000,
      handler(context) {
        seen(context.body, context.params, context.query, context.caller.userId)
        return { data: { count: context.body.count }, headers: { location: '/x' } }
      },
    }),
    route({
      method: 'GET',
      path: '/fails/:how',
      auth: 'none',
      summary: 'x',
      params: z.object({ how: z.string() }),
      response: done,
      timeoutMs: 20,
      async handler({ params, signal }) {
        if (params.how === 'refused') {
          throw new HoldfastError('CONFLICT', 'Cannot do it: it is taken', { details: { by: 'you' } })
        }
        if (params.how === 'limited') {
          throw new HoldfastError('RATE_LIMITED', 'Slow down', { retryAfterMs: 1_200 })
        }
        if (params.how === 'away') {
          throw new HoldfastError('SERVICE_UNAVAILABLE', 'db at 10.0.0.1 refused', {
            details: { status: 'down' },
          })
        }
        if (params.how === 'late') {
          await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
        }
        // deno-lint-ignore no-throw-literal
        if (params.how === 'text') throw 'a text with a password=hunter2'
        throw new Error('internal: table public.secrets at 10.0.0.1', { cause: new Error('below') })
      },
    }),
  ],
})

function call(
  method: string,
  path: string,
  options: { headers?: Record<string, string>; body?: BodyInit } = {},
) {
  return api.fetch(new Request(`http://localhost${path}`, { method, ...options }))
}

/** The log lines of the test so far. */
const logLines = () => lines.map((line) => JSON.parse(line))

let token: string

beforeAll(async () => {
  token = await new SignJWT({ sub: userId, role: 'authenticated' }).setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1h').sign(new TextEncoder().encode(secret))
})

beforeEach(() => {
  lines.length = 0
  seen.mockClear()
})

const thing = `/shop/things/${userId}`
const json = (more: Record<string, string> = {}) => ({
  'content-type': 'application/json',
  authorization: `Bearer ${token}`,
  ...more,
})

describe('every response', () => {
  test.each([
    ['GET', '/shop', 200],
    ['HEAD', '/shop', 200],
    ['GET', '/shop/', 200],
    ['GET', '/shop/nothing', 404],
    ['GET', '/elsewhere', 404],
    ['PUT', '/shop', 405],
    ['POST', thing, 401],
    ['GET', '/shop/fails/refused', 409],
    ['GET', '/shop/fails/unexpectedly', 500],
    ['OPTIONS', '/shop', 204],
  ])('of %s %s is %i with the id, security and CORS headers', async (method, path, status) => {
    const response = await call(method, path)
    expect(response.status).toBe(status)
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'x-request-id': expect.stringMatching(/^[\da-f-]{36}$/),
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
      'x-frame-options': 'DENY',
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'strict-origin-when-cross-origin',
      'strict-transport-security': expect.stringContaining('max-age='),
      'access-control-allow-origin': '*',
      'access-control-expose-headers': expect.stringContaining('x-request-id'),
    })
  })

  test('adopts the request id of the caller, in header, envelope and log', async () => {
    const response = await call('GET', '/shop', { headers: { 'x-request-id': 'mine-1' } })
    expect(response.headers.get('x-request-id')).toBe('mine-1')
    expect(await response.json()).toMatchObject({ meta: { requestId: 'mine-1' } })
    expect(logLines()).toMatchObject([{ requestId: 'mine-1' }])
  })
})

test('a preflight allows the methods, and the headers that clients send', async () => {
  const response = await call('OPTIONS', thing, {
    headers: { origin: 'https://app.example', 'access-control-request-method': 'POST' },
  })
  const allowed = response.headers.get('access-control-allow-headers')?.split(', ')
  expect(allowed).toEqual(
    expect.arrayContaining(['authorization', 'apikey', 'x-client-info', 'content-type', 'idempotency-key']),
  )
  expect(response.headers.get('access-control-allow-methods')).toContain('DELETE')
})

describe('success', () => {
  test('is the envelope with data and meta, and the declared status', async () => {
    const response = await call('POST', thing, { headers: json(), body: '{"count":2}' })
    expect(response.status).toBe(201)
    expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8')
    expect(response.headers.get('location')).toBe('/x')
    expect(await response.json()).toEqual({
      success: true,
      data: { count: 2 },
      meta: {
        requestId: response.headers.get('x-request-id'),
        timestamp: expect.stringMatching(/^\d{4}-.*Z$/),
      },
    })
  })

  test('gives the handler its validated input and its caller', async () => {
    await call('POST', `${thing}?dry=yes&other=1`, { headers: json(), body: '{"count":2}' })
    expect(seen).toHaveBeenCalledExactlyOnceWith({ count: 2 }, { id: userId }, { dry: 'yes' }, userId)
  })

  test('is one line in the log, with route, status, user, ip and duration', async () => {
    await call('POST', thing, { headers: json({ 'x-forwarded-for': '203.0.113.7' }), body: '{"count":2}' })
    expect(logLines()).toEqual([expect.objectContaining({
      level: 'info',
      message: `POST ${thing} 201`,
      function: 'shop',
      isolate: expect.any(String),
      route: '/things/:id',
      status: 201,
      userId,
      ip: '203.0.113.7',
      durationMs: expect.any(Number),
    })])
  })
})

describe('a refusal', () => {
  test.each([
    ['a value out of range', '{"count":0}', { in: 'body', path: 'count' }],
    ['a wrong type', '{"count":"2"}', { in: 'body', path: 'count' }],
    ['a field nobody knows', '{"count":2,"admin":true}', { in: 'body', path: '' }],
    ['a missing field', '{}', { in: 'body', path: 'count' }],
    ['no object', '[]', { in: 'body', path: '' }],
    ['broken JSON', '{"count":', { in: 'body', path: '' }],
    ['a prototype', '{"__proto__":{"count":2}}', { in: 'body', path: 'count' }],
  ])(
    'for %s is a VALIDATION_ERROR that names the place, and the handler never runs',
    async (_, body, detail) => {
      const response = await call('POST', thing, { headers: json(), body })
      expect(response.status).toBe(400)
      expect(await response.json()).toMatchObject({
        success: false,
        error: {
          code: 'VALIDATION_ERROR',
          details: expect.arrayContaining([expect.objectContaining(detail)]),
        },
      })
      expect(seen).not.toHaveBeenCalled()
    },
  )

  test.each([
    ['a path parameter', '/shop/things/12', {}, 400, 'VALIDATION_ERROR'],
    ['a query parameter', `${thing}?dry=maybe`, {}, 400, 'VALIDATION_ERROR'],
    ['a query parameter given twice', `${thing}?dry=yes&dry=no`, {}, 400, 'VALIDATION_ERROR'],
    ['another type of content', thing, { 'content-type': 'text/plain' }, 415, 'UNSUPPORTED_MEDIA_TYPE'],
    [
      'no token, before the body is looked at',
      thing,
      { authorization: '', 'content-type': 'text/plain' },
      401,
      'UNAUTHENTICATED',
    ],
  ])('for %s comes before the handler', async (_, path, headers, status, code) => {
    const response = await call('POST', path, {
      headers: json(headers as Record<string, string>),
      body: '{"count":2}',
    })
    expect([response.status, (await response.json()).error.code]).toEqual([status, code])
    expect(seen).not.toHaveBeenCalled()
  })

  test('for a body above the limit is PAYLOAD_TOO_LARGE', async () => {
    const body = JSON.stringify({ count: 2, filler: 'x'.repeat(1_000) })
    const response = await call('POST', thing, { headers: json(), body })
    expect([response.status, (await response.json()).error.code]).toEqual([413, 'PAYLOAD_TOO_LARGE'])
  })

  test('of a method names those that the path takes', async () => {
    const response = await call('PUT', thing)
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'POST'])
    expect((await response.json()).error.code).toBe('METHOD_NOT_ALLOWED')
  })

  test('without credentials says which kind is asked for', async () => {
    const response = await call('POST', thing, {
      headers: { 'content-type': 'application/json' },
      body: '{"count":2}',
    })
    expect([response.status, response.headers.get('www-authenticate')]).toEqual([401, 'Bearer'])
  })

  test('that a handler throws keeps its message and details', async () => {
    const response = await call('GET', '/shop/fails/refused')
    expect((await response.json()).error).toEqual({
      code: 'CONFLICT',
      message: 'Cannot do it: it is taken',
      details: { by: 'you' },
    })
  })

  test('RA1: with a time to wait says it in whole seconds, rounded up', async () => {
    const response = await call('GET', '/shop/fails/limited')
    expect([response.status, response.headers.get('retry-after')]).toEqual([429, '2'])
  })
})

describe('problem details', () => {
  test('PD1: are sent to whoever accepts them, with the title of the status', async () => {
    const response = await call('GET', '/shop/fails/refused', {
      headers: { accept: 'application/problem+json' },
    })
    expect(response.headers.get('content-type')).toBe('application/problem+json')
    expect(await response.json()).toMatchObject({
      type: 'about:blank',
      title: 'Conflict',
      status: 409,
      detail: 'Cannot do it: it is taken',
      instance: `urn:request:${response.headers.get('x-request-id')}`,
      code: 'CONFLICT',
      details: { by: 'you' },
    })
  })

  test('are not sent to whoever accepts anything', async () => {
    const response = await call('GET', '/shop/fails/refused', { headers: { accept: '*/*' } })
    expect(response.headers.get('content-type')).toContain('application/json')
  })
})

describe('a failure of ours', () => {
  test.each(['unexpectedly', 'text'])('(%s) tells the client nothing but the request id', async (how) => {
    const response = await call('GET', `/shop/fails/${how}`)
    expect(response.status).toBe(500)
    const body = await response.text()
    expect(body).not.toMatch(/secrets|10\.0\.0\.1|hunter2|stack|api\.test/)
    expect(JSON.parse(body)).toMatchObject({
      error: { code: 'INTERNAL_ERROR', details: null },
      meta: { requestId: response.headers.get('x-request-id') },
    })
  })

  test('is told to the log in full, causes and stack included', async () => {
    await call('GET', '/shop/fails/unexpectedly')
    expect(logLines()).toMatchObject([{
      level: 'error',
      status: 500,
      error: {
        cause: { message: 'internal: table public.secrets at 10.0.0.1', cause: { message: 'below' } },
      },
    }])
  })

  test('of something it depends on has its code and its details, and none of its words', async () => {
    const response = await call('GET', '/shop/fails/away')
    expect(response.status).toBe(503)
    const body = await response.json()
    expect(body.error).toMatchObject({ code: 'SERVICE_UNAVAILABLE', details: { status: 'down' } })
    expect(body.error.message).not.toContain('10.0.0.1')
  })

  test('to answer in time aborts the signal and is UPSTREAM_TIMEOUT', async () => {
    const response = await call('GET', '/shop/fails/late')
    expect([response.status, (await response.json()).error.code]).toEqual([504, 'UPSTREAM_TIMEOUT'])
  })
})

describe('route()', () => {
  const valid = {
    method: 'GET',
    path: '/',
    auth: 'none',
    summary: 'x',
    response: done,
    handler: () => ({ data: {} }),
  } as const

  test.each([
    [{ path: 'things' }, TypeError],
    [{ maxBodyBytes: 0 }, RangeError],
    [{ maxBodyBytes: Number.NaN }, RangeError],
    [{ timeoutMs: -1 }, RangeError],
    [{ timeoutMs: Number.POSITIVE_INFINITY }, RangeError],
  ])('refuses %j when it is declared', (options, type) => {
    expect(() => route({ ...valid, ...options })).toThrow(type)
  })
})

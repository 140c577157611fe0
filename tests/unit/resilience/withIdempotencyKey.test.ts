/** resilience/withIdempotencyKey.ts around supabase-js's own client, against a real server that fails by a script. */
import { createClient } from '@supabase/supabase-js'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import type { RetryOptions } from '../../../supabase/functions/_shared/resilience/retry.ts'
import { RetryBudget } from '../../../supabase/functions/_shared/resilience/retryBudget.ts'
import { withIdempotencyKey } from '../../../supabase/functions/_shared/resilience/withIdempotencyKey.ts'
import { InstantTimers } from '../../support/fakeTimers.ts'
import { type ScriptedServer, startScriptedServer, type Step } from '../../support/scriptedServer.ts'
import { waitFor } from '../../support/wait.ts'
import { importsOf } from '../../../tools/imports.ts'

let server: ScriptedServer
beforeAll(async () => void (server = await startScriptedServer()))
beforeEach(() => void server.requests.splice(0))
afterAll(() => server[Symbol.asyncDispose]())

const supabaseFunctions = () =>
  createClient(server.url, 'sb_publishable_test', {
    auth: { persistSession: false, autoRefreshToken: false },
  })
    .functions

/** Ours around supabase-js, with waits that are over at once. */
function setUp(options: RetryOptions = {}, ...steps: Step[]) {
  const timers = new InstantTimers()
  server.script(...steps)
  const retry: RetryOptions = { jitter: 'none', timers, ...options }
  return { functions: withIdempotencyKey(supabaseFunctions(), { retry }), timers }
}

const keys = () => server.header('idempotency-key')
const distinctKeys = () => new Set(keys()).size
const ok: Step = { status: 201, body: { id: 7 } }
const away: Step = { status: 503, body: { error: { code: 'SERVICE_UNAVAILABLE' } } }
const inUse: Step = {
  status: 409,
  headers: { 'retry-after': '2' },
  body: { success: false, error: { code: 'IDEMPOTENCY_KEY_IN_USE', message: 'Still running' } },
}
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

test('withIdempotencyKey() is made of web standards alone, so that it runs in browsers and Node as well', async () => {
  const seen = new Set<string>()
  const visit = async (url: URL) => {
    if (seen.has(url.href)) return
    seen.add(url.href)
    const text = await Deno.readTextFile(url)
    expect(text).not.toMatch(/\b(Deno|process|Buffer)\./)
    for (const { specifier } of importsOf(text)) {
      expect(specifier).toMatch(/^\.\.?\//)
      await visit(new URL(specifier, url))
    }
  }
  await visit(
    new URL('../../../supabase/functions/_shared/resilience/withIdempotencyKey.ts', import.meta.url),
  )
  expect(seen.size).toBeGreaterThan(5)
})

describe('withIdempotencyKey() sends', () => {
  test('a key with the call, and gives the answer of supabase-js', async () => {
    const { functions } = setUp({}, ok)
    const { data, error, response } = await functions.invoke<{ id: number }>('orders', {
      body: { sku: 'ROPE' },
    })
    const id: number | undefined = data?.id
    expect({ id, error, status: response?.status }).toEqual({ id: 7, error: null, status: 201 })
    expect(server.requests).toMatchObject([
      { method: 'POST', path: '/functions/v1/orders', body: '{"sku":"ROPE"}' },
    ])
    expect(keys()).toEqual([expect.stringMatching(uuid)])
  })

  test('another key with each call, also without options', async () => {
    const { functions } = setUp({}, ok)
    for (const options of [undefined, {}, { body: { a: 1 } }, { body: { a: 1 } }]) {
      await functions.invoke('orders', options)
    }
    expect(distinctKeys()).toBe(4)
  })

  test('what the caller gives: headers, method, body', async () => {
    const { functions } = setUp({}, ok)
    await functions.invoke('orders/7', { method: 'PUT', headers: { 'x-mine': '1' }, body: 'text' })
    expect(server.requests).toMatchObject([{ method: 'PUT', path: '/functions/v1/orders/7', body: 'text' }])
    expect(server.header('x-mine')).toEqual(['1'])
    expect(server.header('apikey')).toEqual(['sb_publishable_test'])
    expect(keys()).toEqual([expect.stringMatching(uuid)])
  })

  test.each(['Idempotency-Key', 'idempotency-key', 'IDEMPOTENCY-KEY'])(
    'the key that the caller gives as %s, and no other',
    async (name) => {
      const { functions } = setUp({}, away, ok)
      await functions.invoke('orders', { headers: { [name]: 'mine' }, action: 'checkout-1' })
      await functions.invoke('orders', { action: 'checkout-1' })
      expect(keys()).toEqual(['mine', 'mine', expect.stringMatching(uuid)])
    },
  )

  test('no key with a GET, which is repeated as well', async () => {
    const { functions } = setUp({}, away, ok)
    expect(await functions.invoke('orders', { method: 'GET' })).toMatchObject({ data: { id: 7 } })
    expect(keys()).toEqual([undefined, undefined])
  })

  test('keys that the application makes', async () => {
    server.script(ok)
    let made = 0
    const functions = withIdempotencyKey(supabaseFunctions(), { newKey: () => `key-${++made}` })
    await functions.invoke('orders')
    await functions.invoke('orders')
    expect(keys()).toEqual(['key-1', 'key-2'])
  })
})

describe('withIdempotencyKey() tries again under the same key', () => {
  test.each<[string, Step]>([
    ['an answer 503', away],
    ['an answer 500', { status: 500 }],
    ['an answer 546 of the platform', { status: 546 }],
    ['an answer 429', { status: 429 }],
    ['an answer 409 IDEMPOTENCY_KEY_IN_USE', inUse],
    ['a relay that failed', { status: 404, headers: { 'x-relay-error': 'true' } }],
    ['a connection that was cut', 'cut'],
    ['an answer that broke off', 'cut body'],
  ])('after %s', async (_, step) => {
    const { functions } = setUp({}, step, ok)
    expect(await functions.invoke('orders', { body: { a: 1 } })).toMatchObject({
      data: { id: 7 },
      error: null,
    })
    expect(server.requests.map(({ body }) => body)).toEqual(['{"a":1}', '{"a":1}'])
    expect(keys()[0]).toMatch(uuid)
    expect(distinctKeys()).toBe(1)
  })

  test('after the time that Retry-After says', async () => {
    const { functions, timers } = setUp({}, inUse, ok)
    await functions.invoke('orders')
    expect(timers.waits).toEqual([2_100])
  })

  test('up to three times, and gives the last answer, which can be read', async () => {
    const { functions } = setUp({}, away, away, { status: 503, body: { error: { code: 'LAST' } } })
    const { data, error, response } = await functions.invoke('orders')
    expect(data).toBeNull()
    expect(error.name).toBe('FunctionsHttpError')
    expect(error.context).toBe(response)
    expect(await error.context.json()).toEqual({ error: { code: 'LAST' } })
    expect(server.requests).toHaveLength(3)
    expect(distinctKeys()).toBe(1)
  })

  test('up to three times without any answer', async () => {
    const { functions } = setUp({}, 'cut')
    expect(await functions.invoke('orders')).toMatchObject({
      data: null,
      error: { name: 'FunctionsFetchError' },
    })
    expect(server.requests).toHaveLength(3)
  })

  test('when the timeout of supabase-js is over', async () => {
    const { functions } = setUp({}, 'hang', ok)
    expect(await functions.invoke('orders', { timeout: 100 })).toMatchObject({ data: { id: 7 } })
    expect(distinctKeys()).toBe(1)
  })

  test('when the time limit of an attempt is over', async () => {
    server.script('hang', ok)
    const functions = withIdempotencyKey(supabaseFunctions(), {
      retry: { initialDelayMs: 1, attemptTimeoutMs: 150 },
    })
    expect(await functions.invoke('orders')).toMatchObject({ data: { id: 7 } })
    expect(distinctKeys()).toBe(1)
  })

  test('never a stream, which can be sent only once', async () => {
    const { functions } = setUp({}, away, ok)
    const body = new Blob(['text']).stream()
    const { error } = await functions.invoke('orders', { body, headers: { 'content-type': 'text/plain' } })
    expect(error.context.status).toBe(503)
    expect(server.requests).toHaveLength(1)
  })

  test.each([400, 401, 403, 404, 409, 422, 501])('never after an answer %i', async (status) => {
    const { functions } = setUp({}, { status, body: { error: { code: 'CONFLICT' } } }, ok)
    const { error } = await functions.invoke('orders')
    expect(await error.context.json()).toEqual({ error: { code: 'CONFLICT' } })
    expect(server.requests).toHaveLength(1)
  })

  test('within its budget, and tells whoever observes of the errors of supabase-js', async () => {
    const onRetry = vi.fn()
    const budget = new RetryBudget({ reserve: 1, perMinute: 0 })
    const { functions } = setUp({ budget, onRetry }, away)
    await functions.invoke('orders')
    expect(server.requests).toHaveLength(2)
    expect(onRetry).toHaveBeenCalledExactlyOnceWith({
      error: expect.objectContaining({ name: 'FunctionsHttpError' }),
      attempt: 1,
      delayMs: 100,
    })
  })

  test('by a policy that is checked when it is made', () => {
    expect(() => withIdempotencyKey(supabaseFunctions(), { retry: { attempts: 0 } })).toThrow(RangeError)
  })
})

describe('withIdempotencyKey() keeps the key of an action', () => {
  const action = 'checkout-42'

  test.each<[string, Step]>([
    ['nobody answered', 'cut'],
    ['the answer broke off', 'cut body'],
    ['the answer was 503', away],
    ['the answer was 501', { status: 501 }],
    ['it was still running', inUse],
    ['the relay failed', { status: 404, headers: { 'x-relay-error': 'true' } }],
    ['the answer cannot be read', { status: 200, body: '{"a":' }],
  ])('while %s', async (_, step) => {
    const { functions } = setUp({ attempts: 1 }, step, ok)
    expect((await functions.invoke('orders', { action })).error).not.toBeNull()
    expect((await functions.invoke('orders', { action })).error).toBeNull()
    expect(distinctKeys()).toBe(1)
  })

  test.each<[string, Step]>([
    ['2xx', ok],
    ['400', { status: 400 }],
    ['409 of another kind', { status: 409, body: { error: { code: 'CONFLICT' } } }],
    ['422', { status: 422 }],
  ])('until the answer is %s', async (_, step) => {
    const { functions } = setUp({}, away, step)
    for (let call = 0; call < 3; call++) await functions.invoke('orders', { action })
    const [first, second, third, fourth] = keys()
    expect(second).toBe(first)
    expect(new Set([second, third, fourth]).size).toBe(3)
  })

  test('apart from other actions and other functions', async () => {
    const { functions } = setUp({ attempts: 1 }, 'cut')
    for (
      const [name, action] of [['orders', 'a'], ['orders', 'b'], ['refunds', 'a'], ['orders', 'a']] as const
    ) {
      await functions.invoke(name, { action })
    }
    expect(distinctKeys()).toBe(3)
    expect(keys()[3]).toBe(keys()[0])
  })

  test('for concurrent calls: the second click repeats the first', async () => {
    const { functions } = setUp({}, away, away, ok)
    await Promise.all([functions.invoke('orders', { action }), functions.invoke('orders', { action })])
    expect(server.requests.length).toBeGreaterThanOrEqual(4)
    expect(distinctKeys()).toBe(1)
  })

  test('that a later call has begun, when an earlier one is answered late', async () => {
    const late = Promise.withResolvers<{ data: unknown; error: null }>()
    const answers: Promise<unknown>[] = [
      late.promise,
      Promise.resolve({ data: 1, error: null }),
      Promise.resolve({ data: null, error: new Error('?') }),
      Promise.resolve({ data: 2, error: null }),
    ]
    const used: string[] = []
    const functions = withIdempotencyKey({
      invoke(_name: string, { headers }: { headers: Record<string, string> }) {
        used.push(headers['Idempotency-Key']!)
        // deno-lint-ignore no-explicit-any -- whatever supabase-js would answer
        return answers.shift() as any
      },
    })
    const call = () => functions.invoke('orders', { action } as never)
    const first = call()
    await call()
    await call()
    late.resolve({ data: 0, error: null })
    await first
    await call()
    expect(used[1]).toBe(used[0])
    expect(used[2]).not.toBe(used[0])
    expect(used[3]).toBe(used[2])
  })

  test('for a day, as long as a server keeps the answer', async () => {
    const { functions, timers } = setUp({ attempts: 1 }, 'cut')
    await functions.invoke('orders', { action })
    timers.jump(86_399_000)
    await functions.invoke('orders', { action })
    timers.jump(1_000)
    await functions.invoke('orders', { action })
    const [first, second, third] = keys()
    expect(second).toBe(first)
    expect(third).not.toBe(first)
  })

  test('and never sends its name', async () => {
    const { functions } = setUp({}, ok)
    await functions.invoke('orders', { action, body: { a: 1 } })
    expect(JSON.stringify(server.requests)).not.toContain(action)
  })
})

describe('withIdempotencyKey() ends with its signal', () => {
  const aborted = { data: null, error: { name: 'FunctionsFetchError', context: { name: 'AbortError' } } }

  test('before anything is sent', async () => {
    const { functions } = setUp({}, ok)
    expect(await functions.invoke('orders', { signal: AbortSignal.abort() })).toMatchObject(aborted)
    expect(server.requests).toEqual([])
  })

  test('while it waits for the answer, as supabase-js does, and keeps the key', async () => {
    const { functions } = setUp({}, 'hang', ok)
    const controller = new AbortController()
    const answer = functions.invoke('orders', { action: 'a', signal: controller.signal })
    await waitFor(() => server.requests.length === 1, { what: 'the request' })
    controller.abort()
    expect(await answer).toMatchObject(aborted)
    await functions.invoke('orders', { action: 'a' })
    expect(server.requests).toHaveLength(2)
    expect(distinctKeys()).toBe(1)
  })

  test('in a pause, with the last answer, and keeps the key', async () => {
    server.script(inUse, ok)
    const controller = new AbortController()
    const functions = withIdempotencyKey(supabaseFunctions(), {
      retry: { onRetry: () => controller.abort() },
    })
    const { error } = await functions.invoke('orders', { action: 'a', signal: controller.signal })
    expect(await error.context.json()).toMatchObject({ error: { code: 'IDEMPOTENCY_KEY_IN_USE' } })
    await functions.invoke('orders', { action: 'a' })
    expect(server.requests).toHaveLength(2)
    expect(distinctKeys()).toBe(1)
  })
})

/** resilience/withIdempotencyKey.ts where answers are odd, late or endless: supabase-js's own client over a fetch of the test. */
import { createClient } from '@supabase/supabase-js'
import { describe, expect, test, vi } from 'vitest'
import {
  type IdempotencyKeyOptions,
  withIdempotencyKey,
} from '../../../supabase/functions/_shared/resilience/withIdempotencyKey.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

type Answer = Response | Error | Promise<Response>

/** Gives one answer for each request in turn; each pause passes as it begins. */
function setUp(answers: Answer[], { retry, ...options }: IdempotencyKeyOptions = {}) {
  const timers = new FakeTimers()
  const keys: (string | null)[] = []
  const send = vi.fn((_input: unknown, init?: RequestInit): Promise<Response> => {
    keys.push(new Headers(init?.headers).get('idempotency-key'))
    const answer = answers.shift()!
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer)
  })
  const { functions } = createClient('http://x', 'sb_publishable_test', {
    global: { fetch: send },
    auth: { persistSession: false, autoRefreshToken: false },
  })
  const onRetry = ({ delayMs }: { delayMs: number }) => void timers.advance(delayMs)
  const ours = withIdempotencyKey(functions, {
    retry: { jitter: 'none', timers, onRetry, ...retry },
    ...options,
  })
  return { functions: ours, timers, keys, send }
}

const done = () => Response.json({ done: true })
const status = (status: number, body: BodyInit | null = null) => new Response(body, { status })

/** Answers without an end, and which of them were cancelled. */
function endless() {
  const cancelled: number[] = []
  const answer = (status: number, headers = {}) => {
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(new TextEncoder().encode('data: 1\n\n')),
      cancel: () => void cancelled.push(status),
    })
    return new Response(body, { status, headers })
  }
  return { cancelled, answer }
}

describe('withIdempotencyKey() looks at a 409', () => {
  test('and takes its code outside of an envelope, too', async () => {
    const { functions, send } = setUp([
      Response.json({ code: 'IDEMPOTENCY_KEY_IN_USE' }, { status: 409 }),
      done(),
    ])
    expect(await functions.invoke('orders')).toMatchObject({ data: { done: true }, error: null })
    expect(send).toHaveBeenCalledTimes(2)
  })

  test.each([
    ['no body', null],
    ['no JSON', 'IDEMPOTENCY_KEY_IN_USE'],
    ['null', 'null'],
    ['a list', '["IDEMPOTENCY_KEY_IN_USE"]'],
    ['the code in another place', '{"message":"IDEMPOTENCY_KEY_IN_USE"}'],
  ])('and takes one with %s for definite', async (_, body) => {
    const { functions, send } = setUp([status(409, body), done()])
    const { error } = await functions.invoke('orders')
    expect(error.context.status).toBe(409)
    expect(await error.context.text()).toBe(body ?? '')
    expect(send).toHaveBeenCalledOnce()
  })
})

describe('withIdempotencyKey() cancels', () => {
  test('the bodies of all answers but the last', async () => {
    const { cancelled, answer } = endless()
    const { functions } = setUp([answer(503), answer(502), answer(500)])
    expect((await functions.invoke('orders')).response!.status).toBe(500)
    expect(cancelled).toEqual([503, 502])
  })

  test('the body of an answer that came after its attempt was given up', async () => {
    const { cancelled, answer } = endless()
    const late = Promise.withResolvers<Response>()
    const { functions, timers } = setUp([late.promise, done()], { retry: { attemptTimeoutMs: 70 } })
    const answered = functions.invoke('orders')
    await timers.advance(70)
    expect(await answered).toMatchObject({ data: { done: true } })
    late.resolve(answer(503))
    await vi.waitFor(() => expect(cancelled).toEqual([503]))
    expect(timers.pending).toBe(0)
  })
})

describe('withIdempotencyKey() keeps to its time', () => {
  test('and begins no pause that would end after it', async () => {
    const { functions, send } = setUp([status(503), status(502), done()], { retry: { timeoutMs: 250 } })
    expect((await functions.invoke('orders')).response!.status).toBe(502)
    expect(send).toHaveBeenCalledTimes(2)
  })

  test("but the caller's signal goes on for a stream of events", async () => {
    const events = endless().answer(200, { 'content-type': 'text/event-stream' })
    const { functions, send, timers } = setUp([events], { retry: { attemptTimeoutMs: 70 } })
    const controller = new AbortController()
    const { data } = await functions.invoke('orders', { signal: controller.signal })
    expect(data).toBe(events)
    await timers.advance(1_000)
    const { signal } = send.mock.calls[0]![1]!
    expect(signal!.aborted).toBe(false)
    controller.abort()
    expect(signal!.aborted).toBe(true)
  })
})

describe('an action', () => {
  test('that began anew keeps its new key when a call under the old one ends', async () => {
    const late = Promise.withResolvers<Response>()
    const { functions, keys } = setUp([late.promise, done(), status(500), status(500)], {
      retry: { attempts: 1 },
    })
    const call = () => functions.invoke('orders', { action: 'a' })
    const first = call()
    await call()
    await call()
    late.resolve(done())
    await first
    await call()
    expect(keys[1]).toBe(keys[0])
    expect(keys[2]).not.toBe(keys[0])
    expect(keys[3]).toBe(keys[2])
  })

  test('keeps its key when its call failed for a bug, since nobody knows how far it came', async () => {
    const { functions, keys, send } = setUp([new TypeError('x is not a function'), done()])
    expect((await functions.invoke('orders', { action: 'a' })).error.name).toBe('FunctionsFetchError')
    expect(send).toHaveBeenCalledOnce()
    await functions.invoke('orders', { action: 'a' })
    expect(keys[1]).toBe(keys[0])
  })

  test('whose name is a part of another keeps apart', async () => {
    const { functions, keys } = setUp([done(), done()].map((answer) => Promise.resolve(answer)))
    await Promise.all([
      functions.invoke('orders', { action: 'a","b' }),
      functions.invoke('orders","a', { action: 'b' }),
    ])
    expect(new Set(keys).size).toBe(2)
  })
})

describe('withIdempotencyKey() and what is not its own', () => {
  test('goes on when the observer throws', async () => {
    const onRetry = vi.fn(() => {
      throw new Error('a bug in the observer')
    })
    const { functions, timers } = setUp([status(503), done()], { retry: { onRetry } })
    const answer = functions.invoke('orders')
    await vi.waitFor(() => expect(onRetry).toHaveBeenCalledOnce())
    await timers.advance(100)
    expect(await answer).toMatchObject({ data: { done: true }, error: null })
  })

  test('rejects only where the client, or what makes keys, does', async () => {
    const bug = new Error('a bug')
    const invoke = vi.fn(() => Promise.reject(bug))
    await expect(withIdempotencyKey({ invoke }).invoke('orders')).rejects.toBe(bug)
    expect(invoke).toHaveBeenCalledOnce()
    const newKey = () => {
      throw bug
    }
    const { functions, send } = setUp([], { newKey })
    await expect(functions.invoke('orders')).rejects.toBe(bug)
    expect(send).not.toHaveBeenCalled()
  })

  test("leaves the caller's options as they are", async () => {
    const options = Object.freeze({ headers: Object.freeze({ 'x-mine': '1' }), action: 'a' })
    const { functions, send } = setUp([done()])
    await functions.invoke('orders', options)
    expect(new Headers(send.mock.calls[0]![1]!.headers).get('x-mine')).toBe('1')
    expect(Object.keys(options.headers)).toEqual(['x-mine'])
  })

  test.each([
    ['attempts', [NaN, Infinity, -1, 0, 1.5]],
    ['initialDelayMs', [NaN, Infinity, -1, 0]],
    ['attemptTimeoutMs', [NaN, Infinity, -1, 0]],
  ])('refuses a wrong %s', (name, values) => {
    for (const value of values) {
      expect(() => withIdempotencyKey({ invoke: vi.fn() }, { retry: { [name]: value } })).toThrow(RangeError)
    }
  })
})

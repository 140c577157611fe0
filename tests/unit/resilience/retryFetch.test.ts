/** resilience/retryFetch.ts against a real server. Time passes in the pauses only, and when a test says so. */
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { RetryBudget } from '../../../supabase/functions/_shared/resilience/retryBudget.ts'
import {
  createRetryFetch,
  retryFetch,
  type RetryFetchOptions,
} from '../../../supabase/functions/_shared/resilience/retryFetch.ts'
import { Deadline } from '../../../supabase/functions/_shared/resilience/timeout.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'
import { type ScriptedServer, startScriptedServer } from '../../support/scriptedServer.ts'
import { waitFor } from '../../support/wait.ts'

let server: ScriptedServer
beforeAll(async () => void (server = await startScriptedServer()))
beforeEach(() => void server.requests.splice(0))
afterAll(() => server[Symbol.asyncDispose]())

/** Lets each pause pass as it begins, and writes it down. */
function setUp(options: RetryFetchOptions = {}) {
  const timers = new FakeTimers()
  const pauses: number[] = []
  const retryingFetch = createRetryFetch({
    jitter: 'none',
    timers,
    onRetry({ delayMs }) {
      pauses.push(delayMs)
      void timers.advance(delayMs)
    },
    ...options,
  })
  return { timers, pauses, fetch: retryingFetch }
}

/** Answers whose bodies have no end, and how many of them were cancelled. */
function endlessAnswers(...statuses: number[]) {
  const cancelled: number[] = []
  const send = vi.fn((_request: Request) => {
    const status = statuses.shift()!
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(new Uint8Array(1)),
      cancel: () => void cancelled.push(status),
    })
    return Promise.resolve(new Response(body, { status }))
  })
  return { cancelled, send }
}

describe('retryFetch() resolves', () => {
  test('to the first answer that is not transient, with its body', async () => {
    server.script({ status: 503 }, { status: 429 }, { status: 200, body: { id: 7 } })
    const { fetch, pauses, timers } = setUp()
    const response = await fetch(`${server.url}/things`)
    expect([response.status, await response.json()]).toEqual([200, { id: 7 }])
    expect(pauses).toEqual([100, 200])
    expect(server.requests.map(({ path }) => path)).toEqual(['/things', '/things', '/things'])
    expect(timers.pending).toBe(0)
  })

  test('to the last answer when all are transient, with its body', async () => {
    server.script({ status: 503 }, { status: 503 }, { status: 502, body: 'the last' })
    const response = await setUp().fetch(server.url)
    expect([response.status, await response.text()]).toEqual([502, 'the last'])
    expect(server.requests).toHaveLength(3)
  })

  test.each([200, 301, 400, 404, 409, 501])('to an answer with status %i at once', async (status) => {
    server.script({ status })
    const response = await setUp().fetch(server.url, { redirect: 'manual' })
    expect(response.status).toBe(status)
    expect(server.requests).toHaveLength(1)
  })

  test('after as long as Retry-After says, and our own pause', async () => {
    server.script({ status: 503, body: '', headers: { 'retry-after': '7' } }, { status: 200 })
    const { fetch, pauses } = setUp()
    await fetch(server.url)
    expect(pauses).toEqual([7_100])
  })

  test('to an answer whose Retry-After is longer than maxRetryAfterMs, at once', async () => {
    server.script({ status: 429, body: 'later', headers: { 'retry-after': '3600' } })
    const response = await setUp().fetch(server.url)
    expect([response.status, await response.text()]).toEqual([429, 'later'])
    expect(server.requests).toHaveLength(1)
  })

  test('to the answer at once when the budget is spent', async () => {
    server.script({ status: 503 })
    const timers = new FakeTimers()
    const { fetch } = setUp({ budget: new RetryBudget({ perMinute: 0, reserve: 1 }, timers) })
    await fetch(server.url)
    await fetch(server.url)
    expect(server.requests).toHaveLength(3)
  })

  test('and adds no more than its budget to the load of a service that is dead: a tenth of 1,000 calls', async () => {
    const timers = new FakeTimers()
    const startedAt = timers.now()
    const send = vi.fn(() => Promise.resolve(new Response(null, { status: 503 })))
    const { fetch } = setUp({
      fetch: send,
      timers,
      budget: new RetryBudget({}, timers),
      onRetry: ({ delayMs }) => void timers.advance(delayMs),
    })
    for (let call = 0; call < 1_000; call++) expect((await fetch('http://x/')).status).toBe(503)
    const minutes = (timers.now() - startedAt) / 60_000
    const retries = send.mock.calls.length - 1_000
    expect(retries).toBeLessThanOrEqual(100 + 10 + 10 * minutes)
    expect(retries).toBeGreaterThanOrEqual(100)
    expect(minutes).toBeLessThan(1)
  })

  test('to what its own predicate takes for definite', async () => {
    server.script({ status: 404 }, { status: 503 })
    const isTransient = (failure: unknown) => failure instanceof Response && failure.status === 404
    expect((await setUp({ isTransient }).fetch(server.url)).status).toBe(503)
    expect(server.requests).toHaveLength(2)
  })

  test('with the options of one call', async () => {
    server.script({ status: 503 })
    expect((await retryFetch(server.url, undefined, { attempts: 1 })).status).toBe(503)
    expect(server.requests).toHaveLength(1)
    expect((await retryFetch(new URL(server.url), { method: 'HEAD' }, { attempts: 1 })).status).toBe(503)
  })
})

describe('retryFetch() sends', () => {
  test.each(['POST', 'PATCH'])('a %s without Idempotency-Key once', async (method) => {
    server.script({ status: 503, body: 'away' }, { status: 200 })
    const response = await setUp().fetch(server.url, { method, body: 'x' })
    expect([response.status, await response.text()]).toEqual([503, 'away'])
    expect(server.requests).toHaveLength(1)
  })

  test('a POST without Idempotency-Key once when the network fails, too', async () => {
    const failure = new TypeError('fetch failed')
    const send = vi.fn(() => Promise.reject(failure))
    await expect(setUp({ fetch: send }).fetch('http://x/', { method: 'POST' })).rejects.toBe(failure)
    expect(send).toHaveBeenCalledOnce()
  })

  const bodies: [string, () => BodyInit][] = [
    ['text', () => 'the body'],
    ['bytes', () => new TextEncoder().encode('the body')],
    ['a blob', () => new Blob(['the body'])],
    ['a stream', () => new Blob(['the ', 'body']).stream()],
  ]

  test.each(bodies)('the same body and headers each time: %s', async (_, body) => {
    server.script({ status: 503 }, { status: 503 }, { status: 200 })
    const { fetch } = setUp()
    const response = await fetch(server.url, {
      method: 'POST',
      headers: { 'idempotency-key': '"a"', 'x-other': 'b' },
      body: body(),
    })
    expect(response.status).toBe(200)
    expect(server.requests.map(({ method, body }) => [method, body])).toEqual(
      Array(3).fill(['POST', 'the body']),
    )
    expect(server.header('idempotency-key')).toEqual(Array(3).fill('"a"'))
    expect(server.header('x-other')).toEqual(Array(3).fill('b'))
  })

  test('a Request as it is', async () => {
    server.script({ status: 503 }, { status: 200 })
    const request = new Request(server.url, { method: 'PUT', body: 'the body' })
    expect((await setUp().fetch(request)).status).toBe(200)
    expect(server.requests.map(({ method, body }) => [method, body])).toEqual(
      Array(2).fill(['PUT', 'the body']),
    )
  })

  test('again what failed on the way', async () => {
    server.script({ status: 200 })
    let attempts = 0
    const send = (request: Request) =>
      ++attempts < 3 ? Promise.reject(new TypeError('fetch failed')) : fetch(request)
    const { fetch: retrying, pauses } = setUp({ fetch: send })
    expect((await retrying(server.url)).status).toBe(200)
    expect(pauses).toEqual([100, 200])
  })

  test('nothing again that failed for a bug, and rejects with it', async () => {
    const bug = new TypeError('x is not a function')
    const send = vi.fn(() => Promise.reject(bug))
    await expect(setUp({ fetch: send }).fetch('http://x/')).rejects.toBe(bug)
    expect(send).toHaveBeenCalledOnce()
  })

  test('nothing to what is no address', async () => {
    const send = vi.fn()
    await expect(setUp({ fetch: send }).fetch('not a url')).rejects.toThrow(TypeError)
    expect(send).not.toHaveBeenCalled()
  })
})

describe('retryFetch() cancels', () => {
  test('the bodies of all answers but the one it resolves to', async () => {
    const { cancelled, send } = endlessAnswers(503, 502, 200)
    const response = await setUp({ fetch: send }).fetch('http://x/')
    expect(response.status).toBe(200)
    expect(cancelled).toEqual([503, 502])
  })

  test('no body of the last answer when all are transient', async () => {
    const { cancelled, send } = endlessAnswers(503, 502, 500)
    const response = await setUp({ fetch: send }).fetch('http://x/')
    expect(response.status).toBe(500)
    expect(cancelled).toEqual([503, 502])
  })

  test('the body of an answer behind which it was aborted', async () => {
    const { cancelled, send } = endlessAnswers(503)
    const controller = new AbortController()
    const { fetch, timers } = setUp({ fetch: send, onRetry: () => controller.abort() })
    await expect(fetch('http://x/', { signal: controller.signal })).rejects.toThrow('aborted')
    expect(cancelled).toEqual([503])
    expect(timers.pending).toBe(0)
  })

  test('the body of an answer at which the predicate throws', async () => {
    const { cancelled, send } = endlessAnswers(200)
    const bug = new Error('a bug in the predicate')
    const isTransient = () => {
      throw bug
    }
    await expect(setUp({ fetch: send, isTransient }).fetch('http://x/')).rejects.toBe(bug)
    expect(cancelled).toEqual([200])
  })

  test('the body of an answer that came after its attempt was given up, and resolves to a later one', async () => {
    const { cancelled, send: answer } = endlessAnswers(503, 502)
    const late = Promise.withResolvers<void>()
    const send = vi.fn((request: Request) => {
      const response = answer(request)
      return send.mock.calls.length === 1 ? late.promise.then(() => response) : response
    })
    const { fetch, timers } = setUp({
      fetch: send,
      attempts: 2,
      attemptTimeoutMs: 70,
      // Attempt 1 was given up; its answer comes while attempt 2 has been answered and nobody has looked yet.
      isTransient: (failure) => {
        if (failure instanceof Response) late.resolve()
        return true
      },
    })
    const response = fetch('http://x/')
    await timers.advance(70)
    expect((await response).status).toBe(502)
    await late.promise
    await vi.waitFor(() => expect(cancelled).toEqual([503]))
  })
})

describe('retryFetch() keeps to its time', () => {
  test.each([
    ['of 10 s by default', {}, 10_000],
    ['of 10 s where the option is undefined', { attemptTimeoutMs: undefined }, 10_000],
    ['of its own', { attemptTimeoutMs: 70 }, 70],
  ])('for each attempt: %s', async (_, options, limitMs) => {
    server.script('hang', { status: 200, body: 'at last' })
    const { fetch, timers, pauses } = setUp(options)
    const response = fetch(server.url)
    await waitFor(() => server.requests.length === 1, { what: 'the request' })
    await timers.advance(limitMs - 1)
    expect(pauses).toEqual([])
    await timers.advance(1)
    expect(await (await response).text()).toBe('at last')
    expect(pauses).toEqual([100])
    expect(timers.pending).toBe(0)
  })

  test('and rejects with UPSTREAM_TIMEOUT when no attempt had an answer', async () => {
    server.script('hang')
    const { fetch, timers } = setUp({ attemptTimeoutMs: 70, attempts: 1 })
    const rejected = expect(fetch(server.url)).rejects.toMatchObject({ code: 'UPSTREAM_TIMEOUT' })
    await waitFor(() => server.requests.length === 1, { what: 'the request' })
    await timers.advance(70)
    await rejected
  })

  test('but not for the body, which may take as long as it wants', async () => {
    const rest = Promise.withResolvers<void>()
    await using slow = startSlowServer(rest.promise)
    const { fetch, timers } = setUp({ attemptTimeoutMs: 70 })
    const response = await fetch(slow.url)
    await timers.advance(60_000)
    rest.resolve()
    expect(await response.text()).toBe('the body')
  })

  test('and that of whoever calls: no pause goes past the deadline', async () => {
    server.script({ status: 503 })
    const { fetch, timers } = setUp()
    const response = await fetch(server.url, { deadline: Deadline.in(250, timers) })
    expect(response.status).toBe(503)
    expect(server.requests).toHaveLength(2)
  })

  test('and sends nothing when the deadline has passed', async () => {
    const send = vi.fn()
    const { fetch, timers } = setUp({ fetch: send })
    const deadline = Deadline.in(250, timers)
    timers.jump(250)
    await expect(fetch('http://x/', { deadline })).rejects.toMatchObject({ code: 'UPSTREAM_TIMEOUT' })
    expect(send).not.toHaveBeenCalled()
  })
})

describe('retryFetch() ends with its signal', () => {
  const reason = new Error('the client has left')

  test('before the answer', async () => {
    server.script('hang')
    const controller = new AbortController()
    const { fetch, timers } = setUp()
    const rejected = expect(fetch(server.url, { signal: controller.signal })).rejects.toBe(reason)
    await waitFor(() => server.requests.length === 1, { what: 'the request' })
    controller.abort(reason)
    await rejected
    expect(server.requests).toHaveLength(1)
    expect(timers.pending).toBe(0)
  })

  test('that of a Request, too', async () => {
    const controller = new AbortController()
    controller.abort(reason)
    const send = vi.fn()
    const request = new Request('http://x/', { signal: controller.signal })
    await expect(setUp({ fetch: send }).fetch(request)).rejects.toBe(reason)
    expect(send).not.toHaveBeenCalled()
  })

  test('in the body of the answer', async () => {
    const rest = Promise.withResolvers<void>()
    await using slow = startSlowServer(rest.promise)
    const controller = new AbortController()
    const response = await setUp().fetch(slow.url, { signal: controller.signal })
    const rejected = expect(response.text()).rejects.toBe(reason)
    controller.abort(reason)
    await rejected
    rest.resolve()
  })
})

test.each([NaN, Infinity, -1, 0])(
  'createRetryFetch() refuses attemptTimeoutMs %s',
  async (attemptTimeoutMs) => {
    expect(() => createRetryFetch({ attemptTimeoutMs })).toThrow(RangeError)
    await expect(retryFetch('http://x/', {}, { attemptTimeoutMs })).rejects.toThrow(RangeError)
  },
)

/** Answers with a body whose second part comes when `between` resolves. */
function startSlowServer(between: Promise<void>) {
  const encoder = new TextEncoder()
  const answer = () =>
    new ReadableStream({
      start: (controller) => controller.enqueue(encoder.encode('the ')),
      async pull(controller) {
        await between
        controller.enqueue(encoder.encode('body'))
        controller.close()
      },
    })
  const controller = new AbortController()
  const { addr, finished } = Deno.serve({
    hostname: '127.0.0.1',
    port: 0,
    signal: controller.signal,
    onListen() {},
  }, () => new Response(answer()))
  return {
    url: `http://127.0.0.1:${addr.port}`,
    async [Symbol.asyncDispose]() {
      controller.abort()
      await finished
    },
  }
}

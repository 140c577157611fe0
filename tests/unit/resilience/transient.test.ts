/** resilience/transient.ts: what may succeed later, and what may be sent again. */
import { FunctionsFetchError, FunctionsHttpError, FunctionsRelayError } from '@supabase/supabase-js'
import { createServer, type Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { errorCodes, HoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import { CommitUnknownError, toDatabaseError } from '../../../supabase/functions/_shared/db/databaseError.ts'
import {
  isTransient,
  isTransientStatus,
  mayRepeat,
} from '../../../supabase/functions/_shared/resilience/transient.ts'

const coded = (code: string) => Object.assign(new Error(code), { code })
const named = (name: string) => Object.assign(new Error(name), { name })

describe('isTransientStatus()', () => {
  const transient = [408, 425, 429, 500, 502, 503, 504, 507, 520, 546, 599]

  test('is true of 408, 425, 429 and 5xx, without 501 and 505', () => {
    const found = Array.from({ length: 500 }, (_, index) => index + 100).filter(isTransientStatus)
    expect(found.filter((status) => status < 500)).toEqual([408, 425, 429])
    expect(found).toEqual(expect.arrayContaining(transient))
    expect(found).toHaveLength(3 + 98)
    expect(found).not.toEqual(expect.arrayContaining([501]))
    expect(found).not.toEqual(expect.arrayContaining([505]))
  })

  test.each([NaN, 0, -500, 600, 1_000, Infinity])('is false of %s', (status) => {
    expect(isTransientStatus(status)).toBe(false)
  })
})

describe('isTransient()', () => {
  test.each([
    ['a response with status 503', new Response(null, { status: 503 })],
    ['an error with status 503', Object.assign(new Error('x'), { status: 503 })],
    ['a HoldfastError that says so', new HoldfastError('MINE', 'Not now', { retryable: true })],
    ['a serialization failure', coded('40001')],
    ['a deadlock', coded('40P01')],
    ['a lost connection, by SQLSTATE', coded('08006')],
    ['a connection that could not be made, by SQLSTATE', coded('08001')],
    ['a server that goes down', coded('57P01')],
    ['a server that has crashed', coded('57P02')],
    ['a server that comes up', coded('57P03')],
    ['a server without room', coded('53300')],
    ['a lost connection of the postgres package', coded('CONNECTION_CLOSED')],
    ['a connection that postgres could not make in time', coded('CONNECT_TIMEOUT')],
    ['a reset connection', coded('ECONNRESET')],
    ['a refused connection', coded('ECONNREFUSED')],
    ['a broken pipe', coded('EPIPE')],
    ['a connection that Deno was refused', named('ConnectionRefused')],
    ['a timeout of AbortSignal.timeout()', new DOMException('x', 'TimeoutError')],
    ['a time limit of ours', new HoldfastError('UPSTREAM_TIMEOUT', 'x')],
    ['what is behind an error', new Error('Cannot pay', { cause: coded('ECONNRESET') })],
    ['what is far behind an error', new Error('a', { cause: new Error('b', { cause: coded('40001') }) })],
    ['an answer behind an error of supabase-js', new FunctionsHttpError(new Response(null, { status: 503 }))],
    ['a failed fetch behind an error of supabase-js', new FunctionsFetchError(new TypeError('fetch failed'))],
    ['a relay of Supabase that failed', new FunctionsRelayError(new Response(null, { status: 404 }))],
  ])('is true of %s', (_, failure) => {
    expect(isTransient(failure)).toBe(true)
  })

  const circle: Error = new Error('a')
  circle.cause = new Error('b', { cause: circle })

  test.each([
    ['a response with status 404', new Response(null, { status: 404 })],
    ['an error with status 404', Object.assign(new Error('x'), { status: 404 })],
    ['a commit whose outcome is unknown', new CommitUnknownError(coded('ECONNRESET'))],
    ['one that another bundle made', new HoldfastError('COMMIT_UNKNOWN', 'x')],
    ['one that claims to be retryable', new HoldfastError('COMMIT_UNKNOWN', 'x', { retryable: true })],
    ['one that is wrapped', new Error('x', { cause: new CommitUnknownError(undefined) })],
    ['a transaction that PostgreSQL itself cannot tell of', coded('08007')],
    ['a HoldfastError that says so', new HoldfastError('UPSTREAM_ERROR', 'Never', { retryable: false })],
    ['a HoldfastError for a bug', new HoldfastError('INTERNAL_ERROR', 'x', { cause: coded('ECONNRESET') })],
    ['a unique violation', coded('23505')],
    ['a syntax error in SQL', coded('42601')],
    ['a code that only begins like one', coded('40001x')],
    ['an aborted call', new DOMException('x', 'AbortError')],
    ['an aborted call behind an error', new FunctionsFetchError(new DOMException('x', 'AbortError'))],
    ['an aborted call with a code', Object.assign(named('AbortError'), { code: 'ECONNRESET' })],
    ['a bug', new TypeError("Cannot read properties of undefined (reading 'fetch')")],
    ['a bug that mentions the network', new TypeError('network error is not a function')],
    ['a bug in the name of fetch', new TypeError('fetch failed is not defined')],
    ['an address that is none', new TypeError("Invalid URL: 'fetch failed'")],
    ['a port that may not be used', new TypeError('Fetch failed: Requests to port 1 are blocked')],
    ['a message without its class', new Error('fetch failed')],
    ['an unknown error', new Error('?')],
    ['a circle of causes', circle],
    ['an error that is its own cause', Object.assign(new Error('x'), { cause: 'x' })],
    ['a text', 'ECONNRESET'],
    ['an object that is no error', { status: 503, code: 'ECONNRESET' }],
    ['null', null],
    ['undefined', undefined],
  ])('is false of %s', (_, failure) => {
    expect(isTransient(failure)).toBe(false)
  })

  test('follows the word of every code of ours but COMMIT_UNKNOWN', () => {
    for (const code of Object.keys(errorCodes)) {
      const error = new HoldfastError(code, 'x')
      expect([code, isTransient(error)]).toEqual([code, code !== 'COMMIT_UNKNOWN' && error.retryable])
    }
  })

  test('is true of what db/databaseError.ts makes of a lost connection', () => {
    expect(isTransient(toDatabaseError(coded('CONNECTION_CLOSED')))).toBe(true)
  })
})

describe('isTransient() knows a failed fetch', () => {
  test.each([
    'fetch failed',
    'error sending request for url (http://x/): client error (Connect): tcp connect error: Connection refused (os error 111)',
    'error reading a body from connection: end of file before message length reached',
    'terminated',
    'Failed to fetch',
    'Failed to fetch (api.example.com)',
    'network error',
    'NetworkError when attempting to fetch resource.',
    'Error in input stream',
    'Load failed',
    'Load failed (api.example.com)',
    'The network connection was lost.',
    'Network request failed',
  ])('by the words "%s"', (message) => {
    expect(isTransient(new TypeError(message))).toBe(true)
  })

  const faults: [string, (socket: Socket) => void][] = [
    ['closes the connection', (socket) => socket.destroy()],
    ['resets the connection', (socket) => socket.resetAndDestroy()],
    ['breaks off its body', (socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"a":')],
    [
      'breaks off a chunk',
      (socket) => socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{"a":'),
    ],
  ]

  test.each(faults)('of Deno and of Node, from a server that %s', async (_, fault) => {
    await using server = await faultyServer(fault)
    const failure = await fetch(server.url).then((response) => response.text()).catch((error) => error)
    expect(failure).toBeInstanceOf(TypeError)
    expect(isTransient(failure)).toBe(true)
    expect(isTransient(await failureInNode(server.url))).toBe(true)
  })

  test('of Deno and of Node, where nobody listens', async () => {
    const server = await faultyServer(() => {})
    await server[Symbol.asyncDispose]()
    expect(isTransient(await fetch(server.url).catch((error) => error))).toBe(true)
    expect(isTransient(await failureInNode(server.url))).toBe(true)
  })

  test.each(['foo://x', 'http://127.0.0.1:1/', 'not a url'])(
    'not of Deno and of Node for %s',
    async (url) => {
      expect(isTransient(await fetch(url).catch((error) => error))).toBe(false)
      expect(isTransient(await failureInNode(url))).toBe(false)
    },
  )
})

describe('mayRepeat()', () => {
  test.each(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'get', 'put'])('is true of %s', (method) => {
    expect(mayRepeat({ method, headers: new Headers() })).toBe(true)
  })

  test.each(['POST', 'PATCH', 'post', 'CONNECT', ''])(
    'is true of %j only with an idempotency key',
    (method) => {
      expect(mayRepeat({ method, headers: new Headers() })).toBe(false)
      expect(mayRepeat({ method, headers: new Headers({ 'idempotency-key': ' ' }) })).toBe(false)
      expect(mayRepeat({ method, headers: new Headers({ 'Idempotency-Key': '"a"' }) })).toBe(true)
    },
  )
})

/** Answers the first bytes of a request with a fault. */
async function faultyServer(fault: (socket: Socket) => void) {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', () => fault(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  return {
    url: `http://127.0.0.1:${port}/`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** The error of Node's own fetch, built again here: Node cannot load our file. */
async function failureInNode(url: string): Promise<unknown> {
  const script = `fetch(process.argv[1]).then((response) => response.text()).catch((error) =>
    console.log(JSON.stringify({
      name: error.name, message: error.message,
      cause: error.cause && { message: error.cause.message, code: error.cause.code },
    })))`
  const { stdout } = await new Deno.Command('node', { args: ['-e', script, url] }).output()
  const { name, message, cause } = JSON.parse(new TextDecoder().decode(stdout))
  expect(name).toBe('TypeError')
  return new TypeError(message, {
    cause: cause && Object.assign(new Error(cause.message), { code: cause.code }),
  })
}

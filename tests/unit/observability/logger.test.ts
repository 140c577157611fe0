import { describe, expect, test } from 'vitest'
import { createLogger, type LogLevel } from '../../../supabase/functions/_shared/observability/logger.ts'

function capture(options: { level?: LogLevel; context?: Record<string, unknown> } = {}) {
  const lines: string[] = []
  const log = createLogger({ ...options, now: () => 0, write: (_, line) => lines.push(line) })
  return { log, lines, parsed: () => lines.map((line) => JSON.parse(line)) }
}

test('a line is one JSON object with level, message, time, context and fields', () => {
  const { log, parsed } = capture({ context: { function: 'orders', isolate: 'i-1' } })
  log.with({ requestId: 'r-1', ip: undefined }).with({ userId: 'u-1' }).info('done', {
    status: 201,
    durationMs: 1.5,
  })
  expect(parsed()).toEqual([{
    level: 'info',
    message: 'done',
    time: '1970-01-01T00:00:00.000Z',
    function: 'orders',
    isolate: 'i-1',
    requestId: 'r-1',
    userId: 'u-1',
    status: 201,
    durationMs: 1.5,
  }])
})

test('context given to one logger does not reach its parent', () => {
  const { log, parsed } = capture()
  log.with({ requestId: 'r-1' })
  log.info('x')
  expect(parsed()[0]).not.toHaveProperty('requestId')
})

test.each(
  [
    ['debug', ['debug', 'info', 'warn', 'error']],
    ['info', ['info', 'warn', 'error']],
    ['warn', ['warn', 'error']],
    ['error', ['error']],
  ] as const,
)('at level %s the lines written are %j', (level, written) => {
  const { log, parsed } = capture({ level })
  for (const each of ['debug', 'info', 'warn', 'error'] as const) log[each]('x')
  expect(parsed().map((line) => line.level)).toEqual(written)
})

describe('secrets', () => {
  test.each([
    'authorization',
    'apikey',
    'api_key',
    'password',
    'newPassword',
    'client_secret',
    'accessToken',
    'refresh_token',
    'cookie',
    'Set-Cookie',
    'jwt',
    'cardNumber',
    'privateKey',
  ])('a field named %s is redacted at any depth', (name) => {
    const { log, lines } = capture()
    log.info('x', { [name]: 'hunter2', nested: { list: [{ [name]: 'hunter2' }] } })
    expect(lines[0]).not.toContain('hunter2')
    expect(lines[0]?.match(/\[redacted\]/g)).toHaveLength(2)
  })

  test.each([
    ['a JWT', 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl'],
    ['a secret key', 'sb_secret_N7UND0UgjKTVK-Uodkm0Hg'],
    ['a provider key', 'sk_live_51H8abcdef'],
    ['a webhook secret', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'],
    ['a bearer', 'Bearer abcdef0123456789'],
    ['a password in a URL', 'postgresql://postgres:hunter2hunter2@db:5432/x'],
  ])('%s in a message, a text or an error is redacted', (_, text) => {
    const secret = text.replace(/^Bearer |^postgresql:\/\/postgres:|@db.*$/g, '')
    const { log, lines } = capture()
    log.error(`failed with ${text}`, {
      note: `see ${text}`,
      error: new Error(text, { cause: { deep: text } }),
    })
    expect(lines[0]).not.toContain(secret)
    expect(lines[0]).toContain('[redacted]')
  })

  test('ordinary values stay as they are', () => {
    const { log, parsed } = capture()
    log.info('x', { orderId: 'a-1', url: 'https://example.com/a?b=c', list: [1, true, null] })
    expect(parsed()[0]).toMatchObject({
      orderId: 'a-1',
      url: 'https://example.com/a?b=c',
      list: [1, true, null],
    })
  })
})

describe('whatever is logged', () => {
  const circular: Record<string, unknown> = {}
  circular.self = circular
  const deep = Array.from({ length: 500 }).reduce<unknown>((inner) => ({ inner }), 'end')
  const hostile = {
    get trap() {
      throw new Error('a getter that throws')
    },
  }

  test.each([
    ['a circle', circular],
    ['500 levels', deep],
    ['a throwing getter', hostile],
    ['bytes', new Uint8Array(1_000_000)],
    ['a megabyte of text', 'x'.repeat(1_000_000)],
    ['100,000 entries', Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`k${i}`, i]))],
    ['a bigint', 10n ** 30n],
    ['NaN', Number.NaN],
    ['a symbol', Symbol('s')],
    ['a function', () => 1],
    ['an invalid date', new Date(Number.NaN)],
    ['headers', new Headers({ authorization: 'Bearer abcdef0123456789' })],
    ['line breaks and quotes', 'a\n"b"\u2028\0'],
  ])('%s: the line is JSON, one line, and short enough for the platform', (_, value) => {
    const { log, lines, parsed } = capture()
    log.info('x', { value, after: 1 })
    expect(parsed()[0]).toMatchObject({ level: 'info', message: 'x' })
    expect(lines[0]).not.toContain('\n')
    expect(lines[0]!.length).toBeLessThanOrEqual(10_000)
  })

  test('an error keeps its name, code, stack and causes', () => {
    const { log, parsed } = capture()
    const error = Object.assign(new TypeError('above', { cause: new Error('below') }), { code: 'E1' })
    log.error('x', { error })
    expect(parsed()[0].error).toMatchObject({
      name: 'TypeError',
      message: 'above',
      code: 'E1',
      stack: expect.stringContaining('logger.test'),
      cause: { name: 'Error', message: 'below' },
    })
  })
})

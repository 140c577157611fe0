import { describe, expect, test } from 'vitest'
import { clientIp, requestIdOf, setCorsHeaders } from '../../../supabase/functions/_shared/http/headers.ts'

describe('requestIdOf()', () => {
  test.each(['abc', '0e36b4cb-0254-4f4a-b386-785c1130c8e5', 'Root=1-67891233:abc_def.1'])(
    'adopts %s',
    (id) => {
      expect(requestIdOf(new Headers({ 'x-request-id': id.replace('=', '.') }))).toBe(id.replace('=', '.'))
    },
  )

  test.each(['', 'has space', 'quote"', 'x'.repeat(129), '<script>', '{}'])(
    'makes a new one instead of %j',
    (id) => {
      expect(requestIdOf(new Headers({ 'x-request-id': id }))).toMatch(/^[\da-f-]{36}$/)
    },
  )
})

describe('clientIp()', () => {
  const ip = (forwarded: string | undefined, hops: number) =>
    clientIp(new Headers(forwarded === undefined ? {} : { 'x-forwarded-for': forwarded }), hops)

  test.each([
    ['203.0.113.7', 1, '203.0.113.7'],
    ['6.6.6.6, 203.0.113.7', 1, '203.0.113.7'],
    ['6.6.6.6, 203.0.113.7, 10.0.0.1', 2, '203.0.113.7'],
    ['203.0.113.7', 2, undefined],
    ['203.0.113.7', 0, undefined],
    ['', 1, undefined],
    [undefined, 1, undefined],
  ])('of %j behind %i trusted proxies is %j', (forwarded, hops, expected) => {
    expect(ip(forwarded, hops)).toBe(expected)
  })
})

describe('setCorsHeaders()', () => {
  const cors = (origin: string | undefined, allowed: string[]) => {
    const headers = new Headers()
    setCorsHeaders(headers, new Headers(origin === undefined ? {} : { origin }), allowed)
    return headers
  }

  test('allows any origin where any is configured, and says what may be read', () => {
    const headers = cors('https://anywhere.example', ['*'])
    expect(headers.get('access-control-allow-origin')).toBe('*')
    expect(headers.get('access-control-expose-headers')).toMatch(
      /x-request-id.*retry-after.*idempotency-replayed/,
    )
    expect(headers.get('vary')).toBeNull()
  })

  test.each([
    ['https://app.example', 'https://app.example'],
    ['https://evil.example', null],
    ['https://app.example.evil.example', null],
    ['null', null],
    [undefined, null],
  ])('allows of %j, where a list is configured, %j', (origin, expected) => {
    const headers = cors(origin, ['https://app.example', 'https://admin.example'])
    expect([headers.get('access-control-allow-origin'), headers.get('vary')]).toEqual([expected, 'origin'])
  })
})

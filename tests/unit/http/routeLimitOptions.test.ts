/** What a route, or a function, may declare of its limit: refused where it is declared, with what was received. */
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineApi, type LimitOptions, route } from '../../../supabase/functions/_shared/http/api.ts'
import { resolveLimit } from '../../../supabase/functions/_shared/http/limitOptions.ts'
import { openApiDocument } from '../../../supabase/functions/_shared/http/openapi.ts'

const declare = (limit: unknown, path = '/things') =>
  route({
    method: 'POST',
    path,
    auth: 'none',
    summary: 'x',
    response: z.object({}).loose(),
    limit: limit as LimitOptions,
    handler: () => ({ data: {} }),
  })

const define = (limit: unknown, ...routes: ReturnType<typeof route>[]) =>
  defineApi({ name: 'shop', title: 'Shop', limit: limit as LimitOptions, routes })

const bad: [options: unknown, type: typeof TypeError | typeof RangeError, message: RegExp][] = [
  ['60/min', TypeError, /limit must be an object .* received 60\/min/],
  [60, TypeError, /limit must be an object .* received 60/],
  [true, TypeError, /limit must be an object .* received true/],
  [{ policy: '60' }, TypeError, /received '60'/],
  [{ policy: '60/week' }, TypeError, /with s, min, h or d, received '60\/week'/],
  [{ policy: '-1/min' }, TypeError, /received '-1\/min'/],
  [{ policy: '1.5/s' }, TypeError, /received '1\.5\/s'/],
  [{ policy: '0/min' }, RangeError, /quota must be a positive whole number, received 0/],
  [{ policy: [] }, RangeError, /1 to 5 windows, received 0/],
  [{ policy: Array(6).fill('1/s') }, RangeError, /1 to 5 windows, received 6/],
  [{ policy: ['1/s', '1/s'] }, TypeError, /different names/],
  [{ policy: { quota: 5, windowMs: 0 } }, RangeError, /windowMs .* received 0/],
  [{ policy: { quota: 5, windowMs: 1_000, name: 'a "b"' } }, TypeError, /received a "b"/],
  [{ policy: 7 }, TypeError, /received 7/],
  [{ name: '' }, TypeError, /name must be 1 to 80/],
  [{ name: 'two words' }, TypeError, /received two words/],
  [{ name: 'x'.repeat(81) }, TypeError, /received x{81}/],
  [{ name: 'näme' }, TypeError, /received näme/],
  [{ name: 'a\r\nset-cookie:b' }, TypeError, /received a/],
  [{ by: 'account' }, TypeError, /limit\.by must be ip, user, apiKey or a function, received account/],
  [{ by: null }, TypeError, /limit\.by .* received null/],
  [{ cost: 0 }, RangeError, /limit\.cost must be a whole number from 1 to 60, received 0/],
  [{ cost: 1.5 }, RangeError, /limit\.cost .* received 1\.5/],
  [{ cost: NaN }, RangeError, /limit\.cost .* received NaN/],
  [{ cost: '1' }, RangeError, /limit\.cost .* received 1/],
  [{ cost: 61 }, RangeError, /from 1 to 60, received 61/],
  [{ policy: ['10/s', '500/h'], cost: 11 }, RangeError, /from 1 to 10, received 11/],
  [{ algorithm: 'leaky' }, TypeError, /algorithm must be one of gcra, fixed, sliding, received leaky/],
  [{ burst: 0 }, RangeError, /burst .* received 0/],
  [{ burst: 5, algorithm: 'fixed' }, RangeError, /burst is for the algorithm gcra, received 5/],
  [{ onUnavailable: 'maybe' }, TypeError, /onUnavailable must be one of open, closed, local, received maybe/],
  [{ localShare: 0 }, RangeError, /localShare must be in \(0, 1\], received 0/],
  [{ localShare: 1.01 }, RangeError, /localShare .* received 1\.01/],
  [{ storeTimeoutMs: 0 }, RangeError, /storeTimeoutMs .* received 0/],
  [{ denyCacheMs: -1 }, RangeError, /denyCacheMs .* received -1/],
  [{ blockMs: Infinity }, RangeError, /blockMs .* received Infinity/],
  [{ lease: { tokens: 61 } }, RangeError, /lease\.tokens must be a whole number from 1 to 60.* received 61/],
  [{ store: {} }, TypeError, /store must be a store or a function that opens one/],
]

describe.each([
  ['route()', (limit: unknown) => declare(limit)],
  ['defineApi()', (limit: unknown) => define(limit)],
])('%s', (_, make) => {
  test.each(bad)('refuses the limit %j', (options, type, message) => {
    expect(() => make(options)).toThrow(message)
    expect(() => make(options)).toThrow(type)
  })

  test.each([
    {},
    { policy: '1/s' },
    { policy: ['10/s', '500/h'], cost: 10 },
    { by: 'user' },
    { by: () => 'somebody', name: 'theirs' },
    { onUnavailable: 'closed', localShare: 1, denyCacheMs: 0, blockMs: 1_000 },
    { algorithm: 'sliding', policy: { quota: 3, windowMs: 1_500 } },
  ])('takes the limit %j', (options) => {
    expect(() => make(options)).not.toThrow()
  })
})

describe('a declaration', () => {
  test('says which route, or which function, it is of', () => {
    expect(() => declare({ cost: 0 })).toThrow(/^Cannot declare the route POST \/things: limit\.cost/)
    expect(() => define({ by: 'x' })).toThrow(/^Cannot define the function shop: limit\.by/)
  })

  test('of nothing at all is no limit only where it is undefined or false', () => {
    expect(() => define(undefined, declare(undefined), declare(false))).not.toThrow()
    expect(() => define(undefined, declare(null))).toThrow(/limit must be an object .* received null/)
  })

  test('is 60 a minute for each address by default, under the name that it is given', () => {
    const { name, by, cost, options } = resolveLimit({}, 'Cannot', 'mine')
    expect({ name, by, cost, options }).toEqual({
      name: 'mine',
      by: 'ip',
      cost: 1,
      options: { name: 'mine' },
    })
  })

  test('that is undefined in its parts takes the defaults', () => {
    expect(resolveLimit({ by: undefined, cost: undefined, name: undefined }, 'Cannot', 'mine'))
      .toMatchObject({ name: 'mine', by: 'ip', cost: 1 })
  })
})

describe('the documentation', () => {
  const responsesOf = (...[limit, declared]: unknown[]) => {
    const document = openApiDocument([define(declared, declare(limit))], { title: 'Shop', version: '1' })
    // deno-lint-ignore no-explicit-any -- a document of plain objects
    return (document as any).paths['/shop/things'].post.responses
  }

  test.each([
    ['its own', {}, undefined],
    ['that of the function', undefined, {}],
  ])('of a route with a limit (%s) has 429, and the headers', (_, own, common) => {
    const responses = responsesOf(own, common)
    expect(responses[429].description).toContain('`RATE_LIMITED`')
    expect(Object.keys(responses[200].headers)).toEqual(
      expect.arrayContaining(['RateLimit-Policy', 'RateLimit']),
    )
  })

  test.each([
    ['none', undefined, undefined],
    ['false', false, {}],
  ])('of a route without a limit (%s) has neither', (_, own, common) => {
    const responses = responsesOf(own, common)
    expect(responses[429]).toBeUndefined()
    expect(Object.keys(responses[200].headers)).not.toContain('RateLimit')
  })
})

import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { route } from '../../../supabase/functions/_shared/http/route.ts'
import { createRouter } from '../../../supabase/functions/_shared/http/router.ts'

const declare = (method: 'GET' | 'POST', path: string) =>
  route({ method, path, auth: 'none', summary: 'x', response: z.unknown(), handler: () => ({ data: null }) })

const find = createRouter('/shop', [
  declare('GET', '/'),
  declare('GET', '/:id'),
  declare('POST', '/:id/parts/:part'),
])
const at = (path: string, method = 'GET') => find(new Request(`http://localhost${path}`, { method }))

describe('createRouter()', () => {
  test.each([
    ['GET', '/shop', '/', {}],
    ['GET', '/shop/', '/', {}],
    ['HEAD', '/shop', '/', {}],
    ['GET', '/shop/a-1?x=1', '/:id', { id: 'a-1' }],
    ['GET', '/shop/snow%20%E2%98%83', '/:id', { id: 'snow \u2603' }],
    ['GET', '/shop/a%2Fb', '/:id', { id: 'a/b' }],
    ['GET', '/shop/100%', '/:id', { id: '100%' }],
    ['POST', '/shop/1/parts/2', '/:id/parts/:part', { id: '1', part: '2' }],
  ])('finds for %s %s the route %s with %j', (method, path, expected, params) => {
    const found = at(path, method)
    expect([found.route.path, found.params]).toEqual([expected, params])
  })

  test.each([
    ['GET', '/elsewhere', 'NOT_FOUND'],
    ['GET', '/shop/1/parts', 'NOT_FOUND'],
    ['POST', '/shop', 'METHOD_NOT_ALLOWED'],
  ])('refuses %s %s with %s', (method, path, code) => {
    expect(() => at(path, method)).toThrow(expect.objectContaining({ code }))
  })
})

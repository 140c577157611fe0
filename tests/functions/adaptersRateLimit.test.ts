/** withRateLimit in a real pipeline and in a real Hono app, over HTTP. */
import { pipeline } from '@supabase/middleware'
import { Hono } from 'hono'
import { describe, expect, test } from 'vitest'
import * as forHono from '../../supabase/functions/_shared/adapters/hono.ts'
import * as forSupabase from '../../supabase/functions/_shared/adapters/supabase.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import { MemoryRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/memoryRateLimits.ts'
import { adaId, adapters, graceId, serve } from '../support/adapters.ts'

const log = createLogger({ write() {} })

async function get(url: string, headers: Record<string, string> = {}) {
  const response = await fetch(url, { headers })
  const text = await response.text()
  return { status: response.status, headers: response.headers, text }
}

describe.each(adapters)('$name: withRateLimit', ({ rateLimit: withRateLimit }) => {
  const behind = (options: Partial<forSupabase.RateLimitOptions> = {}) => {
    const seen = { runs: 0 }
    const limit = { name: 'things', policy: '2/h', store: new MemoryRateLimitStore(), log, ...options }
    const url = serve(withRateLimit(limit, (request, { rateLimit }) => {
      seen.runs++
      if (request.headers.has('x-throw')) return Promise.reject(new TypeError('of the handler'))
      return Promise.resolve(Response.json(rateLimit.windows[0]!.remaining, { headers: { 'x-kept': 'yes' } }))
    }))
    return { url, seen }
  }

  test('admits as many as the policy says, with the decision for the handler and the headers for the client', async () => {
    const { url, seen } = behind()
    const first = await get(url)
    expect([first.status, first.text, first.headers.get('x-kept')]).toEqual([200, '1', 'yes'])
    expect(first.headers.get('ratelimit-policy')).toBe('"things";q=2;w=3600')
    expect(first.headers.get('ratelimit')).toMatch(/^"things";r=1;t=\d+$/)
    await get(url)
    const refused = await get(url, { 'x-request-id': 'req-9' })
    expect(refused.status).toBe(429)
    expect(JSON.parse(refused.text)).toMatchObject({
      error: { code: 'RATE_LIMITED', details: { policies: ['things'] } },
      meta: { requestId: 'req-9' },
    })
    expect(refused.headers.get('ratelimit')).toMatch(/^"things";r=0;t=\d+$/)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(seen.runs).toBe(2)
  })

  test('counts users apart, by whom was verified', async () => {
    const { url } = behind({ by: 'user', policy: '1/h' })
    expect((await get(url, { 'x-test-user': adaId })).status).toBe(200)
    expect((await get(url, { 'x-test-user': graceId })).status).toBe(200)
    expect((await get(url, { 'x-test-user': adaId })).status).toBe(429)
  })

  // withSupabase looks at the token or at the key: beside a token any key was taken, and each had a limit of its own.
  test('by apiKey, believes no key that stands beside the token of a user', async () => {
    const { url } = behind({ by: 'apiKey', policy: '1/h' })
    const statuses = []
    for (const apikey of ['sb_publishable_1', 'sb_publishable_2', 'sb_publishable_3']) {
      statuses.push((await get(url, { apikey })).status)
    }
    expect(statuses).toEqual([200, 429, 429])
  })

  test('counts by a function, and says so where that gives no text', async () => {
    const { url } = behind({ by: ({ headers }) => headers.get('x-tenant') ?? '', policy: '1/h' })
    expect((await get(url, { 'x-tenant': 'a' })).status).toBe(200)
    expect((await get(url, { 'x-tenant': 'b' })).status).toBe(200)
    expect((await get(url, { 'x-tenant': 'a' })).status).toBe(429)
    expect((await get(url)).status).toBe(500)
  })

  test('answers problem details, with the type of a quota, to those who ask for them', async () => {
    const { url } = behind({ policy: '1/h' })
    await get(url)
    const refused = await get(url, { accept: 'application/problem+json' })
    expect(JSON.parse(refused.text)).toMatchObject({
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      status: 429,
      'violated-policies': ['things'],
    })
  })

  test('leaves what the handler throws to whoever is in front', async () => {
    const { url, seen } = behind()
    const response = await get(url, { 'x-throw': 'yes' })
    expect([response.status, response.text]).toEqual([500, 'thrown'])
    expect(seen.runs).toBe(1)
  })

  test.each([
    [{ name: 'two words' }, /name.*two words/],
    [{ policy: '60/fortnight' }, /60\/fortnight/],
    [{ cost: 3 }, /limit\.cost.*received 3/],
    [{ by: 'colour' as 'ip' }, /limit\.by.*colour/],
  ])('is refused at construction with %j', (options, message) => {
    expect(() => behind(options)).toThrow(message)
  })
})

test('by user, Hono’s entry wants to know who that is before it serves anything', () => {
  expect(() => forHono.withRateLimit({ name: 'things', by: 'user' })).toThrow(
    /by user: give withRateLimit as/,
  )
})

test('by address, neither entry asks who is calling', async () => {
  const options = { name: 'things', policy: '1/h', log }
  const fetches = [
    pipeline(
      [forSupabase.withRateLimit({ ...options, store: new MemoryRateLimitStore() })],
      () => Promise.resolve(new Response('fine')),
    ),
    new Hono().all(
      '*',
      forHono.withRateLimit({ ...options, store: new MemoryRateLimitStore() }),
      (c) => c.text('fine'),
    )
      .fetch,
  ]
  for (const handle of fetches) {
    const url = serve((request) => handle(request))
    const from = (ip: string) => get(url, { 'x-forwarded-for': `6.6.6.6, ${ip}` })
    expect((await from('203.0.113.1')).status).toBe(200)
    expect((await from('203.0.113.2')).status).toBe(200)
    expect((await from('203.0.113.1')).status).toBe(429)
  }
})

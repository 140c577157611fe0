/** withBreaker in a real pipeline and in a real Hono app, over HTTP. */
import { describe, expect, test } from 'vitest'
import { HoldfastError } from '../../supabase/functions/_shared/core/errors.ts'
import { createCircuitBreakers } from '../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import { adapters, serve } from '../support/adapters.ts'

const log = createLogger({ write() {} })

describe.each(adapters)('$name: withBreaker', ({ breaker: withBreaker }) => {
  /** A handler that answers as the request says, and how often it ran. */
  const behind = (options: { failureThreshold?: number } = {}) => {
    const breakers = createCircuitBreakers({ log })
    const seen = { runs: 0 }
    const url = serve(
      withBreaker({ name: 'things', failureThreshold: 2, ...options, breakers, log }, (request) => {
        seen.runs++
        const how = request.headers.get('x-how') ?? '200'
        if (how === 'throw') return Promise.reject(new TypeError('of the handler'))
        if (how === 'refuse') return Promise.reject(new HoldfastError('NOT_FOUND', 'There is no such thing'))
        return Promise.resolve(new Response('of the handler', { status: Number(how) }))
      }),
    )
    const call = async (how: string, headers: Record<string, string> = {}) => {
      const response = await fetch(url, { headers: { 'x-how': how, ...headers } })
      return { status: response.status, headers: response.headers, text: await response.text() }
    }
    return { breakers, seen, call }
  }

  test('hands on what the handler answers, and gives it the breaker', async () => {
    const breakers = createCircuitBreakers({ log })
    const url = serve(withBreaker({ name: 'named', breakers, log }, (_request, { breaker }) => {
      return Promise.resolve(new Response(breaker.name, { status: 201 }))
    }))
    const response = await fetch(url)
    expect([response.status, await response.text()]).toEqual([201, 'named'])
  })

  test.each(['500', '503', 'throw'])(
    'opens after failures (%s), each answered as the handler did; then the handler rests',
    async (how) => {
      const { seen, call } = behind()
      const first = await call(how)
      expect(first.status).toBe(how === 'throw' ? 500 : Number(how))
      expect(first.text).toBe(how === 'throw' ? 'thrown' : 'of the handler')
      await call(how)
      const refused = await call('200')
      expect(refused.status).toBe(503)
      expect(JSON.parse(refused.text)).toMatchObject({ success: false, error: { code: 'CIRCUIT_OPEN' } })
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
      expect(seen.runs).toBe(2)
    },
  )

  test.each(['404', '429', 'refuse'])('does not take the caller’s own %s for a failure', async (how) => {
    const { seen, call } = behind()
    for (let i = 0; i < 5; i++) await call(how)
    expect((await call('200')).status).toBe(200)
    expect(seen.runs).toBe(6)
  })

  test('answers problem details to those who ask for them', async () => {
    const { breakers, call } = behind()
    await breakers.get('things').forceOpen('maintenance')
    const refused = await call('200', { accept: 'application/problem+json', 'x-request-id': 'req-7' })
    expect(refused.headers.get('content-type')).toBe('application/problem+json')
    expect(refused.headers.get('x-request-id')).toBe('req-7')
    expect(JSON.parse(refused.text)).toMatchObject({ status: 503, code: 'CIRCUIT_OPEN' })
    await breakers.get('things').reset()
    expect((await call('200')).text).toBe('of the handler')
  })

  test('is refused at construction with options out of range', () => {
    expect(() => behind({ failureThreshold: 0 })).toThrow(/failureThreshold.*received 0/)
  })
})

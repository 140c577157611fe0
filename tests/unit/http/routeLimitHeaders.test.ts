/** The `RateLimit` headers and refusals of a decision, whatever it is: rules RL1 to RL5, as properties. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { policyHeader, standingHeader } from '../../../supabase/functions/_shared/http/limitHeaders.ts'
import { errorAnswer } from '../../../supabase/functions/_shared/http/responses.ts'
import {
  decisionFrom,
  type RateLimitDecision,
  refusalOf,
  uncounted,
} from '../../../supabase/functions/_shared/resilience/limits/rateLimitDecision.ts'
import { isLimiterName } from '../../../supabase/functions/_shared/resilience/limits/rateLimitPolicy.ts'
import type {
  RateLimitAnswer,
  RateLimitWindow,
} from '../../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import { parseList } from '../../support/structuredFields.ts'

const ms = fc.nat({ max: 366 * 86_400_000 })
const count = fc.integer({ min: 1, max: 2 ** 40 })
const name = fc.string({ minLength: 1, maxLength: 80 }).filter(isLimiterName)

const windowOf = fc.record<RateLimitWindow>({
  name,
  algorithm: fc.constantFrom('gcra', 'fixed', 'sliding'),
  quota: count,
  windowMs: fc.integer({ min: 1, max: 366 * 86_400_000 }),
  burst: count,
})
const windowsOf = fc.uniqueArray(windowOf, { minLength: 1, maxLength: 5, selector: ({ name }) => name })

/** What a store may answer: a window that refuses says when it admits again. */
const asked = windowsOf.chain((windows) =>
  fc.record({
    windows: fc.constant(windows),
    answer: fc.record<RateLimitAnswer>({
      admitted: fc.constantFrom(0, 1),
      windows: fc.tuple(...windows.map(() => fc.record({ remaining: count, resetMs: ms, retryAfterMs: ms }))),
      blockedMs: fc.oneof(fc.constant(0), ms),
    }),
  })
)

const decision = fc.oneof(
  asked.map(({ windows, answer }) => decisionFrom(windows, answer, 0, 'store')),
  asked.map(({ windows, answer }) => decisionFrom(windows, { ...answer, admitted: 0 }, 0, 'local')),
  fc.record({ windows: windowsOf, allowed: fc.boolean(), retryAfterMs: ms })
    .map(({ windows, allowed, retryAfterMs }) => uncounted(windows, allowed, retryAfterMs)),
)
const refusal = decision.filter(({ allowed }) => !allowed)

const answerOf = (decision: RateLimitDecision, accept: string | null = null) =>
  errorAnswer(refusalOf(decision), 'an-id', accept)
const retryAfterOf = (decision: RateLimitDecision) =>
  Number(new Headers(answerOf(decision).headers).get('retry-after'))

describe('RL1: RateLimit-Policy', () => {
  test('names each window once, with its quota, and its time in seconds, at least one', () => {
    fc.assert(fc.property(windowsOf, (windows) => {
      const items = parseList(policyHeader(windows))
      expect(items.map(({ name }) => name)).toEqual(windows.map(({ name }) => name))
      items.forEach(({ parameters }, nth) => {
        expect(Object.keys(parameters)).toEqual(['q', 'w'])
        const { quota, windowMs } = windows[nth]!
        expect(parameters.q).toBe(quota)
        expect(parameters.w).toBe(Math.ceil(windowMs / 1_000))
        expect(Number(parameters.w)).toBeGreaterThanOrEqual(1)
      })
    }))
  })

  test('RL3: has the shape of the specification', () => {
    const windows = [
      { name: 'ip-min', algorithm: 'gcra', quota: 30, windowMs: 60_000, burst: 30 },
      { name: 'user-day', algorithm: 'fixed', quota: 5_000, windowMs: 86_400_000, burst: 5_000 },
    ] satisfies RateLimitWindow[]
    const refused = decisionFrom(
      windows,
      {
        admitted: 0,
        windows: [
          { remaining: 0, resetMs: 60_000, retryAfterMs: 16_001 },
          { remaining: 4_210, resetMs: 40_112_000, retryAfterMs: 0 },
        ],
        blockedMs: 0,
      },
      0,
      'store',
    )
    expect(policyHeader(windows)).toBe('"ip-min";q=30;w=60, "user-day";q=5000;w=86400')
    expect(standingHeader(refused)).toBe('"ip-min";r=0;t=17, "user-day";r=4210;t=40112')
    expect(new Headers(answerOf(refused).headers).get('retry-after')).toBe('17')
  })
})

describe('RL2: RateLimit', () => {
  test('says of each window what is left, and in how many seconds, neither below 0', () => {
    fc.assert(fc.property(decision, (decision) => {
      const items = parseList(standingHeader(decision))
      expect(items.map(({ name }) => name)).toEqual(decision.windows.map(({ name }) => name))
      items.forEach(({ parameters }, nth) => {
        // RL4: no partition key, which might be an address.
        expect(Object.keys(parameters)).toEqual(['r', 't'])
        expect(parameters.r).toBe(decision.windows[nth]!.remaining)
        expect(Number(parameters.t)).toBeGreaterThanOrEqual(0)
      })
    }))
  })

  test('is in step with RateLimit-Policy', () => {
    fc.assert(fc.property(asked, ({ windows, answer }) => {
      const names = (header: string) => parseList(header).map(({ name }) => name)
      expect(names(standingHeader(decisionFrom(windows, answer, 0, 'store')))).toEqual(
        names(policyHeader(windows)),
      )
    }))
  })

  test('of a window that admits says when it is whole again, rounded up', () => {
    fc.assert(fc.property(asked, ({ windows, answer }) => {
      const items = parseList(standingHeader(decisionFrom(windows, { ...answer, admitted: 1 }, 0, 'store')))
      expect(items.map(({ parameters }) => parameters.t)).toEqual(
        answer.windows.map(({ resetMs }) => Math.ceil(resetMs / 1_000)),
      )
    }))
  })
})

describe('RL4: Retry-After', () => {
  test('is at least the t of every policy that is violated, and of at least one of them', () => {
    fc.assert(fc.property(refusal, (decision) => {
      const ts = parseList(standingHeader(decision))
        .filter(({ name }) => decision.violated.includes(name)).map(({ parameters }) => Number(parameters.t))
      expect(ts.length).toBeGreaterThan(0)
      expect(retryAfterOf(decision)).toBeGreaterThanOrEqual(Math.max(...ts))
    }))
  })

  test('names no moment at which a window, or a block, would still refuse', () => {
    fc.assert(fc.property(asked, ({ windows, answer }) => {
      const refused = { ...answer, admitted: 0 }
      const afterMs = retryAfterOf(decisionFrom(windows, refused, 0, 'store')) * 1_000
      expect(afterMs).toBeGreaterThanOrEqual(answer.blockedMs)
      for (const { retryAfterMs } of answer.windows) expect(afterMs).toBeGreaterThanOrEqual(retryAfterMs)
    }))
  })

  test('is not there on what is admitted', () => {
    fc.assert(fc.property(decision.filter(({ allowed }) => allowed), ({ retryAfterMs, violated }) => {
      expect([retryAfterMs, violated]).toEqual([0, []])
    }))
  })
})

describe('RL5: a refusal', () => {
  test('is 429 quota-exceeded, or 503 temporary-reduced-capacity, with the violated policies alone', () => {
    fc.assert(fc.property(refusal, (decision) => {
      const { status, headers, body } = answerOf(decision, 'application/problem+json')
      const isUncounted = decision.decidedBy === 'unavailable'
      expect(new Headers(headers).get('content-type')).toBe('application/problem+json')
      expect(JSON.parse(body)).toMatchObject({
        type: 'https://iana.org/assignments/http-problem-types#' +
          (isUncounted ? 'temporary-reduced-capacity' : 'quota-exceeded'),
        status,
        'violated-policies': decision.violated,
        details: { policies: decision.violated },
        code: isUncounted ? 'SERVICE_UNAVAILABLE' : 'RATE_LIMITED',
        instance: 'urn:request:an-id',
      })
      expect(status).toBe(isUncounted ? 503 : 429)
      for (const name of decision.violated) expect(decision.windows.map(({ name }) => name)).toContain(name)
    }))
  })

  test('in the envelope names the violated policies', () => {
    fc.assert(fc.property(refusal, (decision) => {
      const { error, success } = JSON.parse(answerOf(decision).body)
      expect([success, error.details]).toEqual([false, { policies: decision.violated }])
    }))
  })
})

describe('parseList() of structured fields', () => {
  test.each([
    ['"a"', [{ name: 'a', parameters: {} }]],
    ['"a";q=1 ,\t"b\\"c";w=-2;pk=:aGY3:', [
      { name: 'a', parameters: { q: 1 } },
      { name: 'b"c', parameters: { w: -2, pk: new TextEncoder().encode('hf7') } },
    ]],
    ['"a"; qu="x y"', [{ name: 'a', parameters: { qu: 'x y' } }]],
  ])('reads %s', (text, expected) => {
    expect(parseList(text)).toEqual(expected)
  })

  test.each([
    '',
    'a',
    '"a',
    '"a",',
    ',"a"',
    '"a" "b"',
    '"a";q',
    '"a";q=',
    '"a";q=1.5',
    '"a";q=1e3',
    '"a" ;q=1',
    '"a";Q=1',
    '"a";q=1;q=2',
    '"ä"',
    '"a\n"',
    '"a";q=1234567890123456',
    '"a";pk=:a b:',
  ])('refuses %j', (text) => {
    expect(() => parseList(text)).toThrow(SyntaxError)
  })
})

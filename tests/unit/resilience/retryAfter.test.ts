/** RA1: how `Retry-After` is read. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseRetryAfter, retryAfterOf } from '../../../supabase/functions/_shared/resilience/retryAfter.ts'

const now = Date.UTC(2026, 10, 6, 8, 49, 0)

describe('RA1: parseRetryAfter()', () => {
  test.each([
    ['0', 0],
    ['7', 7_000],
    ['007', 7_000],
    ['  120\t', 120_000],
    ['99999999999', 99_999_999_999_000],
    ['Fri, 06 Nov 2026 08:49:37 GMT', 37_000],
    ['Friday, 06-Nov-26 08:49:37 GMT', 37_000],
    ['Fri Nov  6 08:49:37 2026', 37_000],
    ['Fri Nov 13 08:49:00 2026', 7 * 86_400_000],
    ['Sun, 06 Nov 1994 08:49:37 GMT', 0],
    ['Sunday, 06-Nov-94 08:49:37 GMT', 0],
    ['Sun Nov  6 08:49:37 1994', 0],
    ['Fri, 06 Nov 2026 08:49:60 GMT', 60_000],
  ])('reads %j', (value, expected) => {
    expect(parseRetryAfter(value, now)).toBe(expected)
  })

  test.each([
    '',
    ' ',
    '-1',
    '+1',
    '1.5',
    '1e3',
    '0x10',
    '1,2',
    '1 2',
    '٣',
    'soon',
    '2026-11-06T08:49:37Z',
    'Fri, 06 Nov 2026 08:49:37',
    'Fri, 06 Nov 2026 08:49:37 UTC',
    'Fri, 06 Nov 2026 08:49:37 +0000',
    'Fri, 6 Nov 2026 08:49:37 GMT',
    'Fre, 06 Nov 2026 08:49:37 GMT',
    'Fri, 06 Okt 2026 08:49:37 GMT',
    'Fri, 32 Nov 2026 08:49:37 GMT',
    'Fri, 06 Nov 2026 24:00:00 GMT',
    'Fri Nov 6 08:49:37 2026',
  ])('ignores %j', (value) => {
    expect(parseRetryAfter(value, now)).toBeUndefined()
  })

  test('ignores a header that is not there', () => {
    expect(parseRetryAfter(null, now)).toBeUndefined()
  })

  test('reads every whole second of four centuries in each of the three forms', () => {
    const second = fc.integer({ min: -5_000_000_000, max: 7_000_000_000 })
    fc.assert(fc.property(second, (second) => {
      const at = second * 1_000
      const fixed = new Date(at).toUTCString()
      const [, weekday, day, month, year, time] = /^(\w+), (\d+) (\w+) (\d+) ([\d:]+) GMT$/.exec(fixed)!
      const asctime = `${weekday} ${month} ${String(Number(day)).padStart(2)} ${time} ${year}`
      expect(parseRetryAfter(fixed, at - 5_000)).toBe(5_000)
      expect(parseRetryAfter(asctime, at - 5_000)).toBe(5_000)
      const long = new Date(at).toLocaleDateString('en-US', { weekday: 'long', timeZone: 'UTC' })
      const rfc850 = `${long}, ${day}-${month}-${year!.slice(-2)} ${time} GMT`
      expect(parseRetryAfter(rfc850, at - 5_000)).toBe(5_000)
    }))
  })

  test('takes a year of two digits that seems more than fifty years ahead for one of the past', () => {
    expect(parseRetryAfter('Friday, 06-Nov-76 08:49:00 GMT', now)).toBeGreaterThan(0)
    expect(parseRetryAfter('Friday, 06-Nov-77 08:49:00 GMT', now)).toBe(0)
  })
})

describe('retryAfterOf()', () => {
  const date = 'Fri, 06 Nov 2026 08:49:37 GMT'

  test("counts a date from the response's own, so that clocks need not agree", () => {
    const headers = new Headers({ 'retry-after': date, date: 'Fri, 06 Nov 2026 08:49:30 GMT' })
    expect(retryAfterOf({ headers })).toBe(7_000)
  })

  test('counts a date from now where the response has none, or a malformed one', () => {
    const inAMinute = new Date(Date.now() + 60_000).toUTCString()
    for (const others of [{}, { date: 'today' }] as Record<string, string>[]) {
      const asked = retryAfterOf({ headers: new Headers({ 'retry-after': inAMinute, ...others }) })
      expect(asked).toBeGreaterThan(50_000)
      expect(asked).toBeLessThanOrEqual(60_000)
    }
  })

  test('reads seconds whatever the date', () => {
    expect(retryAfterOf({ headers: new Headers({ 'retry-after': '3', date }) })).toBe(3_000)
    expect(retryAfterOf({ headers: new Headers({ date }) })).toBeUndefined()
    expect(retryAfterOf({ headers: new Headers([['retry-after', '3'], ['retry-after', '4']]) }))
      .toBeUndefined()
  })
})

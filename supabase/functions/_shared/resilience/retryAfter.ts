/** `Retry-After`, as a server says it (RFC 9110, section 10.2.3): seconds in digits, or a date in one of three forms. */

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const time = '(?<hour>\\d{2}):(?<minute>\\d{2}):(?<second>\\d{2})'
const month = `(?<month>${months.join('|')})`

/** IMF-fixdate, and the two obsolete forms that have to be read: RFC 850 and asctime. */
const dates = [
  new RegExp(`^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?<day>\\d{2}) ${month} (?<year>\\d{4}) ${time} GMT$`),
  new RegExp(
    `^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?<day>\\d{2})-${month}-(?<year>\\d{2}) ${time} GMT$`,
  ),
  new RegExp(`^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ${month} (?<day>[ \\d]\\d) ${time} (?<year>\\d{4})$`),
]

/** Milliseconds to wait, 0 for a date that has passed, undefined for what is no such value (RA1). */
export function parseRetryAfter(value: string | null, now: number = Date.now()): number | undefined {
  const text = value?.trim() ?? ''
  if (/^\d+$/.test(text)) return Number(text) * 1_000
  const at = parseHttpDate(text, now)
  return at === undefined ? undefined : Math.max(0, at - now)
}

/**
 * What a response asks for. A date counts from the response's own `Date` where it has one, so that the two clocks need
 * not agree.
 */
export function retryAfterOf({ headers }: { headers: Headers }): number | undefined {
  const value = headers.get('retry-after')
  return value === null ? undefined : parseRetryAfter(value, parseHttpDate(headers.get('date') ?? ''))
}

/** By hand: what else `Date.parse` takes, and how it takes these, differs between browsers. */
function parseHttpDate(text: string, now: number = Date.now()): number | undefined {
  for (const date of dates) {
    const parts = date.exec(text)?.groups
    if (parts === undefined) continue
    const { day = '', hour = '', minute = '', second = '' } = parts
    if (Number(day) > 31 || Number(hour) > 23 || Number(minute) > 59 || Number(second) > 60) return undefined
    const [year, index] = [fullYear(parts.year!, now), months.indexOf(parts.month!)]
    return Date.UTC(year, index, Number(day), Number(hour), Number(minute), Number(second))
  }
  return undefined
}

/** A year of two digits is the last such year that is no more than fifty years ahead. */
function fullYear(year: string, now: number): number {
  if (year.length === 4) return Number(year)
  const last = new Date(now).getUTCFullYear() + 50
  return last - (last - Number(year)) % 100
}

/**
 * The isolate's clock, in milliseconds since 1970. Everything that reads time takes one as an option, so that
 * tests can give theirs. It measures and labels only: what must be right across isolates is decided by the
 * database's clock.
 */
export type Clock = () => number

export const systemClock: Clock = () => Date.now()

let lastMs = Number.NaN
let lastText = ''

/** The time as ISO 8601. Many lines and answers fall into one millisecond, and making the text is dear. */
export function isoTime(ms: number): string {
  if (ms !== lastMs) {
    lastText = new Date(ms).toISOString()
    lastMs = ms
  }
  return lastText
}

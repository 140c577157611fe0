/** Counters of this isolate. They are memory: whoever reports them reads them before the isolate ends. */

export type Labels = Readonly<Record<string, string>>

/** One series, looked up once: for paths that count at every call. Never throws. */
export interface Counter {
  add(by?: number): void
}

/** Enough for every route and outcome; beyond it a label carries ids, and would fill the memory. */
const maxSeries = 2_000

class Series implements Counter {
  value = 0

  add(by = 1): void {
    this.value += by
  }
}

const all = new Map<string, Series>()
const dropped = new Series()

/**
 * Adds `by` to a counter. Labels take few values (a route, an outcome), never ids. Never throws: what would be a new
 * series beyond the bound is counted as `metrics_dropped_total`.
 */
export function count(name: string, labels?: Labels, by = 1): void {
  counter(name, labels).add(by)
}

/** The series of that name and those labels; the same for every caller. It is shown once something was added. */
export function counter(name: string, labels?: Labels): Counter {
  const key = keyOf(name, labels)
  let series = all.get(key)
  if (series === undefined) {
    if (all.size >= maxSeries) return dropped
    all.set(key, series = new Series())
  }
  return series
}

/** All counters since the isolate began, by `name{label="value"}`. */
export function counters(): Record<string, number> {
  const counted = [...all, ['metrics_dropped_total', dropped] as const]
  return Object.fromEntries(counted.flatMap(([key, { value }]) => value === 0 ? [] : [[key, value]]))
}

function keyOf(name: string, labels: Labels = {}): string {
  const pairs = Object.entries(labels)
  if (pairs.length === 0) return name
  const sorted = pairs.sort(([a], [b]) => a < b ? -1 : 1)
  return `${name}{${sorted.map(([label, value]) => `${label}=${JSON.stringify(value)}`).join(',')}}`
}

/** Counters of this isolate. They are memory: whoever reports them reads them before the isolate ends. */

export type Labels = Readonly<Record<string, string>>

/** Enough for every route and outcome; beyond it a label carries ids, and would fill the memory. */
const maxSeries = 2_000

const values = new Map<string, number>()

/**
 * Adds `by` to a counter. Labels take few values (a route, an outcome), never ids. Never throws: a new series beyond
 * the bound is counted as `metrics_dropped_total`.
 */
export function count(name: string, labels?: Labels, by = 1): void {
  const series = seriesOf(name, labels)
  const value = values.get(series)
  if (value === undefined && values.size >= maxSeries) {
    values.set('metrics_dropped_total', (values.get('metrics_dropped_total') ?? 0) + by)
  } else values.set(series, (value ?? 0) + by)
}

/** All counters since the isolate began, by `name{label="value"}`. */
export function counters(): Record<string, number> {
  return Object.fromEntries(values)
}

function seriesOf(name: string, labels: Labels = {}): string {
  const pairs = Object.entries(labels)
  if (pairs.length === 0) return name
  const sorted = pairs.sort(([a], [b]) => a < b ? -1 : 1)
  return `${name}{${sorted.map(([label, value]) => `${label}=${JSON.stringify(value)}`).join(',')}}`
}

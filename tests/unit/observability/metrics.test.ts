/** Counters of one isolate. */
import { expect, test } from 'vitest'
import { count, counter, counters } from '../../../supabase/functions/_shared/observability/metrics.ts'

test('count() adds to a counter, each set of labels for itself, in any order', () => {
  count('seen_total')
  count('seen_total', undefined, 2)
  count('seen_total', { route: 'POST /"things"', outcome: 'ran' })
  count('seen_total', { outcome: 'ran', route: 'POST /"things"' }, 4)
  expect(counters()).toMatchObject({
    'seen_total': 3,
    'seen_total{outcome="ran",route="POST /\\"things\\""}': 5,
  })
})

test('counter() is one series, looked up once and shared with count()', () => {
  const seen = counter('handled_total', { route: 'GET /' })
  expect(counters()).not.toHaveProperty(['handled_total{route="GET /"}'])
  seen.add()
  counter('handled_total', { route: 'GET /' }).add(2)
  count('handled_total', { route: 'GET /' })
  expect(counters()['handled_total{route="GET /"}']).toBe(4)
})

test('counters() is a copy', () => {
  count('copied_total')
  counters().copied_total = 100
  expect(counters().copied_total).toBe(1)
})

test('count() goes no further than its memory: what would be too many series is counted as dropped', () => {
  for (let i = 0; i < 2_100; i++) count('ids_total', { id: String(i) })
  const { metrics_dropped_total: dropped, ...kept } = counters()
  expect(dropped).toBeGreaterThan(99)
  expect(Object.keys(kept)).toHaveLength(2_000)
  count('ids_total', { id: '1' })
  expect(counters()['ids_total{id="1"}']).toBe(2)
})

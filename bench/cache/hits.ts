/**
 * A value that is in memory, asked for again: beside lru-cache's `get`, which gives the bare value or nothing and
 * leaves loading, joining and versions to whoever calls, and its `fetch`, which does what ours does. All of them with a
 * time to live and a bound; a thousand keys in turn, half of what fits.
 */
import { LRUCache } from 'lru-cache'
import { createCache } from '../../supabase/functions/_shared/resilience/cache.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Measure } from '../support/suite.ts'

const name = 'hits'
const rounds = 30
const callsPerRound = 50_000
const ttlMs = 3_600_000
const max = 2_000
const keys = Array.from({ length: 1_000 }, (_, i) => `product:${i}`)

type Subjects = Record<string, () => Promise<unknown>>

export const hits: Measure = {
  name,
  async run({ report, signal }) {
    const subjects = await openSubjects()
    const names = Object.keys(subjects)
    const nanoseconds = async (subject: string) => {
      signal.throwIfAborted()
      const startedAt = performance.now()
      await subjects[subject]!()
      return (performance.now() - startedAt) * 1e6 / callsPerRound
    }
    // The first rounds are the compiler's.
    await interleaved(names, 3, nanoseconds)
    const results = await interleaved(names, rounds, nanoseconds)
    const found = (subject: string) => median(results.get(subject)!)

    for (const subject of names) report.figure({ measure: name, subject, value: found(subject), unit: 'ns' })
    report.verdict({
      measure: name,
      against: 'lru-cache fetch',
      ratio: found('cache') / found('lru-cache fetch'),
      aim: '<=0.5',
    })
    report.verdict({
      measure: `${name}, not awaited`,
      against: 'lru-cache get',
      ratio: found('cache, not awaited') / found('lru-cache get, not awaited'),
      aim: '<=1',
    })
  },
}

/** Each awaits its answers, as a handler does; for what a call itself takes, also without that. */
async function openSubjects(): Promise<Subjects> {
  const load = (key: string) => ({ id: key, name: 'rope' })
  const cache = createCache<unknown>({ name: 'bench', ttlMs, maxEntries: max })
  const versioned = createCache<unknown>({ name: 'bench', ttlMs, maxEntries: max, version: () => 'b1946ac9' })
  const lru = new LRUCache<string, object>({ max, ttl: ttlMs, fetchMethod: load })
  for (const key of keys) {
    await cache.get(key, () => load(key))
    await versioned.get(key, () => load(key))
    await lru.fetch(key)
  }
  const miss = () => {
    throw new Error('Cannot measure hits: a value was loaded again')
  }
  const awaited = (get: (key: string) => unknown) => async () => {
    for (let call = 0; call < callsPerRound; call++) {
      if (await get(keys[call % keys.length]!) === undefined) miss()
    }
  }
  const called = (get: (key: string) => unknown) => () => {
    for (let call = 0; call < callsPerRound; call++) {
      if (get(keys[call % keys.length]!) === undefined) miss()
    }
    return Promise.resolve()
  }
  return {
    cache: awaited((key) => cache.get(key, miss)),
    'cache with a version': awaited((key) => versioned.get(key, miss)),
    'lru-cache fetch': awaited((key) => lru.fetch(key)),
    'lru-cache get': awaited((key) => lru.get(key)),
    'cache, not awaited': called((key) => cache.get(key, miss)),
    'lru-cache fetch, not awaited': called((key) => lru.fetch(key)),
    'lru-cache get, not awaited': called((key) => lru.get(key)),
  }
}

/**
 * What stands in front of a request's work: its limit, the claim of its idempotency key, the state of a breaker. In one
 * statement, or in three one after the other; 16 requests at a time, each of one of 10,000 callers and with a key of its
 * own. The breaker's report travels every time, also in the one statement, where it would be due once a second.
 */
import { createDb } from '../../supabase/functions/_shared/db/client.ts'
import { createGuardTrip } from '../../supabase/functions/_shared/resilience/guardTrip.ts'
import { createRateLimiter } from '../../supabase/functions/_shared/resilience/rateLimit.ts'
import type { BreakerReport } from '../../supabase/functions/_shared/resilience/stores/breakerStore.ts'
import { PostgresIdempotencyStore } from '../../supabase/functions/_shared/resilience/stores/postgres.ts'
import { PostgresBreakerStore } from '../../supabase/functions/_shared/resilience/stores/postgresBreakers.ts'
import { PostgresRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/postgresRateLimits.ts'
import { dayMs } from '../../supabase/functions/_shared/resilience/stores/store.ts'
import { startWireProxy } from '../../tests/support/wireProxy.ts'
import { newRequest } from '../idempotency/atomic.ts'
import { startDatabase } from '../support/database.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { throughput } from '../support/throughput.ts'
import { keysOf, lanes, quota, windowSeconds } from './subject.ts'

const name = 'guards'
const rounds = 6
const seconds = 1
const requests = 5

type Subject = 'one trip' | 'three trips'

export const guards: Measure = {
  name,
  async run(bench) {
    const database = await startDatabase(bench)
    await countTrips(bench, database.url())

    const subjects = openSubjects(bench, database.url())
    const names = Object.keys(subjects) as Subject[]
    const measure = (subject: Subject, seconds: number) =>
      throughput(subjects[subject], { lanes, seconds, server: database, signal: bench.signal })
    for (const subject of names) await measure(subject, 1)
    const results = await interleaved(names, rounds, (subject) => measure(subject, seconds))
    const speed = (subject: Subject) => median(results.get(subject)!.map(({ perSecond }) => perSecond))
    for (const subject of names) {
      bench.report.figure({ measure: name, subject, value: speed(subject), unit: '1/s' })
      const p50 = median(results.get(subject)!.map(({ p50Ms }) => p50Ms))
      bench.report.figure({ measure: `${name}, p50`, subject, value: p50, unit: 'ms' })
    }
    bench.report.verdict({
      measure: name,
      against: 'three trips',
      ratio: speed('one trip') / speed('three trips'),
      aim: '>=1.8',
    })
  },
}

/** Of one request, on the wire. */
async function countTrips(bench: Bench, url: string): Promise<void> {
  const proxy = bench.resources.adopt(startWireProxy({ target: url }), (proxy) => proxy.close())
  const subjects = openSubjects(bench, proxy.url)
  const measure = `${name}, round trips`
  for (const subject of Object.keys(subjects) as Subject[]) {
    // The first one opens the connection.
    await subjects[subject]()
    const counts: number[] = []
    for (let request = 0; request < requests; request++) {
      counts.push((await proxy.measure(subjects[subject])).counts.roundTrips)
    }
    const value = median(counts)
    bench.report.figure({ measure, subject, value, unit: 'round trips' })
    if (subject === 'one trip') bench.report.verdict({ measure, against: 'one', ratio: value, aim: '<=1' })
  }
}

function openSubjects({ resources }: Bench, url: string): Record<Subject, () => Promise<void>> {
  const db = resources.adopt(createDb({ url, max: lanes }), (db) => db.close())
  const limits = new PostgresRateLimitStore(db)
  const keys = new PostgresIdempotencyStore(db)
  const breakers = new PostgresBreakerStore(db)
  const limiter = createRateLimiter({
    name: 'guards',
    policy: { quota, windowMs: windowSeconds * 1_000 },
    store: limits,
  })
  const enter = createGuardTrip({
    db,
    breakers: { outgoing: () => ({ reports: [report], arrived() {}, failed() {}, end() {} }) },
  })
  const nextKey = keysOf['10,000 keys']
  return {
    async 'one trip'() {
      const { limit, claim } = await enter({
        limit: limiter.questionOf(nextKey()),
        claim: { request: newRequest(), ...lease },
      })
      requirePassed(limit?.admitted, claim?.outcome)
    },
    async 'three trips'() {
      const [limit] = await limits.decide([limiter.questionOf(nextKey())])
      const claim = await keys.claim(newRequest(), lease)
      await breakers.exchange([report])
      requirePassed(limit?.admitted, claim.outcome)
    },
  }
}

const lease = { leaseMs: 30_000, ttlMs: dayMs }

/** Of a breaker that is closed and has nothing to tell. */
const report: BreakerReport = {
  name: 'payments',
  rules: {
    failureThreshold: 5,
    consecutiveFailures: null,
    failureRate: null,
    minimumVolume: 20,
    windowMs: 30_000,
    cooldownMs: 30_000,
    halfOpenProbes: 1,
    probeLeaseMs: 30_000,
  },
  epoch: 0,
  successes: 0,
  failures: 0,
  trailingFailures: 0,
}

function requirePassed(admitted: number | undefined, outcome: string | undefined): void {
  if (admitted !== 1 || outcome !== 'claimed') throw new Error('Cannot measure the guards: they refused')
}

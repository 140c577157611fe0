/** Many isolates with guard trips at the same time: what is admitted and claimed in all, and that no two wait in a circle. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import {
  createGuardTrip,
  type EnterGuards,
  type GuardAnswer,
  type GuardQuestion,
} from '../../supabase/functions/_shared/resilience/guardTrip.ts'
import { PostgresIdempotencyStore } from '../../supabase/functions/_shared/resilience/stores/postgres.ts'
import type { BreakerReport } from '../../supabase/functions/_shared/resilience/stores/breakerStore.ts'
import { PostgresBreakerStore } from '../../supabase/functions/_shared/resilience/stores/postgresBreakers.ts'
import { newName, report, rules } from '../support/breakers.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { claimOf, limitOf, noBreakers } from '../support/guards.ts'
import { claimed } from '../support/idempotencyStore.ts'
import { startPooler } from '../support/pooler.ts'
import { openSql, type Queries, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'

const isolates = 6

onEachPostgres('guard trips of many isolates', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let holder: Sql
  let dbs: Db[]
  let enters: EnterGuards[]

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    holder = openSql(database.adminUrl)
    dbs = Array.from({ length: isolates }, () => createDb({ url: database.url, max: 2 }))
    enters = dbs.map((db) => createGuardTrip({ db, breakers: noBreakers }))
  })

  afterAll(async () => {
    await Promise.all(dbs.map((db) => db.close()))
  })

  const waiting = async () => {
    const [row] = await admin`
      select count(*)::int as n from pg_stat_activity where datname = ${database.name} and wait_event_type = 'Lock'`
    return row!.n as number
  }

  /** Each of two isolates asks all of it in one statement; neither gets past the row that is held before both have come. */
  const inOppositeOrder = async (questions: GuardQuestion[], hold: (tx: Queries) => Promise<unknown>) => {
    let entering: Promise<GuardAnswer[]> | undefined
    await holder.begin(async (tx) => {
      await hold(tx)
      // Two trips are under way, and what comes meanwhile shares the next.
      const together = (enter: EnterGuards, questions: GuardQuestion[]) => [{}, {}, ...questions].map(enter)
      entering = Promise.all([
        ...together(enters[0]!, questions),
        ...together(enters[1]!, questions.toReversed()),
      ])
      entering.catch(() => {})
      await waitFor(async () => await waiting() >= 2, { what: 'both isolates to wait' })
    })
    return (await entering!).filter(({ limit, claim }) => limit ?? claim)
  }

  test('admit exactly the quota, and claim as many keys', async () => {
    const limit = limitOf('quota', 50)
    const entered = await Promise.all(
      enters.flatMap((enter) =>
        Array.from({ length: 20 }, () => enter({ limit, claim: claimOf({ route: 'POST /quota' }) }))
      ),
    )
    expect(entered.filter(({ claim }) => claim?.outcome === 'claimed')).toHaveLength(50)
    expect(entered.filter(({ claim }) => claim === undefined)).toHaveLength(isolates * 20 - 50)
    const [row] = await admin`
      select count(*)::int as n from holdfast.idempotency_keys where route = 'POST /quota'`
    expect(row!.n).toBe(50)
  })

  test('make one claim of a key that all of them want, and take what each asks of the limit', async () => {
    const claim = claimOf()
    const limit = limitOf('wanted', 100)
    const entered = await Promise.all(enters.map((enter) => enter({ limit, claim })))
    expect(entered.map(({ claim }) => claim!.outcome).sort()).toEqual([
      'claimed',
      ...Array(isolates - 1).fill('in_progress'),
    ])
    expect(Math.min(...entered.map(({ limit }) => limit!.windows[0]!.remaining))).toBe(100 - isolates)
  })

  test('with the same limits in opposite order, held up until they meet, do not deadlock', async () => {
    const questions = Array.from({ length: 8 }, (_, nth) => ({ limit: limitOf(`opposite ${nth}`, 1_000) }))
    await enters[2]!(questions[4]!)
    await inOppositeOrder(
      questions,
      (tx) => tx`select from holdfast.rate_limits where key = 'opposite 4' for update`,
    )
  })

  test('with the same keys in opposite order, held up until they meet, claim each of them once', async () => {
    const store = new PostgresIdempotencyStore(dbs[2]!)
    const questions = [1, 2, 3].map((nth) => ({ claim: claimOf({ id: `${nth}`.repeat(64) }) }))
    for (const { claim } of questions) {
      await store.release(claim.request, claimed(await store.claim(claim.request, claim)).token)
    }
    const entered = await inOppositeOrder(
      questions,
      (tx) =>
        tx`select from holdfast.idempotency_keys where id = decode(${'2'.repeat(64)}, 'hex') for update`,
    )
    expect(entered.map(({ claim }) => claim!.outcome).sort()).toEqual([
      ...Array(3).fill('claimed'),
      ...Array(3).fill('in_progress'),
    ])
  })

  test('in a storm, with breakers of the same names and whatever order, never wait in a circle', async () => {
    const breakers = Array.from({ length: 4 }, newName)
    const patient = { ...rules, failureThreshold: 1_000_000 }
    const limited = Array.from({ length: 10 }, (_, nth) => limitOf(`storm ${nth}`, 100))
    const claims = Array.from({ length: 10 }, () => claimOf())
    const stormy = dbs.map((db, nth) =>
      createGuardTrip({
        db,
        breakers: withReports(() => {
          const reports = breakers.map((name) => report(name, { rules: patient, successes: 1, failures: 1 }))
          return nth % 2 === 0 ? reports : reports.reverse()
        }),
      })
    )
    const rounds = 15
    const outcomes = await Promise.allSettled(stormy.map(async (enter, isolate) => {
      for (let round = 0; round < rounds; round++) {
        const from = (round * 3 + isolate) % 10
        const turned = [...limited.keys()].map((nth) => (nth + from) % 10)
        if (isolate % 2) turned.reverse()
        await Promise.all(
          turned.map((nth) => enter({ limit: limited[nth]!, claim: claims[(nth * 7 + isolate) % 10]! })),
        )
      }
    }))
    expect(outcomes.filter(({ status }) => status === 'rejected')).toEqual([])
    const peek = await Promise.all(
      limited.map(async (limit) => (await enters[0]!({ limit })).limit!.windows[0]!.remaining),
    )
    expect(peek).toEqual(limited.map(() => 100 - isolates * rounds - 1))
    const statuses = await new PostgresBreakerStore(dbs[0]!).exchange(breakers.map((name) => report(name)))
    for (const { successes, failures } of statuses) expect(successes).toBe(failures)
  })
})

test('guard trips go through a pooler in transaction mode', async ({ skip }) => {
  const database = await freshDatabase()
  const pooler = await startPooler(database.url, 3)
  if (pooler === undefined) return skip('PgBouncer is not installed, nor can it be')
  const dbs = Array.from({ length: 4 }, () => createDb({ url: pooler.url, max: 2 }))
  try {
    const limit = limitOf('pooled', 30)
    const entered = await Promise.all(dbs.flatMap((db) => {
      const enter = createGuardTrip({ db, breakers: withReports(() => [report('pooled', { successes: 1 })]) })
      return Array.from({ length: 15 }, () => enter({ limit, claim: claimOf() }))
    }))
    expect(entered.filter(({ claim }) => claim?.outcome === 'claimed')).toHaveLength(30)
    expect(entered.filter(({ limit }) => limit!.admitted === 0)).toHaveLength(30)
    const [status] = await new PostgresBreakerStore(dbs[0]!).exchange([report('pooled')])
    expect(status!.successes).toBeGreaterThanOrEqual(dbs.length)
  } finally {
    await Promise.all(dbs.map((db) => db.close()))
    await pooler.close()
  }
})

/** Breakers that have something to say with every trip, and mind no answer. */
function withReports(reports: () => BreakerReport[]) {
  return { outgoing: () => ({ reports: reports(), arrived() {}, failed() {}, end() {} }) }
}

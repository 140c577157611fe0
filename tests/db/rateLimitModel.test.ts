/** What PostgreSQL and Redis decide, against the formulas of rateLimitDecide.ts, to the microsecond and the token. */
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  decide,
  type WindowState,
} from '../../supabase/functions/_shared/resilience/limits/rateLimitDecide.ts'
import type {
  RateLimitQuestion,
  RateLimitWindow,
} from '../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import {
  RateLimitBatch,
  termNumbers,
} from '../../supabase/functions/_shared/resilience/stores/rateLimitWire.ts'
import { decideScript } from '../../supabase/functions/_shared/resilience/stores/redisRateLimits.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { startRedis } from '../support/redis.ts'
import { openSql, type Sql } from '../support/sql.ts'

interface Step extends RateLimitQuestion {
  forced: boolean
}

/** The time it decided at, then what it gave: calls admitted, microseconds still blocked for, states of the windows. */
type DecideElsewhere = (step: Step) => Promise<{ nowUs: number; given: number[] }>

// So short that windows end, and tokens come back, between two questions.
const window = fc.record({
  algorithm: fc.constantFrom('gcra' as const, 'fixed' as const, 'sliding' as const),
  quota: fc.integer({ min: 1, max: 12 }),
  windowMs: fc.integer({ min: 1, max: 30 }),
  more: fc.integer({ min: 0, max: 5 }),
}).map(({ more, ...window }): RateLimitWindow => ({
  name: 'window',
  ...window,
  burst: window.quota + (window.algorithm === 'gcra' ? more : 0),
}))

const run = {
  windows: fc.array(window, { minLength: 1, maxLength: 3 }),
  calls: fc.array(
    fc.record({
      cost: fc.integer({ min: 1, max: 4 }),
      count: fc.integer({ min: 0, max: 6 }),
      blockMs: fc.constantFrom(0, 0, 0, 2),
      forced: fc.integer({ max: 9, min: 0 }).map((n) => n === 0),
    }),
    { minLength: 1, maxLength: 15 },
  ),
}

const oneBucket = window.filter(({ algorithm }) => algorithm === 'gcra').map((window) => [window])

let keys = 0

function describeDecisions(elsewhere: () => DecideElsewhere, windows = run.windows): void {
  test('agrees with the formulas, call after call', async () => {
    await fc.assert(
      fc.asyncProperty(fc.record({ ...run, windows }), async ({ windows, calls }) => {
        const key = `model|${++keys}`
        let states: WindowState[] | undefined
        let blockedUntil = 0
        for (const call of calls) {
          const { nowUs, given } = await elsewhere()({ key, windows, ...call })
          const blockedUs = Math.max(0, blockedUntil - nowUs)
          const asked = blockedUs > 0 && !call.forced ? 0 : call.count
          const decisions = decide(windows, states, nowUs, call.cost, asked, call.forced)
          const { admitted } = decisions[0]!
          const now = decisions.map(({ state }) => state)
          const blocks = admitted < call.count && call.blockMs > 0 && blockedUs === 0
          const stillBlockedUs = blocks ? call.blockMs * 1_000 : blockedUs
          expect(given).toEqual([admitted, stillBlockedUs, ...now.flat()])
          if (call.count === 0) continue
          if (admitted > 0 || states !== undefined) states = now
          blockedUntil = nowUs + stillBlockedUs
        }
      }),
      { numRuns: 150 },
    )
  })

  test('counts no penalty beyond what a number can hold, and goes on', async () => {
    const windows = (['gcra', 'fixed', 'sliding'] as const).map((algorithm): RateLimitWindow => ({
      name: algorithm,
      algorithm,
      quota: 1,
      windowMs: 31_622_400_000,
      burst: 1,
    }))
    const step = { key: `model|${++keys}`, windows, cost: 1_000_000, blockMs: 0 }
    for (let i = 0; i < 3; i++) {
      const { given } = await elsewhere()({ ...step, count: 2_000_000_000, forced: true })
      expect(given[0]).toBe(2_000_000_000)
      expect(given[2]).toBe(9_000_000_000_000_000)
    }
    expect((await elsewhere()({ ...step, count: 1, forced: false })).given[0]).toBe(0)
  })
}

function stepNumbers(step: Step): { count: number; terms: number[] } {
  const [asked] = new RateLimitBatch([step], { forced: step.forced }).asked
  return { count: step.count, terms: termNumbers(asked!.terms) }
}

onEachPostgres('holdfast.decide_rate_limits()', (pg) => {
  let sql: Sql
  beforeAll(async () => {
    sql = openSql((await freshDatabase(pg.major)).url)
  })

  describeDecisions(() => async (step) => {
    const { count, terms: [cost, ...terms] } = stepNumbers(step)
    const [row] = await sql<{ decided: string }[]>`
      select holdfast.decide_rate_limits(${[step.key]}::text[], ${[
      cost!,
      count,
      ...terms,
    ]}::bigint[])::text as decided`
    const [nowUs, ...given] = row!.decided.slice(1, -1).split(',').map(Number)
    return { nowUs: nowUs!, given }
  })
})

onEachPostgres('holdfast.decide_gcra_limit() and decide_gcra_limits()', (pg) => {
  let sql: Sql
  beforeAll(async () => {
    sql = openSql((await freshDatabase(pg.major)).url)
  })

  describeDecisions(() => async (step) => {
    const { count, terms: [cost, forced, block, windows, kind, ...window] } = stepNumbers(step)
    const [interval, burst] = window as [number, number]
    // The other one is new, and admitted: with a refusal of its own, the time would be that of the refusal.
    const pair = [step.key, `${step.key}~${++keys}`]
    const rest = sql`${cost!}, ${block!}, ${interval}, ${burst}`
    const isBatch = count % 2 === 1 && count * cost! <= burst
    const [row] = await sql<{ decided: string }[]>`
      select ${
      windows !== 1 || forced === 1
        ? sql`holdfast.decide_rate_limits(${[step.key]}::text[],
            ${[cost!, count, forced!, block!, windows!, kind!, ...window]}::bigint[])`
        : isBatch
        ? sql`holdfast.decide_gcra_limits(${pair}::text[], ${[count, 1]}::bigint[], ${rest})`
        : sql`holdfast.decide_gcra_limit(${step.key}, ${count}, ${rest})`
    }::text as decided`
    const [nowUs, ...given] = row!.decided.slice(1, -1).split(',').map(Number)
    const ofFirst = given.filter((_, index) => index % 2 === 0)
    return { nowUs: nowUs!, given: windows === 1 && forced === 0 && isBatch ? ofFirst : given }
  }, oneBucket)
})

const redis = await startRedis()

describe.skipIf(redis === undefined)(
  'the Redis script (skipped where Redis is not installed, nor can it be)',
  () => {
    let client: Redis
    beforeAll(() => {
      client = new Redis(redis!.url)
    })
    afterAll(async () => {
      client.disconnect()
      await redis!.stop()
    })

    describeDecisions(() => async (step) => {
      const { count, terms } = stepNumbers(step)
      const [nowUs, ...given] = await client.eval(decideScript, 1, step.key, ...terms, count) as number[]
      return { nowUs: nowUs!, given }
    })
  },
)

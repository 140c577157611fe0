/** Circuit breakers in PostgreSQL: the store, its trips, and what it leaves in the tables. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import { createCircuitBreakers } from '../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { PostgresBreakerStore } from '../../supabase/functions/_shared/resilience/stores/postgresBreakers.ts'
import { systemTimers } from '../../supabase/functions/_shared/resilience/timers.ts'
import { describeBreakerStore } from '../support/breakerStore.ts'
import { newName } from '../support/breakers.ts'
import { letTimePass } from '../support/breakerTime.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'

onEachPostgres('PostgresBreakerStore', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let db: Db
  let otherDb: Db

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    db = createDb({ url: database.url, max: 4 })
    otherDb = createDb({ url: database.url, max: 4 })
  })

  afterAll(async () => {
    await Promise.all([db.close(), otherDb.close()])
  })

  describeBreakerStore(() => ({
    store: new PostgresBreakerStore(db),
    other: new PostgresBreakerStore(() => otherDb),
    elapse: (name, ms) => letTimePass(admin, name, ms),
  }))

  test('isolates whose clocks are minutes apart open, probe and heal together', async () => {
    const name = newName()
    const breakers = [-60_000, 0, 60_000].map((skewMs, i) =>
      createCircuitBreakers({
        store: new PostgresBreakerStore(i % 2 ? otherDb : db),
        refreshMs: 50,
        timers: { ...systemTimers, now: () => systemTimers.now() + skewMs },
        now: () => Date.now() + skewMs,
        log: createLogger({ write() {} }),
      })
    )
    const isolates = breakers.map((each) => each.get(name, { failureThreshold: 2, cooldownMs: 60_000 }))
    const outcomes = (work: () => string) =>
      Promise.all(isolates.map((isolate) => isolate.execute(work).catch(({ code }) => code)))
    const down = () => {
      throw new Error('down')
    }
    await outcomes(down)
    await waitFor(async () => (await outcomes(() => 'up')).every((outcome) => outcome === 'CIRCUIT_OPEN'), {
      what: 'all isolates to refuse',
    })
    await waitFor(async () => {
      await outcomes(() => 'up')
      return new Set(isolates.map((isolate) => isolate.health().openedAt)).size === 1
    }, { what: 'all isolates to know since when' })
    for (const isolate of isolates) {
      const { retryInMs } = isolate.health()
      expect(retryInMs).toBeGreaterThan(40_000)
      expect(retryInMs).toBeLessThanOrEqual(60_000)
    }
    await letTimePass(admin, name, 60_000)
    await waitFor(async () => (await outcomes(() => 'up')).every((outcome) => outcome === 'up'), {
      what: 'all isolates to call again',
    })
    expect(
      (await admin`select to_state from holdfast.circuit_breaker_events where name = ${name} order by id`)
        .map(({ to_state }) => to_state),
    ).toEqual(['open', 'half_open', 'closed'])
    await Promise.all(breakers.map((each) => each.close()))
  })
})

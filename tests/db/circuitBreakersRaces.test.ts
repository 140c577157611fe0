/** Many isolates at one circuit breaker at the same time: each transition happens once, and no call is lost. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import { PostgresBreakerStore } from '../../supabase/functions/_shared/resilience/stores/postgresBreakers.ts'
import type { BreakerStatus } from '../../supabase/functions/_shared/resilience/stores/breakerStore.ts'
import { exchange, newName, openBreaker, report, rules } from '../support/breakers.ts'
import { letTimePass } from '../support/breakerTime.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'

const isolates = 20

onEachPostgres('exchange_circuit_breakers()', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let holder: Sql
  let dbs: Db[]
  let stores: PostgresBreakerStore[]

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    holder = openSql(database.adminUrl)
    dbs = Array.from({ length: isolates }, () => createDb({ url: database.url, max: 1 }))
    stores = dbs.map((db) => new PostgresBreakerStore(db))
    // On a busy machine it takes them longer to meet than they are willing to wait for each other.
    await admin`alter function holdfast.exchange_circuit_breakers set lock_timeout = '1 min'`
  })

  afterAll(async () => {
    await Promise.all(dbs.map((db) => db.close()))
  })

  const waiting = async () => {
    const [row] = await admin`
      select count(*)::int as n from pg_stat_activity where datname = ${database.name} and wait_event_type = 'Lock'`
    return row!.n as number
  }

  /** Every isolate asks while the row is locked, and goes on when all of them wait for it. */
  const atOnce = async (
    table: 'circuit_breakers' | 'circuit_breaker_counts',
    name: string,
    ask: (store: PostgresBreakerStore) => Promise<BreakerStatus>,
  ) => {
    let asked: Promise<BreakerStatus[]> | undefined
    await holder.begin(async (tx) => {
      await tx`select from ${tx(`holdfast.${table}`)} where name = ${name} for update`
      asked = Promise.all(stores.map(ask))
      asked.catch(() => {})
      await waitFor(async () => await waiting() === isolates, { what: 'all isolates to wait for the row' })
    })
    return await asked!
  }

  const events = (name: string) =>
    admin`
      select epoch::int, from_state, to_state, failures::int, successes::int
      from holdfast.circuit_breaker_events where name = ${name} order by id`

  test(`of ${isolates} isolates that ask for the probe at the same time one gets it`, async () => {
    const name = await openBreaker(stores[0]!)
    await letTimePass(admin, name, rules.cooldownMs)
    const statuses = await atOnce(
      'circuit_breakers',
      name,
      (store) => exchange(store, name, { wantsProbe: true }),
    )
    expect(statuses.filter(({ probeToken }) => probeToken !== null)).toHaveLength(1)
    for (const status of statuses) expect(status).toMatchObject({ state: 'half_open', epoch: 3 })
    expect((await events(name)).slice(1)).toEqual([
      { epoch: 3, from_state: 'open', to_state: 'half_open', failures: null, successes: null },
    ])
  })

  test('of those that wait for the place of a probe that died one gets it', async () => {
    const name = await openBreaker(stores[0]!)
    await letTimePass(admin, name, rules.cooldownMs)
    const { probeToken } = await exchange(stores[0]!, name, { wantsProbe: true })
    await letTimePass(admin, name, rules.probeLeaseMs)
    const statuses = await atOnce(
      'circuit_breakers',
      name,
      (store) => exchange(store, name, { wantsProbe: true }),
    )
    const tokens = statuses.map(({ probeToken }) => probeToken).filter((token) => token !== null)
    expect(tokens).toHaveLength(1)
    expect(tokens[0]).toBeGreaterThan(probeToken!)
    expect(await events(name)).toHaveLength(2)
  })

  test('failures that come in at the same time all count, and trip it once', async () => {
    const name = newName()
    const many = { ...rules, failureThreshold: isolates + 1 }
    await exchange(stores[0]!, name, { rules: many, successes: 4, failures: 1 })
    const statuses = await atOnce(
      'circuit_breaker_counts',
      name,
      (store) => exchange(store, name, { rules: many, failures: 1 }),
    )
    expect(statuses.filter(({ state }) => state === 'closed')).toHaveLength(isolates - 1)
    expect(await exchange(stores[0]!, name)).toMatchObject({ state: 'open', epoch: 2 })
    expect(await events(name)).toEqual([
      { epoch: 2, from_state: 'closed', to_state: 'open', failures: isolates + 1, successes: 4 },
    ])
  })

  test('isolates that each have reason enough to trip it open it once', async () => {
    const name = newName()
    await exchange(stores[0]!, name, { successes: 1 })
    const statuses = await atOnce(
      'circuit_breaker_counts',
      name,
      (store) => exchange(store, name, { failures: 5 }),
    )
    for (const status of statuses) expect(status).toMatchObject({ state: 'open', epoch: 2 })
    expect(await events(name)).toMatchObject([{ epoch: 2, failures: 5 }])
  })

  test('the first reports of a breaker, at the same time, make one of it', async () => {
    const name = newName()
    await Promise.all(stores.map((store) => exchange(store, name, { successes: 2 })))
    expect(await exchange(stores[0]!, name)).toMatchObject({ successes: 2 * isolates, failures: 0 })
  })

  test('a trip that meets a hand on the breaker leaves it to the hand', async () => {
    const name = newName()
    await exchange(stores[0]!, name, { failures: 4 })
    let tripping: Promise<BreakerStatus> | undefined
    await holder.begin(async (tx) => {
      await tx`select holdfast.force_circuit_breaker(${name}, 'closed', 'we know')`
      tripping = exchange(stores[0]!, name, { failures: 1 })
      await waitFor(async () => await waiting() === 1, { what: 'the trip to wait' })
    })
    expect(await tripping).toMatchObject({ state: 'closed', forced: 'closed', epoch: 2, failures: 0 })
    expect(await events(name)).toHaveLength(1)
  })

  test('a probe that reports late, among those who ask for its place, is not heard', async () => {
    const name = await openBreaker(stores[0]!)
    await letTimePass(admin, name, rules.cooldownMs)
    const { probeToken } = await exchange(stores[0]!, name, { wantsProbe: true })
    await letTimePass(admin, name, rules.probeLeaseMs)
    const probe = { token: probeToken!, outcome: 'succeeded' } as const
    await atOnce(
      'circuit_breakers',
      name,
      (store) => exchange(store, name, store === stores[0] ? { probe } : { wantsProbe: true }),
    )
    expect(await exchange(stores[0]!, name)).toMatchObject({ state: 'half_open', epoch: 3 })
  })

  test('reports of many breakers, in any order, do not wait for each other in a circle', async () => {
    const names = Array.from({ length: 8 }, newName)
    const patient = { ...rules, failureThreshold: 1_000_000 }
    const rounds = 20
    await Promise.all(stores.map(async (store, isolate) => {
      for (let round = 0; round < rounds; round++) {
        const from = (isolate + round) % names.length
        const turned = [...names.slice(from), ...names.slice(0, from)]
        if (isolate % 2) turned.reverse()
        const reports = turned.map((name) => report(name, { rules: patient, successes: 1, failures: 1 }))
        expect((await store.exchange(reports)).map(({ name }) => name)).toEqual(turned)
      }
    }))
    for (const status of await stores[0]!.exchange(names.map((name) => report(name)))) {
      expect(status).toMatchObject({ successes: isolates * rounds, failures: isolates * rounds })
    }
  })

  test('in a storm each epoch begins once, from the state before, and has one probe', async () => {
    const names = [newName(), newName()]
    const hasty = { ...rules, failureThreshold: 3, cooldownMs: 1 }
    const granted: string[] = []
    await Promise.all(
      stores.slice(0, 8).map(async (store, isolate) => {
        const known = new Map(names.map((name) => [name, { epoch: 1, token: null as number | null }]))
        for (let round = 0; round < 60; round++) {
          if (isolate === 0 && round % 20 === 19) {
            await store.force(
              names[round % 2]!,
              ([null, 'closed', 'open'] as const)[round % 3]!,
              'a hand',
              hasty,
            )
            await store.force(names[round % 2]!, null, 'no hand', hasty)
          }
          const statuses = await store.exchange(names.map((name, i) => {
            const { epoch, token } = known.get(name)!
            const outcome = (round + isolate) % 3 ? 'succeeded' as const : 'failed' as const
            return report(name, {
              rules: hasty,
              epoch,
              failures: (round + isolate + i) % 2,
              wantsProbe: true,
              ...(token !== null && { probe: { token, outcome } }),
            })
          }))
          for (const { name, epoch, probeToken } of statuses) {
            if (probeToken !== null) granted.push(`${name} ${epoch}`)
            known.set(name, { epoch, token: probeToken })
          }
        }
      }),
    )
    expect(new Set(granted).size).toBe(granted.length)
    expect(granted.length).toBeGreaterThan(10)
    for (const name of names) {
      const written = await events(name)
      expect(written.map(({ epoch }) => epoch)).toEqual(written.map((_, i) => i + 2))
      written.forEach(({ from_state }, i) => expect(from_state).toBe(written[i - 1]?.to_state ?? 'closed'))
    }
  })
})

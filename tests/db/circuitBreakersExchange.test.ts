/** What an exchange of circuit breakers costs, which reports it refuses, and the ways to the database. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import { PostgresBreakerStore } from '../../supabase/functions/_shared/resilience/stores/postgresBreakers.ts'
import type { BreakerReport } from '../../supabase/functions/_shared/resilience/stores/breakerStore.ts'
import { exchange, newName, openBreaker, report, rules } from '../support/breakers.ts'
import { letTimePass } from '../support/breakerTime.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { startPooler } from '../support/pooler.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

onEachPostgres('exchange_circuit_breakers()', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let proxy: WireProxy
  let db: Db
  let store: PostgresBreakerStore

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    proxy = startWireProxy({ target: database.url })
    db = createDb({ url: proxy.url, max: 4 })
    store = new PostgresBreakerStore(db)
  })

  afterAll(async () => {
    await db.close()
    await proxy.close()
  })

  describe('costs', () => {
    test('one round trip for any number of breakers, and one to force', async () => {
      const names = Array.from({ length: 50 }, newName)
      await store.exchange([])
      await exchange(store, names[0]!)
      const all = await proxy.measure(() =>
        store.exchange(names.map((name) => report(name, { failures: 5 })))
      )
      const force = await proxy.measure(() => store.force(names[0]!, 'open', 'maintenance', rules))
      expect([all, force].map(({ counts }) => counts.roundTrips)).toEqual([1, 1])
      expect(all.value.every(({ state }) => state === 'open')).toBe(true)
    })

    test('no write and no lock where there is nothing to change: closed, refusing, probed, unknown', async () => {
      const [closed, open, probed, unknown] = [
        newName(),
        await openBreaker(store),
        await openBreaker(store),
        newName(),
      ]
      await exchange(store, closed, { successes: 5, failures: 1 })
      await letTimePass(admin, probed, rules.cooldownMs)
      await exchange(store, probed, { wantsProbe: true })
      const reports = [
        report(closed),
        report(closed, { epoch: 0 }),
        report(closed, { epoch: 9, failures: 9 }),
        report(closed, { wantsProbe: true }),
        report(open, { epoch: 1, successes: 4, failures: 9 }),
        report(open, { epoch: 2, wantsProbe: true }),
        report(probed, { epoch: 3, wantsProbe: true }),
        report(unknown),
      ]
      const seen = await admin.begin('read only', async (tx) => {
        const [row] = await tx`select holdfast.exchange_circuit_breakers(${
          tx.json(reports as never)
        }) as statuses`
        const locks = await tx`
          select relation::regclass::text as relation, mode from pg_locks
          where pid = pg_backend_pid() and relation::regclass::text like 'holdfast.circuit%' and mode <> 'AccessShareLock'`
        const [transaction] = await tx`select pg_current_xact_id_if_assigned() as id`
        return { states: row!.statuses.map(({ state }: { state: string }) => state), locks, transaction }
      })
      expect(seen).toEqual({
        states: ['closed', 'closed', 'closed', 'closed', 'open', 'open', 'half_open', 'closed'],
        locks: [],
        transaction: { id: null },
      })
    })

    test('no write to the row of a breaker where calls are counted', async () => {
      const name = newName()
      await exchange(store, name, { successes: 1 })
      const version = () =>
        admin`select xmin::text, xmax::text, ctid::text from holdfast.circuit_breakers where name = ${name}`
      const before = await version()
      expect(await exchange(store, name, { successes: 9, failures: 3 })).toMatchObject({
        successes: 10,
        failures: 3,
      })
      expect(await version()).toEqual(before)
    })
  })

  describe('refuses', () => {
    const good = report('refused')
    const bad = (given: Record<string, unknown>) => ({ ...good, ...given })
    const badRules = (given: Record<string, unknown>) => bad({ rules: { ...rules, ...given } })

    test.each<[string, unknown, string]>([
      ['a report that is null', [null], 'name must have 1 to 200 characters, received nothing'],
      ['an object', {}, 'the reports must be a JSON array of at most 1000, received object'],
      ['a report that is a number', [7], 'name must have 1 to 200 characters, received nothing'],
      ['a report that is a list', [[good]], 'name must have 1 to 200 characters, received nothing'],
      ['an empty name', [bad({ name: '' })], 'name must have 1 to 200 characters, received ""'],
      ['a name that is too long', [bad({ name: 'x'.repeat(201) })], 'name must have 1 to 200 characters'],
      ['a name that is a number', [bad({ name: 5 })], 'name must have 1 to 200 characters, received 5'],
      [
        'no epoch',
        [bad({ epoch: undefined })],
        'epoch must be a whole number from 0 to 2^52, received nothing',
      ],
      ['half an epoch', [bad({ epoch: 1.5 })], 'epoch must be a whole number from 0 to 2^52, received 1.5'],
      ['an epoch out of range', [bad({ epoch: 1e300 })], 'epoch must be a whole number'],
      [
        'an epoch as text',
        [bad({ epoch: '1' })],
        'epoch must be a whole number from 0 to 2^52, received "1"',
      ],
      [
        'failures below zero',
        [bad({ failures: -1 })],
        'failures must be a whole number from 0 to 10^9, received -1',
      ],
      ['failures as a list', [bad({ failures: [1] })], 'failures must be a whole number'],
      [
        'failures without end',
        [bad({ failures: Infinity })],
        'failures must be a whole number from 0 to 10^9, received null',
      ],
      ['successes out of range', [bad({ successes: 1e10 })], 'successes must be a whole number'],
      [
        'more trailing failures than failures',
        [bad({ trailingFailures: 1 })],
        'from 0 to failures, received 1',
      ],
      [
        'a wish that is no boolean',
        [bad({ wantsProbe: 1 })],
        'wantsProbe must be true, false or left out, received 1',
      ],
      [
        'a probe without a token',
        [bad({ probe: { outcome: 'failed' } })],
        'probe must have a token and an outcome',
      ],
      [
        'a probe that ended otherwise',
        [bad({ probe: { token: 1, outcome: 'lost' } })],
        'probe must have a token',
      ],
      ['no rules', [bad({ rules: undefined })], 'received nothing'],
      [
        'a threshold of zero',
        [badRules({ failureThreshold: 0 })],
        'failureThreshold and consecutiveFailures must be',
      ],
      ['a rate above one', [badRules({ failureRate: 1.5 })], 'failureRate null or in (0, 1]'],
      ['a rate of zero', [badRules({ failureRate: 0 })], 'failureRate null or in (0, 1]'],
      ['no window', [badRules({ windowMs: null })], 'the times above 0'],
      ['a cooldown of zero', [badRules({ cooldownMs: 0 })], 'the times above 0'],
      ['a lease of years', [badRules({ probeLeaseMs: 1e12 })], 'at most 2147483647 ms'],
      ['too many', Array(1001).fill(good), 'must be a JSON array of at most 1000'],
    ])('%s, and writes nothing of the others', async (_, reports, message) => {
      const name = newName()
      const sent = Array.isArray(reports) ? [report(name, { failures: 5 }), ...reports] : reports
      await expect(store.exchange(sent as BreakerReport[])).rejects.toMatchObject({
        code: 'INTERNAL_ERROR',
        sqlState: 'HF020',
        message: expect.stringContaining(message),
      })
      expect(await admin`select from holdfast.circuit_breakers where name in (${name}, 'refused')`)
        .toHaveLength(0)
    })

    test('no name for its quotes and newlines', async () => {
      const name = `'; drop table "holdfast"."circuit_breakers" --\n\\ ☃ ${newName()}`
      expect(await exchange(store, name, { failures: 5 })).toMatchObject({ name, state: 'open' })
    })
  })

  test('takes times that are fractions of a millisecond', async () => {
    const name = newName()
    const brief = { ...rules, windowMs: 0.5, cooldownMs: 0.5, probeLeaseMs: 0.5 }
    await exchange(store, name, { rules: brief, failures: 5 })
    expect(await exchange(store, name, { rules: brief, wantsProbe: true })).toMatchObject({
      state: 'half_open',
    })
  })

  test('counts for deployments with different windows together', async () => {
    const name = newName()
    const longer = { ...rules, windowMs: 10 * rules.windowMs }
    await exchange(store, name, { failures: 2 })
    await exchange(store, name, { rules: longer, failures: 1 })
    await letTimePass(admin, name, 2 * rules.windowMs)
    expect(await exchange(store, name, { failures: 1 })).toMatchObject({ state: 'closed', failures: 1 })
    expect(await exchange(store, name, { rules: longer, failures: 1 })).toMatchObject({ state: 'open' })
  })

  test('closes a breaker of which as many probes succeeded as are asked for now', async () => {
    const name = newName()
    const three = { ...rules, halfOpenProbes: 3 }
    await exchange(store, name, { rules: three, failures: 5 })
    await letTimePass(admin, name, rules.cooldownMs)
    const { probeToken } = await exchange(store, name, { rules: three, wantsProbe: true })
    await exchange(store, name, { rules: three, probe: { token: probeToken!, outcome: 'succeeded' } })
    expect(await exchange(store, name, { wantsProbe: true })).toMatchObject({
      state: 'closed',
      probeToken: null,
    })
  })

  test('goes through a pooler in transaction mode, and with named statements', async ({ skip }) => {
    const prepared = createDb({ url: database.url, max: 1, prepare: true })
    const name = await openBreaker(new PostgresBreakerStore(prepared))
    expect(await new PostgresBreakerStore(prepared).force(name, null, 'over', rules)).toMatchObject({
      epoch: 3,
    })
    await prepared.close()

    const pooler = await startPooler(database.url, 2)
    if (pooler === undefined) return skip('PgBouncer is not installed, nor can it be')
    const pooled = createDb({ url: pooler.url, max: 10 })
    try {
      const pooledStore = new PostgresBreakerStore(pooled)
      const shared = newName()
      const many = { ...rules, failureThreshold: 30 }
      await Promise.all(
        Array.from({ length: 30 }, () => exchange(pooledStore, shared, { rules: many, failures: 1 })),
      )
      expect(await exchange(pooledStore, shared)).toMatchObject({ state: 'open', epoch: 2 })
      await letTimePass(admin, shared, rules.cooldownMs)
      const asked = await Promise.all(
        Array.from({ length: 30 }, () => exchange(pooledStore, shared, { wantsProbe: true })),
      )
      expect(asked.filter(({ probeToken }) => probeToken !== null)).toHaveLength(1)
    } finally {
      await pooled.close()
      await pooler.close()
    }
  })

  test('whoever holds a row for long is waited for one second, and nothing is counted then', async () => {
    const name = newName()
    await exchange(store, name, { successes: 1 })
    const released = Promise.withResolvers<void>()
    const locked = Promise.withResolvers<void>()
    const holding = openSql(database.adminUrl).begin(async (tx) => {
      await tx`select from holdfast.circuit_breaker_counts where name = ${name} for update`
      locked.resolve()
      await released.promise
    })
    await locked.promise
    const startedAt = performance.now()
    await expect(exchange(store, name, { failures: 5 })).rejects.toMatchObject({ retryable: true })
    expect(performance.now() - startedAt).toBeGreaterThan(900)
    released.resolve()
    await holding
    expect(await exchange(store, name)).toMatchObject({ state: 'closed', failures: 0 })
  })

  test('of a server that is away is SERVICE_UNAVAILABLE', async () => {
    const away = createDb({ url: 'postgresql://postgres:x@127.0.0.1:1/postgres' })
    const unreachable = new PostgresBreakerStore(away)
    await expect(exchange(unreachable, newName())).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
    await expect(unreachable.force(newName(), 'open', '', rules)).rejects.toMatchObject({
      code: 'SERVICE_UNAVAILABLE',
    })
    await away.close()
  })

  test('whose answer was lost may have been taken, and never by halves', async () => {
    const names = [newName(), newName()]
    const lost = proxy.loseAnswer('exchange_circuit_breakers')
    const reports = names.map((name) => report(name, { failures: 3 }))
    await expect(store.exchange(reports)).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
    await lost
    // Sent again they are counted twice, as the interface says.
    for (const status of await store.exchange(reports)) {
      expect(status).toMatchObject({ state: 'open', epoch: 2 })
    }
    expect(
      await admin`
      select failures::int from holdfast.circuit_breaker_events where name = any (${names})`,
    )
      .toEqual([{ failures: 6 }, { failures: 6 }])
  })
})

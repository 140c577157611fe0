/** What circuit breakers leave in the database, who may see and change it, and what cannot be stored. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import { PostgresBreakerStore } from '../../supabase/functions/_shared/resilience/stores/postgresBreakers.ts'
import { exchange, newName, openBreaker, report, rules } from '../support/breakers.ts'
import { letTimePass } from '../support/breakerTime.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { asCaller, openSql, type Sql, user } from '../support/sql.ts'

onEachPostgres('holdfast.circuit_breakers', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let db: Db
  let store: PostgresBreakerStore

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    db = createDb({ url: database.url, max: 4, applicationName: 'holdfast/orders' })
    store = new PostgresBreakerStore(db)
  })

  afterAll(async () => {
    await db.close()
  })

  const words = async (name: string) =>
    (await admin`select in_words from holdfast.circuit_breaker_status where name = ${name}`)[0]?.in_words

  test('circuit_breaker_events has a row for each transition: from where, why, with which counts, by whom', async () => {
    const name = newName()
    await exchange(store, name, { successes: 3, failures: 5 })
    for (const outcome of ['failed', 'succeeded'] as const) {
      await letTimePass(admin, name, rules.cooldownMs)
      const { probeToken } = await exchange(store, name, { wantsProbe: true })
      await exchange(store, name, { probe: { token: probeToken!, outcome } })
    }
    await store.force(name, 'open', 'maintenance', rules)
    await store.force(name, null, '', rules)
    const none = { forced: null, failures: null, successes: null }
    expect(
      await admin`
        select epoch::int, from_state, to_state, forced, reason, failures::int, successes::int
        from holdfast.circuit_breaker_events
        where name = ${name} and reported_by = 'holdfast/orders' and occurred_at between now() - interval '1 min' and now()
        order by id`,
    ).toEqual([
      {
        epoch: 2,
        from_state: 'closed',
        to_state: 'open',
        forced: null,
        reason: '5 failures within 60000 ms',
        failures: 5,
        successes: 3,
      },
      { ...none, epoch: 3, from_state: 'open', to_state: 'half_open', reason: 'The cooldown is over' },
      { ...none, epoch: 4, from_state: 'half_open', to_state: 'open', reason: 'A probe failed' },
      { ...none, epoch: 5, from_state: 'open', to_state: 'half_open', reason: 'The cooldown is over' },
      { ...none, epoch: 6, from_state: 'half_open', to_state: 'closed', reason: 'Probes succeeded: 1' },
      { ...none, epoch: 7, from_state: 'closed', to_state: 'open', forced: 'open', reason: 'maintenance' },
      { ...none, epoch: 8, from_state: 'open', to_state: 'closed', reason: 'reset' },
    ])
  })

  describe('circuit_breaker_status', () => {
    test('says in words what a breaker does, and since when', async () => {
      const name = newName()
      await exchange(store, name, { successes: 3, failures: 1 })
      expect(
        await admin`
          select state, in_words, failures::int, successes::int, failure_rate::float8, consecutive_failures::int,
            opened_at, rules from holdfast.circuit_breaker_status where name = ${name}`,
      ).toEqual([{
        state: 'closed',
        in_words: 'Calls are made',
        failures: 1,
        successes: 3,
        failure_rate: 0.25,
        consecutive_failures: 1,
        opened_at: null,
        rules,
      }])
      await exchange(store, name, { failures: 4 })
      expect(await words(name)).toBe(
        'Calls are refused (5 failures within 60000 ms); a probe may be made in 120 s',
      )
      await letTimePass(admin, name, rules.cooldownMs)
      expect(await words(name)).toBe(
        'Calls are refused (5 failures within 60000 ms); the next call is the probe',
      )
      await exchange(store, name, { wantsProbe: true })
      expect(await words(name)).toBe(
        'A probe is under way (5 failures within 60000 ms); other calls are refused',
      )
      await letTimePass(admin, name, rules.probeLeaseMs)
      expect(await words(name)).toBe(
        'The next call is a probe (5 failures within 60000 ms); other calls are refused',
      )
    })
  })

  describe('force_circuit_breaker() by hand', () => {
    test('holds a breaker, which every isolate hears of, until it is reset', async () => {
      const name = await openBreaker(store)
      await admin`select holdfast.force_circuit_breaker(${name}, 'closed')`
      expect(await words(name)).toBe('Held closed by hand: by hand')
      const held = { epoch: 2, wantsProbe: true }
      expect(await exchange(store, name, held)).toMatchObject({ state: 'closed', forced: 'closed', epoch: 3 })
      await admin`select holdfast.force_circuit_breaker(${name}, 'open', 'the provider asked for it')`
      expect(await words(name)).toBe('Held open by hand: the provider asked for it')
      expect(await exchange(store, name, held)).toMatchObject({ state: 'open', forced: 'open', epoch: 4 })
      await admin`select holdfast.force_circuit_breaker(${name}, null)`
      expect(await words(name)).toBe('Calls are made')
      expect(await exchange(store, name, held)).toMatchObject({ state: 'closed', forced: null, epoch: 5 })
    })

    test('refuses a name that it does not know, and a state there is none of', async () => {
      await expect(admin`select holdfast.force_circuit_breaker('paymets', 'open', 'now')`).rejects
        .toMatchObject({
          code: 'HF020',
          message: 'Cannot force circuit breaker "paymets": none of this name has counted a call yet',
        })
      const name = await openBreaker(store)
      await expect(admin`select holdfast.force_circuit_breaker(${name}, 'half_open')`).rejects.toMatchObject({
        code: 'HF020',
        message: expect.stringContaining('received half_open'),
      })
      expect(await admin`select from holdfast.circuit_breakers where name = 'paymets'`).toHaveLength(0)
      expect(await exchange(store, name)).toMatchObject({ state: 'open', epoch: 2 })
    })

    test('of a breaker whose row was deleted begins it anew, and isolates take the lower epoch', async () => {
      const name = await openBreaker(store)
      await admin`delete from holdfast.circuit_breakers where name = ${name}`
      expect(await exchange(store, name, { epoch: 2, failures: 5 })).toMatchObject({
        state: 'closed',
        epoch: 1,
      })
      expect(await exchange(store, name, { failures: 5 })).toMatchObject({ state: 'open', epoch: 2 })
    })
  })

  test('a crash of the server, which empties unlogged tables, forgets the counts and no state', async () => {
    const [open, counted] = [await openBreaker(store), newName()]
    await exchange(store, counted, { failures: 4 })
    await admin`truncate holdfast.circuit_breaker_counts`
    expect(await exchange(store, open)).toMatchObject({ state: 'open', epoch: 2 })
    expect(await exchange(store, counted, { failures: 4 })).toMatchObject({ state: 'closed', failures: 4 })
    expect(
      await admin`
      select relname, relpersistence from pg_class
      where relname in ('circuit_breakers', 'circuit_breaker_counts', 'circuit_breaker_events') order by relname`,
    )
      .toEqual([
        { relname: 'circuit_breaker_counts', relpersistence: 'u' },
        { relname: 'circuit_breaker_events', relpersistence: 'p' },
        { relname: 'circuit_breakers', relpersistence: 'p' },
      ])
  })

  describe('purge_circuit_breaker_events()', () => {
    test('deletes what is older than 30 days, the oldest first, in batches', async () => {
      const name = newName()
      await store.force(name, 'open', 'kept', rules)
      for (const days of [31, 33, 32]) {
        await admin`
          insert into holdfast.circuit_breaker_events (
            name, epoch, from_state, to_state, reason, reported_by, occurred_at
          ) values (${name}, 1, 'closed', 'open', ${`${days}`}, '', now() - ${`${days} days`}::interval)`
      }
      const purge = async () =>
        Number((await admin`select holdfast.purge_circuit_breaker_events(2) as n`)[0]!.n)
      const left = async () =>
        (await admin`select reason from holdfast.circuit_breaker_events where name = ${name} order by occurred_at`)
          .map(({ reason }) => reason)
      expect(await purge()).toBe(2)
      expect(await left()).toEqual(['31', 'kept'])
      expect([await purge(), await purge()]).toEqual([1, 0])
      expect(await left()).toEqual(['kept'])
    })

    test('is run by pg_cron every hour', async () => {
      expect(
        await admin`
          select schedule, command from cron.job where jobname = 'holdfast_purge_circuit_breaker_events'`,
      ).toEqual([{ schedule: '23 * * * *', command: 'select holdfast.purge_circuit_breaker_events()' }])
    })
  })

  describe('access', () => {
    const name = newName()
    const reports = JSON.stringify([report(name, { failures: 5 })])
    const attempts: [string, string][] = [
      ['the breakers', 'select from holdfast.circuit_breakers'],
      ['their counts', 'select from holdfast.circuit_breaker_counts'],
      ['their events', 'select from holdfast.circuit_breaker_events'],
      ['their status', 'select from holdfast.circuit_breaker_status'],
      ['exchange', `select holdfast.exchange_circuit_breakers('${reports}')`],
      ['apply', `select holdfast.apply_circuit_breaker_report('${reports}'::jsonb -> 0)`],
      ['count', `select holdfast.count_circuit_breaker_calls('${reports}'::jsonb -> 0)`],
      ['change', `select holdfast.change_circuit_breaker('${name}', 'open', '', 1)`],
      ['force', `select holdfast.force_circuit_breaker('${name}', 'open', '', '${JSON.stringify(rules)}')`],
      ['purge', 'select holdfast.purge_circuit_breaker_events()'],
    ]

    test.each(attempts)('%s is refused to the API roles', async (_, statement) => {
      const sql = openSql(database.url)
      for (const caller of [{ role: 'anon' } as const, user(crypto.randomUUID())]) {
        await expect(asCaller(sql, caller, (tx) => tx.unsafe(statement))).rejects.toMatchObject({
          code: '42501',
        })
      }
      expect(await admin`select from holdfast.circuit_breakers where name = ${name}`).toHaveLength(0)
      await sql.end()
    })

    test('service_role reads all, and changes nothing', async () => {
      const sql = openSql(database.url)
      const service = { role: 'service_role' } as const
      const readable = attempts.slice(0, 4)
      for (const [, statement] of readable) await asCaller(sql, service, (tx) => tx.unsafe(statement))
      for (const [, statement] of attempts.slice(4)) {
        await expect(asCaller(sql, service, (tx) => tx.unsafe(statement))).rejects.toMatchObject({
          code: '42501',
        })
      }
      await expect(asCaller(sql, service, (tx) => tx`delete from holdfast.circuit_breakers where name = ''`))
        .rejects.toMatchObject({ code: '42501' })
      await sql.end()
    })
  })

  test.each([
    ['a name that is empty', `name = ''`, 'name_has_1_to_200_characters'],
    ['a state that is none', `state = 'ajar', retry_at = null`, 'state_is_known'],
    ['an epoch below one', 'epoch = 0', 'epochs_count_from_one'],
    ['an open one that was never opened', 'opened_at = null', 'closed_ones_have_no_opening'],
    [
      'a closed one that was opened',
      `state = 'closed', reason = null, retry_at = null`,
      'closed_ones_have_no_opening',
    ],
    ['one that is forced into another state', `forced = 'closed'`, 'one_is_forced_into_the_state_it_has'],
    ['one that is forced half open', `forced = 'half_open'`, 'one_is_forced_into_the_state_it_has'],
    ['an open one without a reason', 'reason = null', 'what_is_open_or_forced_says_why'],
    ['an open one that is never probed', 'retry_at = null', 'open_ones_say_when_to_probe'],
    ['a forced one that is probed', `forced = 'open'`, 'open_ones_say_when_to_probe'],
    [
      'a probe of an open one',
      `probe_tokens = '{1}', probes_leased_until = '{2026-01-01}'`,
      'probes_are_of_half_open_ones',
    ],
    [
      'a probe without a lease',
      `state = 'half_open', retry_at = null, probe_tokens = '{1}'`,
      'each_probe_has_token_and_lease',
    ],
    [
      'fewer than no successes',
      `state = 'half_open', retry_at = null, probes_succeeded = -1`,
      'each_probe_has_token_and_lease',
    ],
  ])('%s cannot be stored', async (_, change, constraint) => {
    const name = await openBreaker(store)
    await expect(admin.unsafe(`update holdfast.circuit_breakers set ${change} where name = '${name}'`))
      .rejects.toMatchObject({ constraint_name: constraint })
  })
})

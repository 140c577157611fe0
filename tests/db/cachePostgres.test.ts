/** Shared cache entries in PostgreSQL: the store and the functions of its migration. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import { PostgresCacheStore } from '../../supabase/functions/_shared/resilience/stores/postgresCache.ts'
import { describeCacheStore, question, tokenOf, writeOf } from '../support/cacheStore.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { asCaller, openSql, type Sql, user } from '../support/sql.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

onEachPostgres('PostgresCacheStore', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let proxy: WireProxy
  let db: Db
  let otherDb: Db
  let store: PostgresCacheStore

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    proxy = startWireProxy({ target: database.url })
    db = createDb({ url: proxy.url, max: 4 })
    otherDb = createDb({ url: database.url, max: 4 })
    store = new PostgresCacheStore(db)
  })

  afterAll(async () => {
    await Promise.all([db.close(), otherDb.close()])
    await proxy.close()
  })

  describeCacheStore(() => ({
    store,
    other: new PostgresCacheStore(() => otherDb),
    async endLease(cache, key) {
      await admin`
        update holdfast.cache_entries set leased_until = now() - interval '1 ms'
        where cache = ${cache} and key = ${key}`
    },
    async age(cache, key, ms) {
      await admin`
        update holdfast.cache_entries
        set fresh_until = fresh_until - ${ms} * interval '1 ms', expires_at = expires_at - ${ms} * interval '1 ms'
        where cache = ${cache} and key = ${key}`
    },
  }))

  describe('round trips', () => {
    test('read, write, release and each invalidation are one', async () => {
      const asked = question()
      const { value: { token }, counts: read } = await proxy.measure(() => store.read(asked))
      const others = [
        () => store.write(writeOf(asked, token!)),
        () => store.read(asked),
        () => store.release(asked.cache, asked.key, token!),
        () => store.invalidate(asked.cache, [asked.key, 'another']),
        () => store.invalidateTags(asked.cache, ['red', 'blue']),
        () => store.clear(asked.cache),
      ]
      const trips = [read.roundTrips]
      for (const each of others) trips.push((await proxy.measure<unknown>(each)).counts.roundTrips)
      expect(trips).toEqual(Array(7).fill(1))
    })

    test('reads that come together share one, those of several caches and those that lease too', async () => {
      const asked = Array.from({ length: 50 }, (_, i) => question({ cache: `cache ${i % 2}` }))
      for (const each of asked.slice(25)) {
        const { token } = await store.read(each)
        await store.write(writeOf(each, token!))
      }
      const { value, counts } = await proxy.measure(() => Promise.all(asked.map((each) => store.read(each))))
      expect(value.map(({ token }) => token !== undefined)).toEqual(asked.map((_, i) => i < 25))
      expect(counts.roundTrips).toBeLessThanOrEqual(2)
    })
  })

  test('isolates that lease and invalidate the same keys in any order never fail', async () => {
    const asked = Array.from({ length: 20 }, () => question({ tags: ['red'] }))
    const stores = [store, new PostgresCacheStore(otherDb), new PostgresCacheStore(db)]
    await Promise.all(Array.from({ length: 30 }, async (_, round) => {
      const mine = stores[round % 3]!
      const mixed = asked.toSorted(() => Math.random() - 0.5)
      await Promise.all(mixed.map((each) => mine.read({ ...each, version: `v${round % 2}` })))
      await mine.invalidate('things', mixed.map(({ key }) => key))
      await Promise.all(mixed.map((each) => mine.read(each)))
      await mine.invalidateTags('things', ['red'])
    }))
  })

  test('what is fresh is read without a write: it passes in a read-only transaction', async () => {
    const asked = question()
    await store.write(writeOf(asked, tokenOf(await store.read(asked))))
    const rows = await admin.begin(
      'read only',
      (tx) =>
        tx`select value, token, busy from holdfast.read_cache_entries(${
          JSON.stringify([asked])
        }::text::jsonb)`,
    )
    expect([...rows]).toEqual([{ value: '{"a":1}', token: null, busy: false }])
  })

  test('looks at indexes alone, also with a plan that was made while the table was empty', async () => {
    const [row] = await admin`
      select proconfig::text as settings from pg_proc where proname = 'read_cache_entries'`
    expect(row!.settings).toContain('enable_seqscan=off')
    await admin`
      insert into holdfast.cache_entries (cache, key, version, tags, value, fresh_until, expires_at, fence)
      select 'many', i::text, '', case when i % 100 = 0 then array['tag ' || i] else '{}' end, '1', now(), now(), 1
      from generate_series(1, 20000) i`
    await admin`analyze holdfast.cache_entries`
    const plans = [
      await admin`explain delete from holdfast.cache_entries e
        where e.cache = 'many' and e.tags <> '{}' and e.tags && array['tag 100']`,
      await admin`explain select from holdfast.cache_entries e
        where e.expires_at <= now() order by e.expires_at limit 10 for update skip locked`,
    ]
    for (const plan of plans) {
      expect(plan.map((line) => line['QUERY PLAN']).join('\n')).not.toContain('Seq Scan')
    }
    await store.clear('many')
  })

  describe('purge_cache_entries()', () => {
    test('deletes what is over, the oldest first, in batches, and keeps the rest', async () => {
      await admin`delete from holdfast.cache_entries`
      for (let i = 0; i < 7; i++) {
        await admin`
          insert into holdfast.cache_entries (cache, key, version, expires_at, fence)
          values ('things', ${`${i}`}, '', now() + ${`${1 - i} min`}::interval - interval '1 ms', 1)`
      }
      const purge = async () => Number((await admin`select holdfast.purge_cache_entries(4) as n`)[0]!.n)
      const left = async () =>
        (await admin`select key from holdfast.cache_entries order by key`).map(({ key }) => key)
      expect(await purge()).toBe(4)
      expect(await left()).toEqual(['0', '1', '2'])
      expect(await purge()).toBe(2)
      expect(await purge()).toBe(0)
      expect(await left()).toEqual(['0'])
    })

    test('is run by pg_cron every two minutes', async () => {
      expect(
        [...await admin`select schedule, command from cron.job where jobname = 'holdfast_purge_cache_entries'`],
      ).toEqual([{ schedule: '*/2 * * * *', command: 'select holdfast.purge_cache_entries()' }])
    })
  })

  test('the API roles reach neither the table nor a function', async () => {
    const sql = openSql(database.url)
    const statements = [
      'select from holdfast.cache_entries',
      `select holdfast.read_cache_entries('[]')`,
      `select holdfast.lease_cache_entry('a', 'a', '', '{}', 0, 1)`,
      `select holdfast.write_cache_entry('a', 'a', '', '{}', 1, '1', 1, 1)`,
      `select holdfast.release_cache_entry('a', 'a', 1)`,
      `select holdfast.invalidate_cache('a')`,
      `select holdfast.purge_cache_entries()`,
      `select nextval('holdfast.cache_tokens')`,
    ]
    for (const caller of [{ role: 'anon' } as const, user(crypto.randomUUID())]) {
      for (const statement of statements) {
        await expect(asCaller(sql, caller, (tx) => tx.unsafe(statement))).rejects.toMatchObject({
          code: '42501',
        })
      }
    }
  })

  test.each([
    ['a key of 256 characters', `repeat('x', 256), '1', now(), null, null`, 'names_are_short'],
    ['a value without a time', `'a', '1', null, null, null`, 'a_value_has_a_time'],
    ['a lease without an end', `'a', null, null, 1, null`, 'a_lease_has_token_and_end'],
    ['the end of no lease', `'a', null, null, null, now()`, 'a_lease_has_token_and_end'],
  ])('%s cannot be stored', async (_, values, constraint) => {
    await expect(admin.unsafe(`
      insert into holdfast.cache_entries
        (cache, version, expires_at, fence, key, value, fresh_until, lease_token, leased_until)
      values ('things', '', now(), 1, ${values})`)).rejects.toMatchObject({ constraint_name: constraint })
  })

  test('a table that a crash has emptied, or that somebody truncates, is a cold cache: nobody is rejected', async () => {
    const asked = question()
    const token = tokenOf(await store.read(asked))
    await admin`truncate holdfast.cache_entries`
    expect(await store.write(writeOf(asked, token))).toBe(false)
    expect(tokenOf(await store.read(asked))).toBeGreaterThan(token)
  })
})

/** Idempotency keys in PostgreSQL: the store and the functions of its migration. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import { PostgresIdempotencyStore } from '../../supabase/functions/_shared/resilience/stores/postgres.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { answer, claimed, describeStore, newRequest } from '../support/idempotencyStore.ts'
import { asCaller, openSql, type Sql, user } from '../support/sql.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

const lease = { leaseMs: 60_000 }
const day = 86_400_000

onEachPostgres('PostgresIdempotencyStore', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let proxy: WireProxy
  let db: Db
  let otherDb: Db
  let store: PostgresIdempotencyStore

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    proxy = startWireProxy({ target: database.url })
    db = createDb({ url: proxy.url, max: 4 })
    otherDb = createDb({ url: database.url, max: 4 })
    store = new PostgresIdempotencyStore(db)
  })

  afterAll(async () => {
    await Promise.all([db.close(), otherDb.close()])
    await proxy.close()
  })

  describeStore(() => ({
    store,
    other: new PostgresIdempotencyStore(() => otherDb),
    async endLease({ id }) {
      await admin`
        update holdfast.idempotency_keys set leased_until = now() - interval '1 ms' where id = decode(${id}, 'hex')`
    },
    async expire({ id }) {
      await admin`
        update holdfast.idempotency_keys set expires_at = now() - interval '1 ms' where id = decode(${id}, 'hex')`
    },
    async timeToLive({ id }) {
      const [row] = await admin`
        select (extract(epoch from expires_at - clock_timestamp()) * 1000)::float8 as ms
        from holdfast.idempotency_keys where id = decode(${id}, 'hex')`
      return row!.ms
    },
  }))

  describe('round trips', () => {
    test('claim, complete and release are one each', async () => {
      const [first, second] = [newRequest(), newRequest()]
      const claims = await proxy.measure(() => store.claim(first, lease))
      const completed = await proxy.measure(() =>
        store.complete(first, claimed(claims.value).token, answer, day)
      )
      const { token } = claimed(await store.claim(second, lease))
      const released = await proxy.measure(() => store.release(second, token))
      expect([claims, completed, released].map(({ counts }) => counts.roundTrips)).toEqual([1, 1, 1])
    })

    test('a look is one, and those that come meanwhile share the next', async () => {
      const request = newRequest()
      await store.complete(request, claimed(await store.claim(request, lease)).token, answer, day)
      const one = await proxy.measure(() => store.find(request))
      expect(one.value).toEqual({ outcome: 'replay', answer })
      expect(one.counts.roundTrips).toBe(1)

      const others = [newRequest(), newRequest({ id: request.id }), ...Array(50).fill(request)]
      const many = await proxy.measure(() => Promise.all(others.map((each) => store.find(each))))
      expect(many.value.map(({ outcome }) => outcome)).toEqual([
        'absent',
        'mismatch',
        ...Array(50).fill('replay'),
      ])
      expect(many.counts.roundTrips).toBeLessThanOrEqual(2)
    })
  })

  test('a replay writes nothing: it passes in a read-only transaction, and none is given an id', async () => {
    const request = newRequest()
    const { id, fingerprint } = request
    await store.complete(request, claimed(await store.claim(request, lease)).token, answer, day)
    const seen = await admin.begin('read only', async (tx) => {
      const [lookedUp] = await tx`
        select outcome from holdfast.find_idempotent_answers(
          array[decode(${id}, 'hex')], array[decode(${fingerprint}, 'hex')])`
      const [claim] = await tx`
        select outcome from holdfast.lease_idempotency_key(
          decode(${id}, 'hex'), decode(${fingerprint}, 'hex'), 'POST /things', null, null, 1000, 1000)`
      const [transaction] = await tx`select pg_current_xact_id_if_assigned() as id`
      return { lookedUp, claim, transaction }
    })
    expect(seen).toEqual({
      lookedUp: { outcome: 'replay' },
      claim: { outcome: 'replay' },
      transaction: { id: null },
    })
  })

  test('a plan made while the table was empty does not read all of it later', async () => {
    const [{ plan }] = await admin`
      select proconfig::text as plan from pg_proc where proname = 'find_idempotent_answers'` as unknown as [
      { plan: string },
    ]
    expect(plan).toContain('enable_seqscan=off')
  })

  describe('purge_idempotency_keys()', () => {
    test('deletes what is over, the oldest first, in batches, and keeps the rest', async () => {
      await admin`delete from holdfast.idempotency_keys`
      const requests = Array.from({ length: 7 }, () => newRequest())
      for (const request of requests) await store.claim(request, lease)
      const [living, ...over] = requests
      for (const [i, { id }] of over.entries()) {
        await admin`
          update holdfast.idempotency_keys set expires_at = now() - ${`${i + 1} min`}::interval
          where id = decode(${id}, 'hex')`
      }
      const purge = async () => Number((await admin`select holdfast.purge_idempotency_keys(4) as n`)[0]!.n)
      const left = async () =>
        (await admin`select encode(id, 'hex') as id from holdfast.idempotency_keys order by expires_at`)
          .map(({ id }) => id)
      expect(await purge()).toBe(4)
      expect(await left()).toEqual([over[1]!.id, over[0]!.id, living!.id])
      expect(await purge()).toBe(2)
      expect(await purge()).toBe(0)
      expect(await left()).toEqual([living!.id])
    })

    test('is run by pg_cron every ten minutes', async () => {
      expect(
        await admin`
        select schedule, command from cron.job where jobname = 'holdfast_purge_idempotency_keys'`,
      )
        .toEqual([{ schedule: '*/10 * * * *', command: 'select holdfast.purge_idempotency_keys()' }])
    })

    test('looks at the index alone for what is due', async () => {
      const rows = await admin`
        explain select id from holdfast.idempotency_keys
        where expires_at <= now() order by expires_at limit 10 for update skip locked`
      expect(rows.map((row) => row['QUERY PLAN']).join('\n')).not.toContain('Seq Scan')
    })
  })

  test('the API roles reach neither the table nor a function', async () => {
    const sql = openSql(database.url)
    const { id } = newRequest()
    for (const caller of [{ role: 'anon' } as const, user(crypto.randomUUID())]) {
      for (
        const attempt of [
          () => asCaller(sql, caller, (tx) => tx`select from holdfast.idempotency_keys`),
          () =>
            asCaller(
              sql,
              caller,
              (tx) => tx`select holdfast.claim_idempotency_key(decode(${id}, 'hex'), decode(${id}, 'hex'))`,
            ),
          () =>
            asCaller(
              sql,
              caller,
              (tx) =>
                tx`select holdfast.find_idempotent_answers(array[decode(${id}, 'hex')], array[decode(${id}, 'hex')])`,
            ),
          () =>
            asCaller(
              sql,
              caller,
              (tx) => tx`select holdfast.release_idempotency_key(decode(${id}, 'hex'), 1)`,
            ),
          () => asCaller(sql, caller, (tx) => tx`select holdfast.purge_idempotency_keys()`),
        ]
      ) await expect(attempt()).rejects.toMatchObject({ code: '42501' })
    }
  })

  test.each([
    ['a digest that is cut', `decode('00', 'hex'), sha256('a'), 200, '[]', '', null`, 'digests_are_whole'],
    [
      'an answer without a body',
      `sha256('a'), sha256('a'), 200, '[]', null, null`,
      'an_answer_has_status_headers_and_body',
    ],
    [
      'a status that is none',
      `sha256('a'), sha256('a'), 99, '[]', '', null`,
      'an_answer_has_status_headers_and_body',
    ],
    [
      'neither answer nor lease',
      `sha256('a'), sha256('a'), null, null, null, null`,
      'an_answer_has_status_headers_and_body',
    ],
    [
      'half a lease',
      `sha256('a'), sha256('a'), null, null, null, 1`,
      'a_lease_has_token_end_effect_and_attempt',
    ],
  ])('%s cannot be stored', async (_, values, constraint) => {
    await expect(admin.unsafe(`
      insert into holdfast.idempotency_keys (route, expires_at, id, fingerprint, status, headers, body, lease_token)
      values ('POST /things', now(), ${values})`)).rejects.toMatchObject({ constraint_name: constraint })
  })

  test('a server that is away is SERVICE_UNAVAILABLE', async () => {
    const away = createDb({ url: 'postgresql://postgres:x@127.0.0.1:1/postgres' })
    const unreachable = new PostgresIdempotencyStore(away)
    await expect(unreachable.claim(newRequest(), lease)).rejects.toMatchObject({
      code: 'SERVICE_UNAVAILABLE',
    })
    await expect(unreachable.find(newRequest())).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
    await away.close()
  })
})

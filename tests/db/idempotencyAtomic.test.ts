/** A key, the writes and the stored answer as one transaction: resilience/idempotency.ts in atomic mode. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import type { AtomicFinished } from '../../supabase/functions/_shared/resilience/idempotency.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { newRequest } from '../support/idempotencyStore.ts'
import { openSql, type Sql } from '../support/sql.ts'
import {
  actor,
  created,
  createThings,
  insertThing,
  type Isolate,
  openIsolate,
  thingsOf,
} from '../support/things.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

onEachPostgres('atomic()', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let proxy: WireProxy
  /** Behind the proxy, with one connection. */
  let isolate: Isolate
  let other: Isolate

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    await createThings(admin)
    proxy = startWireProxy({ target: database.url, settleMs: 10 })
    isolate = openIsolate({ url: proxy.url, max: 1 })
    other = openIsolate({ url: database.url, max: 2 })
    // Opening a connection has trips of its own.
    await isolate.db.ping()
  })

  afterAll(async () => {
    await Promise.all([isolate.db.close(), other.db.close()])
    await proxy.close()
  })

  const stored = async ({ id }: { id: string }) =>
    (await admin`select from holdfast.idempotency_keys where id = decode(${id}, 'hex')`).count
  const neverRun = () => Promise.reject(new Error('ran again'))
  const refusal: AtomicFinished = {
    answer: { status: 409, headers: [], body: '{"code":"OUT_OF_STOCK"}' },
    store: true,
  }

  test('commits what the work wrote with its answer, and replays that in every isolate (IK5)', async () => {
    const request = newRequest()
    expect(await isolate.insert(request)).toEqual({ answer: created.answer, replayed: false })
    for (const each of [isolate, other]) {
      expect(await each.atomic(request, neverRun)).toEqual({ answer: created.answer, replayed: true })
    }
    expect(await thingsOf(admin, request)).toBe(1)
  })

  test("runs as the caller, and its books as the connection's own role", async () => {
    const request = newRequest()
    await isolate.atomic(request, async (tx) => {
      const [row] = await tx.query(sql`select current_user as role, auth.uid() as id`)
      expect(row).toEqual({ role: 'authenticated', id: '00000000-0000-4000-8000-00000000000a' })
      return created
    })
    expect(await stored(request)).toBe(1)
  })

  describe('round trips', () => {
    const deferred = (request: { id: string }): AtomicFinished => ({
      answer: { status: 201, headers: [], body: '' },
      store: true,
      deferred: { last: insertThing(request as never), prefix: '{"nth":', suffix: '}' },
    })

    test('a write of one statement is one, with its claim and its stored answer', async () => {
      const request = newRequest()
      const { value, counts } = await proxy.measure(() =>
        isolate.atomic(request, () => Promise.resolve(deferred(request)))
      )
      expect(counts.roundTrips).toBe(1)
      expect(value.answer.body).toMatch(/^\{"nth":\d+\}$/)
      expect(await other.atomic(request, neverRun)).toEqual({ answer: value.answer, replayed: true })
    })

    test('n dependent statements are n + 1, as without a key', async () => {
      const { counts } = await proxy.measure(() =>
        isolate.insert(newRequest(), {}, async (tx) => {
          await tx.query(sql`select 1`)
          await tx.query(sql`select 2`)
        })
      )
      expect(counts.roundTrips).toBe(4)
    })

    test('a refusal is stored in the trip that rolls back', async () => {
      const { counts } = await proxy.measure(() =>
        isolate.atomic(newRequest(), async (tx) => {
          await tx.query(sql`select 1`)
          return refusal
        })
      )
      expect(counts.roundTrips).toBe(2)
    })

    test('a replay is one where this isolate has answered before, else three: claim, rollback, answer', async () => {
      const request = newRequest()
      await other.insert(request)
      const first = await proxy.measure(() =>
        isolate.atomic(request, async (tx) => {
          await tx.query(insertThing(request))
          return created
        })
      )
      const second = await proxy.measure(() => isolate.atomic(request, neverRun))
      expect([first, second].map(({ value, counts }) => [value.replayed, counts.roundTrips])).toEqual([[
        true,
        3,
      ], [true, 1]])
      expect(await thingsOf(admin, request)).toBe(1)
    })
  })

  describe('the reply of a deferred statement', () => {
    const run = (request: ReturnType<typeof newRequest>, last: ReturnType<typeof sql>) =>
      isolate.atomic(request, () =>
        Promise.resolve({
          answer: { status: 201, headers: [], body: '' },
          store: true,
          deferred: { last, prefix: '[', suffix: ']' },
        }))

    test.each([
      ['a number', sql`select 7`, '[7]'],
      ['a text', sql`select ${'quoted " \\ ☃'}::text`, '["quoted \\" \\\\ ☃"]'],
      [
        'json, as it was written',
        sql`select '{"b" : 1,  "a":2}'::json, 'another column'`,
        '[{"b" : 1,  "a":2}]',
      ],
      ['null', sql`select null`, '[null]'],
      ['no row', sql`select 1 where false`, '[null]'],
      ['a query with parts of its own', sql`with a as (select 1 as n) select n + 1 from a`, '[2]'],
    ])('%s is the same in the answer and in its replay', async (_, last, body) => {
      const request = newRequest()
      expect((await run(request, last)).answer.body).toBe(body)
      expect((await other.atomic(request, neverRun)).answer.body).toBe(body)
    })

    test('of more than one row is an error, and nothing is written', async () => {
      const request = newRequest()
      const two = sql`insert into public.things (name) values (${request.id}), (${request.id}) returning nth`
      await expect(run(request, two)).rejects.toMatchObject({ sqlState: '21000' })
      expect([await thingsOf(admin, request), await stored(request)]).toEqual([0, 0])
    })

    test('that fails is what the call rejects with, and nothing is written', async () => {
      const request = newRequest()
      await expect(run(request, sql`select 1 / 0`)).rejects.toMatchObject({ sqlState: '22012' })
      expect(await stored(request)).toBe(0)
    })
  })

  test('a refusal of the handler is rolled back, stored and replayed', async () => {
    const request = newRequest()
    const refuse = async (tx: { query: Isolate['db']['owner']['query'] }) => {
      await tx.query(insertThing(request))
      return refusal
    }
    expect(await isolate.atomic(request, refuse)).toEqual({ answer: refusal.answer, replayed: false })
    expect(await other.atomic(request, neverRun)).toEqual({ answer: refusal.answer, replayed: true })
    expect(await thingsOf(admin, request)).toBe(0)
  })

  test('a refusal before the first statement is stored too, unless the key has an answer', async () => {
    const [fresh, done] = [newRequest(), newRequest()]
    const refuse = () => Promise.resolve(refusal)
    expect(await isolate.atomic(fresh, refuse)).toEqual({ answer: refusal.answer, replayed: false })
    expect(await stored(fresh)).toBe(1)
    await other.insert(done)
    expect(await isolate.atomic(done, refuse)).toEqual({ answer: created.answer, replayed: true })
  })

  test('an answer that may be another next time is not stored: the next call runs', async () => {
    const request = newRequest()
    const unavailable: AtomicFinished = { answer: { status: 503, headers: [], body: 'later' }, store: false }
    const run = await isolate.insert(request).then(() => undefined, () => undefined)
    expect(run).toBeUndefined()
    const another = newRequest()
    const failed = await isolate.atomic(another, async (tx) => {
      await tx.query(insertThing(another))
      return unavailable
    })
    expect(failed).toEqual({ answer: unavailable.answer, replayed: false })
    expect([await thingsOf(admin, another), await stored(another)]).toEqual([0, 0])
    expect(await other.insert(another)).toMatchObject({ replayed: false })
  })

  test('what the work throws is rethrown as it is; nothing is written and the next call runs', async () => {
    const request = newRequest()
    const failure = new Error('no')
    await expect(isolate.insert(request, {}, () => Promise.reject(failure))).rejects.toBe(failure)
    expect([await thingsOf(admin, request), await stored(request)]).toEqual([0, 0])
    expect(await isolate.insert(request)).toMatchObject({ replayed: false })
  })

  test('an expired key is a new request (IK6)', async () => {
    const request = newRequest()
    await isolate.insert(request)
    await admin`update holdfast.idempotency_keys set expires_at = now() where id = decode(${request.id}, 'hex')`
    const again = newRequest({ id: request.id })
    expect(await isolate.insert(again)).toMatchObject({ replayed: false })
    expect(await other.atomic(again, neverRun)).toMatchObject({ replayed: true })
    expect(await thingsOf(admin, request)).toBe(2)
  })

  test('an answer lives as long as the call says', async () => {
    const request = newRequest()
    await isolate.insert(request, { ttlMs: 5_000_000 })
    const [row] = await admin`
      select extract(epoch from expires_at - created_at)::float8 as seconds
      from holdfast.idempotency_keys where id = decode(${request.id}, 'hex')`
    expect(row!.seconds).toBeGreaterThanOrEqual(5_000)
    expect(row!.seconds).toBeLessThan(5_010)
  })

  describe('an answer that is larger than may be stored', () => {
    const tooLarge = {
      code: 'INTERNAL_ERROR',
      message: expect.stringMatching(/^Cannot store the answer of POST \/things .* larger than 10 bytes/),
    }
    const limit = { maxStoredBytes: 10 }

    test.each([201, 409])('with status %d commits nothing and says which route', async (status) => {
      const request = newRequest()
      const large = isolate.atomic(request, async (tx) => {
        await tx.query(insertThing(request))
        return { answer: { status, headers: [], body: '☃☃☃☃' }, store: true }
      }, limit)
      await expect(large).rejects.toMatchObject(tooLarge)
      expect([await thingsOf(admin, request), await stored(request)]).toEqual([0, 0])
    })

    test('is found in a deferred reply as well', async () => {
      const request = newRequest()
      const run = (suffix: string) =>
        isolate.atomic(request, () =>
          Promise.resolve({
            answer: { status: 201, headers: [], body: '' },
            store: true,
            deferred: {
              last: sql`insert into public.things (name) values (${request.id}) returning 1`,
              prefix: '☃☃☃',
              suffix,
            },
          }), limit)
      await expect(run('.')).rejects.toMatchObject(tooLarge)
      expect([await thingsOf(admin, request), await stored(request)]).toEqual([0, 0])
      expect((await run('')).answer.body).toBe('☃☃☃1')
    })
  })

  describe('a serialization failure', () => {
    const conflict = sql`do $$ begin raise exception 'in the way' using errcode = '40001'; end $$`

    test.each([
      ['thrown on', (error: unknown) => Promise.reject(error)],
      ['made an answer of', () => Promise.resolve(refusal)],
      ['swallowed', () => Promise.resolve(created)],
    ])('%s by the handler runs the whole again', async (_, handle) => {
      const request = newRequest()
      let runs = 0
      const outcome = await isolate.atomic(request, async (tx) => {
        await tx.query(insertThing(request))
        if (++runs < 3) return await tx.query(conflict).then(() => created, handle)
        return created
      })
      expect(outcome).toEqual({ answer: created.answer, replayed: false })
      expect(runs).toBe(3)
      expect(await thingsOf(admin, request)).toBe(1)
    })

    test('is thrown after three runs', async () => {
      const request = newRequest()
      let runs = 0
      await expect(isolate.insert(request, {}, (tx) => (runs++, tx.query(conflict))))
        .rejects.toMatchObject({ code: 'CONFLICT', retryable: true })
      expect(runs).toBe(3)
      expect(await stored(request)).toBe(0)
    })
  })

  test.each(['repeatable read', 'serializable'] as const)(
    '%s: independent keys do not disturb each other, equal ones run once',
    async (isolation) => {
      const requests = Array.from({ length: 30 }, () => newRequest())
      const outcomes = await Promise.all(
        requests.map((each, i) => (i % 2 ? isolate : other).insert(each, { isolation })),
      )
      expect(outcomes.filter(({ replayed }) => replayed)).toEqual([])
      const request = newRequest()
      const same = await Promise.all([isolate, other].map((each) => each.insert(request, { isolation })))
      expect(same.map(({ replayed }) => replayed).sort()).toEqual([false, true])
      expect(await thingsOf(admin, request)).toBe(1)
    },
  )

  test('the claim of a handler that catches everything still ends in the replay', async () => {
    const request = newRequest()
    await other.insert(request)
    const outcome = await isolate.atomic(request, async (tx) => {
      await tx.query(insertThing(request)).catch(() => {})
      return { answer: { status: 500, headers: [], body: 'failed' }, store: false }
    })
    expect(outcome).toEqual({ answer: created.answer, replayed: true })
  })

  test.each([
    ['waitMs', -1],
    ['ttlMs', NaN],
    ['maxStoredBytes', 0.5],
  ])('refuses %s %d and sends nothing', async (name, value) => {
    const { counts } = await proxy.measure(() =>
      expect(isolate.insert(newRequest(), { [name]: value })).rejects.toThrow(RangeError)
    )
    expect(counts.roundTrips).toBe(0)
    expect(actor.caller.role).toBe('authenticated')
  })
})

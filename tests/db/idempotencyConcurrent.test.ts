/** One key, many callers, in several isolates, while connections and servers fail: atomic mode under concurrency. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import type { Outcome } from '../../supabase/functions/_shared/resilience/idempotency.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { newRequest } from '../support/idempotencyStore.ts'
import { startPooler } from '../support/pooler.ts'
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
import { waitFor } from '../support/wait.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

onEachPostgres('atomic() among many', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let proxy: WireProxy
  let one: Isolate
  let two: Isolate
  /** Behind the proxy. */
  let fragile: Isolate

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    await createThings(admin)
    proxy = startWireProxy({ target: database.url })
    one = openIsolate({ url: database.url, max: 2 })
    two = openIsolate({ url: database.url, max: 2 })
    fragile = openIsolate({ url: proxy.url, max: 1 })
  })

  afterAll(async () => {
    await Promise.all([one, two, fragile].map(({ db }) => db.close()))
    await proxy.close()
  })

  const stored = async ({ id }: { id: string }) =>
    (await admin`select from holdfast.idempotency_keys where id = decode(${id}, 'hex')`).count
  const locks = async () =>
    (await admin`select from pg_locks where locktype = 'advisory' and database = (
      select oid from pg_database where datname = current_database())`).count
  const noLocks = () => waitFor(async () => await locks() === 0, { what: 'the locks to go' })
  /** Counts how often the isolate looks for an answer that is not there yet. */
  const watchFind = ({ store }: Isolate) => {
    const seen = { count: 0 }
    const find = store.find.bind(store)
    store.find = (request) => (seen.count++, find(request))
    return seen
  }
  const ran = (outcomes: Outcome[]) => outcomes.filter(({ replayed }) => !replayed).length

  /** A request whose work has written and now waits for `finish`. */
  const startHeld = async (isolate: Isolate, request = newRequest()) => {
    const [inside, finish] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const outcome = isolate.insert(request, {}, () => (inside.resolve(), finish.promise))
    await inside.promise
    return { request, outcome, finish: finish.resolve, fail: finish.reject }
  }

  test('a hundred with one key in two isolates run once; those who wait hold no connection, and others go on', async () => {
    const held = await startHeld(one)
    const asked = watchFind(two)
    const waiting = Array.from({ length: 99 }, (_, i) => (i % 2 ? one : two).insert(held.request))
    // Isolate two has asked whether it may run, and was told to wait.
    await waitFor(() => asked.count > 1, { what: 'isolate two to be told to wait' })
    // Both connections of isolate two and the other one of isolate one are free, at the same time and again.
    for (let round = 0; round < 10; round++) {
      const others = [two, two, one].map(({ db }) => db.begin(actor))
      await Promise.all(others.map((tx) => tx.query(sql`select 1`)))
      await Promise.all(others.map((tx) => tx.rollback()))
    }
    held.finish()
    const outcomes = await Promise.all([held.outcome, ...waiting])
    expect(ran(outcomes)).toBe(1)
    expect(new Set(outcomes.map(({ answer }) => answer.body))).toEqual(new Set([created.answer.body]))
    expect(await thingsOf(admin, held.request)).toBe(1)
  })

  test('another fingerprint is REUSED while the first runs, in its isolate and elsewhere, and before IN_USE (IK3)', async () => {
    const held = await startHeld(one)
    for (const isolate of [one, two]) {
      const another = newRequest({ id: held.request.id })
      await expect(isolate.insert(another, { waitMs: 0 })).rejects.toMatchObject({
        code: 'IDEMPOTENCY_KEY_REUSED',
        status: 422,
        retryable: false,
      })
    }
    held.finish()
    await held.outcome
    for (const isolate of [one, two]) {
      await expect(isolate.insert(newRequest({ id: held.request.id }))).rejects.toMatchObject({
        code: 'IDEMPOTENCY_KEY_REUSED',
      })
    }
    expect(await thingsOf(admin, held.request)).toBe(1)
  })

  test('whoever has waited waitMs gets IN_USE with Retry-After, and nothing is stored for it (IK4, IK7)', async () => {
    const held = await startHeld(one)
    for (const isolate of [one, two]) {
      await expect(isolate.insert(held.request, { waitMs: 30 })).rejects.toMatchObject({
        code: 'IDEMPOTENCY_KEY_IN_USE',
        status: 409,
        retryable: true,
        retryAfterMs: expect.any(Number),
      })
    }
    expect(await stored(held.request)).toBe(0)
    held.finish()
    expect((await held.outcome).replayed).toBe(false)
  })

  test('whoever waits runs itself when the first fails, in another isolate', async () => {
    const held = await startHeld(one)
    const waiting = two.insert(held.request)
    const failure = new Error('no')
    held.fail(failure)
    await expect(held.outcome).rejects.toBe(failure)
    expect(await waiting).toMatchObject({ replayed: false })
    expect(await thingsOf(admin, held.request)).toBe(1)
  })

  test('a caller that is aborted stops waiting at once, and the others go on', async () => {
    const held = await startHeld(one)
    const abort = new AbortController()
    const aborted = [one, two].map((each) => each.insert(held.request, { signal: abort.signal }))
    const patient = two.insert(held.request)
    abort.abort(new Error('gone'))
    for (const each of aborted) await expect(each).rejects.toThrow('gone')
    held.finish()
    expect(await patient).toMatchObject({ replayed: true })
    expect(ran([await held.outcome])).toBe(1)
  })

  test('when another answer was stored meanwhile, what was written is rolled back and that answer is given', async () => {
    const held = await startHeld(one)
    const { id, fingerprint } = held.request
    await admin`
      insert into holdfast.idempotency_keys (id, fingerprint, expires_at, status, route, headers, body)
      values (decode(${id}, 'hex'), decode(${fingerprint}, 'hex'), now() + interval '1 day', 201, 'POST /things', '[]', 'faster')`
    held.finish()
    expect(await held.outcome).toEqual({
      answer: { status: 201, headers: [], body: 'faster' },
      replayed: true,
    })
    expect(await thingsOf(admin, held.request)).toBe(0)
  })

  describe('a crash at any instant leaves nothing or all, and the key is free at once:', () => {
    const neverRun = () => Promise.reject(new Error('ran again'))

    test('before the first statement arrives', async () => {
      const request = newRequest()
      await fragile.db.ping()
      proxy.refuse(true)
      proxy.cut()
      await expect(fragile.insert(request)).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
      proxy.refuse(false)
      expect(await two.insert(request)).toMatchObject({ replayed: false })
      expect(await thingsOf(admin, request)).toBe(1)
    })

    test('when the answer to the first statement is lost', async () => {
      const request = newRequest()
      const lost = proxy.loseAnswer('insert into public.things')
      await expect(fragile.insert(request)).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
      await lost
      expect(await two.insert(request)).toMatchObject({ replayed: false })
      expect(await thingsOf(admin, request)).toBe(1)
    })

    test('between its statements', async () => {
      const request = newRequest()
      await expect(fragile.insert(request, {}, () => proxy.cut())).rejects.toMatchObject({
        code: 'SERVICE_UNAVAILABLE',
      })
      expect([await thingsOf(admin, request), await stored(request)]).toEqual([0, 0])
      expect(await two.insert(request)).toMatchObject({ replayed: false })
    })

    test('when its server process dies', async () => {
      const request = newRequest()
      const crashed = fragile.insert(request, {}, async (tx) => {
        const [row] = await tx.query(sql`select pg_backend_pid() as pid`)
        await admin`select pg_terminate_backend(${row!.pid as number})`
      })
      await expect(crashed).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
      await noLocks()
      expect(await two.insert(request)).toMatchObject({ replayed: false })
      expect(await thingsOf(admin, request)).toBe(1)
    })

    test('when the answer to the commit is lost: the table is asked, and the answer given', async () => {
      const request = newRequest()
      const lost = proxy.loseAnswer('store_idempotent_answer')
      const outcome = await fragile.insert(request)
      await lost
      expect(outcome).toEqual({ answer: created.answer, replayed: false })
      expect(await two.atomic(request, neverRun)).toMatchObject({ replayed: true })
      expect(await thingsOf(admin, request)).toBe(1)
    })

    test('when the answer to all of it in one trip is lost', async () => {
      const request = newRequest()
      const lost = proxy.loseAnswer('claim_idempotency_key')
      const outcome = await fragile.atomic(request, () =>
        Promise.resolve({
          ...created,
          deferred: { last: insertThing(request), prefix: '', suffix: '' },
        }))
      await lost
      expect(outcome).toMatchObject({ replayed: false, answer: { body: expect.stringMatching(/^\d+$/) } })
      expect(await two.atomic(request, neverRun)).toEqual({ ...outcome, replayed: true })
      expect(await thingsOf(admin, request)).toBe(1)
    })

    test('when the server is gone after that: 503, and the same key finds out', async () => {
      const request = newRequest()
      const way = startWireProxy({ target: database.url })
      const cutOff = openIsolate({ url: way.url, max: 1 })
      const lost = way.loseAnswer('store_idempotent_answer')
      const closed = lost.then(() => way.close())
      const outcome = cutOff.insert(request)
      await expect(outcome).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE', retryable: true })
      await closed
      expect(await two.atomic(request, neverRun)).toEqual({ answer: created.answer, replayed: true })
      expect(await thingsOf(admin, request)).toBe(1)
      await cutOff.db.close()
    })

    test('in the commit itself: it is run again', async () => {
      const request = newRequest()
      let runs = 0
      await admin`create sequence public.deaths`
      await admin`
        create function public.die_once() returns trigger language plpgsql security definer as $$
        begin
          if nextval('public.deaths') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;
          return null;
        end $$`
      await admin`
        create constraint trigger die_once after insert on public.things deferrable initially deferred
        for each row execute function public.die_once()`
      expect(await fragile.insert(request, {}, () => void runs++)).toMatchObject({ replayed: false })
      await admin`drop trigger die_once on public.things`
      expect(runs).toBe(2)
      expect(await thingsOf(admin, request)).toBe(1)
    })
  })

  test('through a pooler in transaction mode, a hundred with ten keys run ten times', async ({ skip }) => {
    const pooler = await startPooler(database.url, 3)
    if (pooler === undefined) return skip('PgBouncer is not installed, nor can it be')
    const isolates = [openIsolate({ url: pooler.url, max: 4 }), openIsolate({ url: pooler.url, max: 4 })]
    try {
      const requests = Array.from({ length: 10 }, () => newRequest())
      const outcomes = await Promise.all(
        Array.from({ length: 100 }, (_, i) => isolates[i % 2]!.insert(requests[i % 10]!)),
      )
      expect(ran(outcomes)).toBe(10)
      for (const request of requests) expect(await thingsOf(admin, request)).toBe(1)
      await noLocks()
    } finally {
      await Promise.all(isolates.map(({ db }) => db.close()))
      await pooler.close()
    }
  })
})

/** Effects outside the database under a lease: resilience/idempotency.ts in leased mode, over every store. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../supabase/functions/_shared/core/errors.ts'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import { counters } from '../../supabase/functions/_shared/observability/metrics.ts'
import {
  createIdempotency,
  type Finished,
  type IdempotencyRequest,
  type IdempotencyStore,
  lastStatement,
  type LeasedClaim,
  type LeasedOptions,
} from '../../supabase/functions/_shared/resilience/idempotency.ts'
import { MemoryIdempotencyStore } from '../../supabase/functions/_shared/resilience/stores/memory.ts'
import { PostgresIdempotencyStore } from '../../supabase/functions/_shared/resilience/stores/postgres.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { answer, newRequest } from '../support/idempotencyStore.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { actor, createThings, insertThing, kept, quiet, thingsOf } from '../support/things.ts'
import { waitFor } from '../support/wait.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

const options: LeasedOptions = { ...kept, leaseMs: 60_000, onUnavailable: 'closed' }
const finished: Finished = { answer, store: true }
const neverRun = () => Promise.reject(new Error('ran again'))

onEachPostgres('leased()', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let proxy: WireProxy
  let db: Db
  let otherDb: Db

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    await createThings(admin)
    proxy = startWireProxy({ target: database.url, settleMs: 10 })
    db = createDb({ url: proxy.url, max: 2 })
    otherDb = createDb({ url: database.url, max: 2 })
    // Opening a connection has trips of its own.
    await db.ping()
  })

  afterAll(async () => {
    await Promise.all([db.close(), otherDb.close()])
    await proxy.close()
  })

  /** What one isolate has. */
  const open = (store: IdempotencyStore = new PostgresIdempotencyStore(db)) => {
    const idempotency = createIdempotency({ store, log: quiet })
    return (
      request: IdempotencyRequest,
      work: (claim: LeasedClaim) => Promise<Finished>,
      given: Partial<LeasedOptions> = {},
    ) => idempotency.leased(request, { ...options, ...given }, work)
  }
  const openOther = () => open(new PostgresIdempotencyStore(otherDb))
  const endLease = ({ id }: IdempotencyRequest) =>
    admin`update holdfast.idempotency_keys set leased_until = now() where id = decode(${id}, 'hex')`
  const stateOf = async ({ id }: IdempotencyRequest) => {
    const [row] = await admin`
      select status, attempt::int, leased_until > now() as leased
      from holdfast.idempotency_keys where id = decode(${id}, 'hex')`
    return row
  }

  test('runs once, stores the answer and replays it in every isolate', async () => {
    const request = newRequest()
    const claims: LeasedClaim[] = []
    const first = await proxy.measure(() =>
      open()(request, (claim) => (claims.push(claim), Promise.resolve(finished)))
    )
    expect(first.value).toEqual({ answer, replayed: false })
    expect(claims).toMatchObject([{ attempt: 1, resumed: false, effectId: expect.any(String) }])
    expect(first.counts.roundTrips).toBe(2)
    const again = await proxy.measure(() => open()(request, neverRun))
    expect(again.value).toEqual({ answer, replayed: true })
    expect(again.counts.roundTrips).toBe(1)
  })

  test('a hundred with one key in two isolates run once, and hold no connection while they wait', async () => {
    const request = newRequest()
    const isolates = [open(), openOther()]
    const finish = Promise.withResolvers<void>()
    let runs = 0
    const outcomes = Promise.all(Array.from({ length: 100 }, (_, i) =>
      isolates[i % 2]!(request, async () => {
        runs++
        await finish.promise
        return finished
      })))
    await waitFor(() => runs, { what: 'one to run' })
    for (let round = 0; round < 10; round++) {
      const others = [db, db, otherDb, otherDb].map((each) => each.begin(actor))
      await Promise.all(others.map((tx) => tx.query(insertThing(newRequest()))))
      await Promise.all(others.map((tx) => tx.rollback()))
    }
    finish.resolve()
    expect((await outcomes).filter(({ replayed }) => !replayed)).toHaveLength(1)
    expect(runs).toBe(1)
  })

  test('another fingerprint is REUSED, the same one IN_USE once it has waited (IK3, IK4)', async () => {
    const request = newRequest()
    const finish = Promise.withResolvers<void>()
    const [one, two] = [open(), openOther()]
    const started = Promise.withResolvers<void>()
    const running = one(request, async () => (started.resolve(), await finish.promise, finished))
    await started.promise
    for (const isolate of [one, two]) {
      await expect(isolate(newRequest({ id: request.id }), neverRun)).rejects.toMatchObject({
        code: 'IDEMPOTENCY_KEY_REUSED',
      })
      await expect(isolate(request, neverRun, { waitMs: 0 })).rejects.toMatchObject({
        code: 'IDEMPOTENCY_KEY_IN_USE',
        retryable: true,
        retryAfterMs: expect.any(Number),
      })
    }
    finish.resolve()
    expect(await running).toMatchObject({ replayed: false })
  })

  test.each([
    ['throws', () => Promise.reject(new Error('no')), 'rejects'],
    [
      'answers what may be another next time',
      () => Promise.resolve({ ...finished, store: false }),
      'resolves',
    ],
    ['answers more than may be stored', () => Promise.resolve(finished), 'rejects'],
  ])(
    'a work that %s frees its key at once; the next is told that it resumes, with the same effect (IK8)',
    async (_, work, how) => {
      const request = newRequest()
      let effect: string | undefined
      const run = open()(request, (claim) => (effect = claim.effectId, work()), {
        maxStoredBytes: how === 'rejects' ? 5 : 500,
      })
      expect(await run.then(() => 'resolves', () => 'rejects')).toBe(how)
      expect(await stateOf(request)).toMatchObject({ status: null, leased: false })
      const next = openOther()(request, (claim) => {
        expect(claim).toMatchObject({ attempt: 2, resumed: true, effectId: effect })
        return Promise.resolve(finished)
      })
      expect(await next).toMatchObject({ replayed: false })
    },
  )

  test('an answer that is too large is an INTERNAL_ERROR that names the route', async () => {
    await expect(open()(newRequest(), () => Promise.resolve(finished), { maxStoredBytes: 5 })).rejects
      .toMatchObject({
        code: 'INTERNAL_ERROR',
        message: expect.stringContaining('POST /things'),
      })
  })

  test('a holder whose lease was taken over stores nothing, and its caller is told to ask again', async () => {
    const request = newRequest()
    const winner: Finished = { answer: { ...answer, body: 'winner' }, store: true }
    const slow = open()(request, async () => {
      await endLease(request)
      await openOther()(request, () => Promise.resolve(winner))
      return finished
    })
    await expect(slow).rejects.toMatchObject({ code: 'IDEMPOTENCY_KEY_IN_USE', retryable: true })
    expect(await open()(request, neverRun)).toEqual({ answer: winner.answer, replayed: true })
  })

  describe('completeWith()', () => {
    const write = async (
      request: IdempotencyRequest,
      claim: LeasedClaim,
      deferred?: { prefix: string; suffix: string },
    ) => {
      const tx = db.begin(actor)
      try {
        if (deferred === undefined) await tx.query(insertThing(request))
        return await tx.commit<{ data: string }>({
          last: deferred && lastStatement(insertThing(request)),
          closing: [claim.completeWith!(answer, deferred)],
        })
      } finally {
        await tx.rollback()
      }
    }

    test('stores the answer with the business transaction', async () => {
      const request = newRequest()
      await open()(request, async (claim) => {
        await write(request, claim)
        return { ...finished, completed: true }
      })
      expect(await openOther()(request, neverRun)).toEqual({ answer, replayed: true })
      expect(await thingsOf(admin, request)).toBe(1)
    })

    test('takes the body from a last statement', async () => {
      const request = newRequest()
      const { answer: given } = await open()(request, async (claim) => {
        const [row] = await write(request, claim, { prefix: '[', suffix: ']' })
        return { answer: { ...answer, body: `[${row!.data}]` }, store: true, completed: true }
      })
      expect(given.body).toMatch(/^\[\d+\]$/)
      expect(await openOther()(request, neverRun)).toEqual({ answer: given, replayed: true })
    })

    test('fails with IN_USE when the claim was lost, and what the slow holder wrote is rolled back', async () => {
      const request = newRequest()
      const slow = open()(request, async (claim) => {
        await endLease(request)
        await openOther()(request, () => Promise.resolve(finished))
        await write(request, claim)
        return { ...finished, completed: true }
      })
      await expect(slow).rejects.toMatchObject({
        code: 'IDEMPOTENCY_KEY_IN_USE',
        cause: { sqlState: 'HF003' },
      })
      expect(await thingsOf(admin, request)).toBe(0)
      expect(await open()(request, neverRun)).toEqual({ answer, replayed: true })
    })

    test('refuses a body that is too large, also one that is known only in the database', async () => {
      const request = newRequest()
      const tooLarge = open()(request, (claim) => write(request, claim).then(() => finished), {
        maxStoredBytes: 5,
      })
      await expect(tooLarge).rejects.toMatchObject({
        code: 'INTERNAL_ERROR',
        message: expect.stringContaining('POST /things'),
      })
      const deferred = { prefix: '123456', suffix: '' }
      const inSql = open()(request, (claim) => write(request, claim, deferred).then(() => finished), {
        maxStoredBytes: 5,
      })
      await expect(inSql).rejects.toMatchObject({ sqlState: 'HF011' })
      expect(await thingsOf(admin, request)).toBe(0)
    })

    test('is not there for a store that cannot commit with the transaction', async () => {
      await open(new MemoryIdempotencyStore())(newRequest(), (claim) => {
        expect(claim.completeWith).toBeUndefined()
        return Promise.resolve(finished)
      })
    })
  })

  describe('a store that is away', () => {
    /** A store that can be taken away, without a server in between. */
    class Fragile extends MemoryIdempotencyStore {
      isAway = false
      override claim(...args: Parameters<MemoryIdempotencyStore['claim']>) {
        return this.isAway ? unreachable() : super.claim(...args)
      }
      override complete(...args: Parameters<MemoryIdempotencyStore['complete']>) {
        return this.isAway ? unreachable() : super.complete(...args)
      }
      override release(...args: Parameters<MemoryIdempotencyStore['release']>) {
        return this.isAway ? unreachable() : super.release(...args)
      }
    }
    const unreachable = () =>
      Promise.reject(new HoldfastError('SERVICE_UNAVAILABLE', 'Cannot reach the store'))

    test('closed: 503 with Retry-After, and nothing runs', async () => {
      const store = new PostgresIdempotencyStore(
        createDb({ url: 'postgresql://postgres:x@127.0.0.1:1/postgres' }),
      )
      await expect(open(store)(newRequest(), neverRun)).rejects.toMatchObject({
        code: 'SERVICE_UNAVAILABLE',
        retryAfterMs: 1_000,
      })
    })

    test('local: this isolate decides, says so, counts it, and stays with it when the store is back', async () => {
      const store = new Fragile()
      const leased = open(store)
      const request = newRequest({ route: `POST /local/${pg.major}` })
      const local = { onUnavailable: 'local' } as const
      store.isAway = true
      expect(await leased(request, () => Promise.resolve(finished), local)).toEqual({
        answer,
        replayed: false,
        local: true,
      })
      expect(await leased(request, neverRun, local)).toEqual({ answer, replayed: true, local: true })
      await expect(leased(newRequest({ id: request.id }), neverRun, local)).rejects.toMatchObject({
        code: 'IDEMPOTENCY_KEY_REUSED',
      })
      store.isAway = false
      expect(await leased(request, neverRun, local)).toEqual({ answer, replayed: true, local: true })
      expect(counters()[`idempotency_local_total{route="${request.route}"}`]).toBeGreaterThanOrEqual(2)
      expect(await leased(newRequest(), () => Promise.resolve(finished), local)).toEqual({
        answer,
        replayed: false,
      })
    })

    test('when it goes while the work runs: closed is 503, local keeps the answer here', async () => {
      const [closedStore, localStore] = [new Fragile(), new Fragile()]
      const goes = (store: Fragile) => () => (store.isAway = true, Promise.resolve(finished))
      await expect(open(closedStore)(newRequest(), goes(closedStore))).rejects.toMatchObject({
        code: 'SERVICE_UNAVAILABLE',
        retryAfterMs: 1_000,
      })
      const leased = open(localStore)
      const request = newRequest()
      const local = { onUnavailable: 'local' } as const
      expect(await leased(request, goes(localStore), local)).toEqual({ answer, replayed: false, local: true })
      expect(await leased(request, neverRun, local)).toEqual({ answer, replayed: true, local: true })
    })

    test('what the work throws is rethrown even if the key cannot be released', async () => {
      const store = new Fragile()
      const failure = new Error('no')
      await expect(open(store)(newRequest(), () => (store.isAway = true, Promise.reject(failure)))).rejects
        .toBe(failure)
    })
  })

  test.each([['leaseMs', NaN], ['waitMs', Infinity], ['ttlMs', -1], ['maxStoredBytes', 1.5]])(
    'refuses %s %d and claims nothing',
    async (name, value) => {
      const request = newRequest()
      await expect(open()(request, neverRun, { [name]: value })).rejects.toThrow(RangeError)
      expect(await stateOf(request)).toBeUndefined()
    },
  )
})

/** SQL as the caller: db/client.ts on a real server, counted on the wire. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Actor, RequestInfo } from '../../supabase/functions/_shared/core/caller.ts'
import {
  createDb,
  type Db,
  type DbOptions,
  sql,
  sqlArray,
} from '../../supabase/functions/_shared/db/client.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

const adaId = '00000000-0000-4000-8000-00000000000a'
const graceId = '00000000-0000-4000-8000-00000000000b'

const request: RequestInfo = {
  requestId: 'req-1',
  functionName: 'orders',
  method: 'POST',
  path: '/orders',
  ip: '203.0.113.7',
  userAgent: 'vitest "quoted" \u2603',
}

function signedIn(userId: string): Actor {
  return { caller: { kind: 'user', role: 'authenticated', userId, claims: { sub: userId } }, request }
}

const anonymous: Actor = { caller: { kind: 'none', role: 'anon', claims: { role: 'anon' } } }

onEachPostgres('db/client', (pg) => {
  let database: FreshDatabase
  let proxy: WireProxy
  let admin: Sql
  /** One connection, so that each statement finds what the one before has left on it. */
  let db: Db
  const opened: Db[] = []

  const open = (options: Partial<DbOptions> = {}) => {
    const made = createDb({ url: database.url, max: 1, ...options })
    opened.push(made)
    return made
  }

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    proxy = startWireProxy({ target: database.url })
    db = open({ url: proxy.url })
    await admin`
      insert into public.orders (user_id, status, total_minor, currency)
      values (${adaId}, 'paid', 100, 'EUR'), (${graceId}, 'paid', 200, 'EUR')`
  })

  afterAll(async () => {
    await Promise.all(opened.map((each) => each.close()))
    await proxy.close()
  })

  describe('as()', () => {
    test('runs with the role, the claims and the request of the caller', async () => {
      const [row] = await db.as(signedIn(adaId)).query(sql`
        select current_user as role, auth.uid() as uid, auth.jwt() ->> 'sub' as sub,
          current_setting('request.method') as method, current_setting('request.headers')::json as headers`)
      expect(row).toEqual({
        role: 'authenticated',
        uid: adaId,
        sub: adaId,
        method: 'POST',
        headers: {
          'x-request-id': 'req-1',
          'x-forwarded-for': '203.0.113.7',
          'user-agent': 'vitest "quoted" \u2603',
          'x-function-name': 'orders',
        },
      })
    })

    test('leaves nothing of the caller on the connection', async () => {
      await db.as(signedIn(adaId)).query(sql`select 1`)
      await db.as(signedIn(adaId)).query(sql`select 1 / 0`).catch(() => {})
      const [left] = await db.asService('test').query(sql`
        select session_user as session, nullif(current_setting('request.headers', true), '') as headers,
          auth.uid() as uid`)
      expect(left).toEqual({ session: 'postgres', headers: null, uid: null })
    })

    test('sees what row level security lets the caller see, and no more', async () => {
      const totals = async (actor: Actor) =>
        (await db.as(actor).query<{ total: number }>(
          sql`select total_minor::int as total from public.orders`,
        ))
          .map((row) => row.total)
      expect(await totals(signedIn(adaId))).toEqual([100])
      expect(await totals(signedIn(graceId))).toEqual([200])
      await expect(totals(anonymous)).rejects.toMatchObject({ code: 'FORBIDDEN', sqlState: '42501' })
    })

    test.each(['postgres', 'supabase_admin', 'authenticated; drop table public.orders', ''])(
      'refuses the role %j',
      (role) => {
        const actor = { caller: { kind: 'user', role, userId: adaId, claims: {} } } as unknown as Actor
        expect(() => db.as(actor)).toThrow(expect.objectContaining({ code: 'FORBIDDEN' }))
      },
    )
  })

  test('asService() runs as service_role and names its reason while it runs', async () => {
    const [row] = await db.asService('counting orders').query(sql`
      select current_user as role, current_setting('application_name') as name,
        (select count(*)::int from public.orders) as orders`)
    expect(row).toEqual({ role: 'service_role', name: 'holdfast: counting orders', orders: 2 })
  })

  describe('values', () => {
    test.each([
      ['text with quotes', `'"; drop table public.orders; --`, (v: unknown) => sql`${v}::text`],
      ['unicode', 'snow \u2603, clef \u{1D11E}, rtl \u202e', (v: unknown) => sql`${v}::text`],
      ['backslashes and dollars', String.raw`\' $1 $$ \x00`, (v: unknown) => sql`${v}::text`],
      ['a large number', 9_007_199_254_740_991, (v: unknown) => sql`${v}::bigint`],
      ['a fraction', -0.1, (v: unknown) => sql`${v}::float8`],
      ['true', true, (v: unknown) => sql`${v}::boolean`],
      ['null', null, (v: unknown) => sql`${v}::text`],
      ['an object', { a: [1, 'two', null], 'key "q"': { deep: true } }, (v: unknown) => sql`${v}::jsonb`],
      ['an array', [1, 2, 3], (v: unknown) => sql`${v}::jsonb`],
      ['an SQL array', ['a', 'b "c", {d}', '\\'], (v: unknown) => sql`${sqlArray(v as string[])}::text[]`],
    ])('%s arrives as it was', async (_, value, typed) => {
      const [row] = await db.as(anonymous).query(sql`select to_jsonb(${typed(value)}) as value`)
      expect(row?.value).toEqual(value)
    })

    test('NUL, which PostgreSQL cannot store, is a VALIDATION_ERROR', async () => {
      await expect(db.as(anonymous).query(sql`select ${'a\0b'}::text`)).rejects.toMatchObject({
        code: 'VALIDATION_ERROR',
      })
    })
  })

  describe('transaction()', () => {
    const insert = (total: number) =>
      sql`
      insert into public.orders (user_id, status, total_minor, currency)
      values (${adaId}::uuid, 'paid', ${total}, 'EUR')`
    const count = async (total: number) =>
      (await admin`select from public.orders where total_minor = ${total}`).count

    test('commits what its work wrote and resolves to what it returned', async () => {
      const result = await db.asService('test').transaction(async (tx) => {
        await tx.query(insert(301))
        await tx.query(insert(301))
        return 'done'
      })
      expect([result, await count(301)]).toEqual(['done', 2])
    })

    test('takes everything back when the work throws, and rethrows that very error', async () => {
      const failure = new Error('the work failed')
      const attempt = db.asService('test').transaction(async (tx) => {
        await tx.query(insert(302))
        throw failure
      })
      await expect(attempt).rejects.toBe(failure)
      expect(await count(302)).toBe(0)
    })

    test('never reports success for a transaction in which a statement failed and was caught', async () => {
      const attempt = db.asService('test').transaction(async (tx) => {
        await tx.query(insert(303))
        await tx.query(sql`select 1 / 0`).catch(() => {})
        return 'done'
      })
      await expect(attempt).rejects.toMatchObject({
        code: 'INTERNAL_ERROR',
        message: expect.stringContaining('Cannot commit'),
      })
      expect(await count(303)).toBe(0)
    })

    test('touches no connection when its work sends nothing', async () => {
      const untouched = open({ url: 'postgresql://postgres@127.0.0.1:1/none' })
      await expect(untouched.close()).resolves.toBeUndefined()
      const before = proxy.counts().roundTrips
      await db.asService('test').transaction(() => Promise.resolve())
      expect(proxy.counts().roundTrips - before).toBe(0)
    })

    test('whose connection is lost runs no later statement anywhere else', async () => {
      const attempt = db.asService('test').transaction(async (tx) => {
        await tx.query(insert(304))
        await admin`
          select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and usename = 'postgres' and state = 'idle in transaction'`
        // The first ones meet the end of the connection; what comes after it would find a new one.
        for (let i = 0; i < 5; i += 1) await tx.query(insert(304)).catch(() => {})
        await tx.query(insert(304))
      })
      await expect(attempt).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE', retryable: true })
      expect(await count(304)).toBe(0)
      await expect(db.ping()).resolves.toBeGreaterThan(0)
    })
  })

  describe('round trips', () => {
    const trips = async (work: () => Promise<unknown>) => {
      await db.ping()
      const before = proxy.counts().roundTrips
      await work()
      return proxy.counts().roundTrips - before
    }

    test('one statement with its transaction, role and claims costs one', async () => {
      const actor = signedIn(adaId)
      expect(await trips(() => db.as(actor).query(sql`select ${1}::int, ${'two'}::text`))).toBe(1)
    })

    test('however long the claims are', async () => {
      // A slow reader of the wire, so that a second trip cannot slip into the first.
      const gate = startWireProxy({ target: database.url, settleMs: 10 })
      const far = createDb({ url: gate.url, max: 1 })
      const actor = signedIn(adaId)
      actor.caller.claims.app_metadata = { teams: 'x'.repeat(3_000) }
      await far.ping()
      const before = gate.counts().roundTrips
      await far.as(actor).query(sql`select 1`)
      expect(gate.counts().roundTrips - before).toBe(1)
      await far.close()
      await gate.close()
    })

    test('n dependent statements cost n + 1', async () => {
      const work = () =>
        db.as(signedIn(adaId)).transaction(async (tx) => {
          for (const value of [1, 2, 3]) await tx.query(sql`select ${value}::int`)
        })
      expect(await trips(work)).toBe(4)
    })

    test('independent statements share one', async () => {
      const work = () =>
        db.as(signedIn(adaId)).transaction((tx) =>
          Promise.all([1, 2, 3].map((value) => tx.query(sql`select ${value}::int`)))
        )
      expect(await trips(work)).toBe(2)
    })
  })

  describe('limits', () => {
    test('a statement that runs too long is stopped by the server and is UPSTREAM_TIMEOUT', async () => {
      const impatient = open({ statementTimeoutMs: 50 })
      await expect(impatient.as(anonymous).query(sql`select pg_sleep(10)`)).rejects.toMatchObject({
        code: 'UPSTREAM_TIMEOUT',
        sqlState: '57014',
      })
    })

    test('whoever waits too long for a connection is told so, and the next in line is served', async () => {
      const narrow = open({ acquireTimeoutMs: 60 })
      const held = Promise.withResolvers<void>()
      const entered = Promise.withResolvers<void>()
      const holder = narrow.as(anonymous).transaction(async (tx) => {
        await tx.query(sql`select 1`)
        entered.resolve()
        await held.promise
      })
      await entered.promise
      await expect(narrow.ping()).rejects.toMatchObject({
        code: 'SERVICE_UNAVAILABLE',
        message: expect.stringContaining('in use'),
      })
      const next = narrow.ping()
      held.resolve()
      await expect(holder).resolves.toBeUndefined()
      await expect(next).resolves.toBeGreaterThan(0)
    })

    test('transactions that hold every connection do not wait for their own books', async () => {
      const narrow = open({ max: 2, acquireTimeoutMs: 1_000 })
      const both = Promise.withResolvers<void>()
      let holding = 0
      const work = () =>
        narrow.as(anonymous).transaction(async (tx) => {
          await tx.query(sql`select 1`)
          if (++holding === 2) both.resolve()
          await both.promise
          return await narrow.owner.query(sql`select current_user::text as role`)
        })
      // The third waits for a connection all the while, and is served by neither's books.
      const results = await Promise.all([work(), work(), narrow.as(anonymous).query(sql`select 1 as one`)])
      expect(results).toEqual([[{ role: 'postgres' }], [{ role: 'postgres' }], [{ one: 1 }]])
    })

    test('a burst wider than the pool is served in full', async () => {
      const burst = Array.from(
        { length: 40 },
        (_, i) =>
          db.as(signedIn(i % 2 === 0 ? adaId : graceId)).query<{ uid: string }>(
            sql`select auth.uid() as uid`,
          ),
      )
      const uids = (await Promise.all(burst)).map(([row]) => row?.uid)
      expect(uids).toEqual(uids.map((_, i) => i % 2 === 0 ? adaId : graceId))
    })
  })

  test('a server that takes connections and closes them is SERVICE_UNAVAILABLE, at once', async () => {
    const gate = startWireProxy({ target: database.url })
    gate.refuse(true)
    const refused = open({ url: gate.url })
    await expect(refused.ping()).rejects.toMatchObject({
      code: 'SERVICE_UNAVAILABLE',
      message: expect.stringContaining('Cannot reach PostgreSQL'),
    })
    expect(gate.counts().connections).toBeLessThan(3)
    gate.refuse(false)
    await expect(refused.ping()).resolves.toBeGreaterThan(0)
    await refused.close()
    await gate.close()
  })

  test('a server that is away is SERVICE_UNAVAILABLE, for all who wait, and its return is noticed', async () => {
    const gate = startWireProxy({ target: database.url })
    const { port } = gate
    const away = open({ url: gate.url, max: 2 })
    await away.ping()
    await gate.close()
    const refused = await Promise.allSettled(Array.from({ length: 6 }, () => away.ping()))
    for (const result of refused) {
      expect(result).toMatchObject({
        status: 'rejected',
        reason: { code: 'SERVICE_UNAVAILABLE', retryAfterMs: 1_000 },
      })
    }
    const back = startWireProxy({ target: database.url, port })
    await expect(away.ping()).resolves.toBeGreaterThan(0)
    await away.close()
    await back.close()
  })

  test('named statements take the same values and give the same rows, each time they return', async () => {
    const named = open({ prepare: true })
    const values = () =>
      named.owner.query(sql`
        select ${true}::boolean as yes, ${false}::boolean as no, ${'infinity'}::timestamptz::text as late, ${{
        a: [1, 'x'],
      }}::jsonb as data, ${'\\x00ff'}::bytea::text as bytes, ${3}::int + 1 as four, ${null}::text as nothing,
          ${sqlArray(['a', 'b'])}::text[] as list`)
    const first = await values()
    expect(first).toEqual([{
      yes: true,
      no: false,
      late: 'infinity',
      data: { a: [1, 'x'] },
      bytes: '\\x00ff',
      four: 4,
      nothing: null,
      list: '{a,b}',
    }])
    expect(await Promise.all([values(), values()])).toEqual([first, first])
    const [{ count }] = await named.owner.query<{ count: string }>(
      sql`select count(*) from pg_prepared_statements where ${1} = 1`,
    ) as [{ count: string }]
    expect(Number(count)).toBeGreaterThan(0)
  })
})

describe('createDb()', () => {
  test.each([
    [{ url: 'not a url' }, TypeError],
    [{ max: 0 }, RangeError],
    [{ max: 1.5 }, RangeError],
    [{ statementTimeoutMs: Number.NaN }, RangeError],
    [{ acquireTimeoutMs: Number.POSITIVE_INFINITY }, RangeError],
    [{ idleTimeoutMs: -1 }, RangeError],
    [{ connectTimeoutMs: 0 }, RangeError],
  ])('refuses %j', (options, type) => {
    expect(() => createDb({ url: 'postgresql://127.0.0.1/x', ...options })).toThrow(type)
  })
})

/** Rate limits in PostgreSQL: the store and the functions of its migration. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import {
  PostgresRateLimitStore,
  rateLimitSql,
} from '../../supabase/functions/_shared/resilience/stores/postgresRateLimits.ts'
import type {
  RateLimitQuestion,
  RateLimitWindow,
} from '../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { describeRateLimitStore } from '../support/rateLimitStore.ts'
import { asCaller, openSql, type Sql, user } from '../support/sql.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

const hour = 3_600_000
const gcra: RateLimitWindow = { name: 'calls', algorithm: 'gcra', quota: 10, windowMs: hour, burst: 10 }
const windows = [gcra]

let asked = 0

/** Another key at every call. */
function question(given: Partial<RateLimitQuestion> = {}): RateLimitQuestion {
  return { key: `calls|gcra:10/h|${++asked}`, windows, cost: 1, count: 1, blockMs: 0, ...given }
}

onEachPostgres('PostgresRateLimitStore', (pg) => {
  let admin: Sql
  let proxy: WireProxy
  let db: Db
  let otherDb: Db
  let store: PostgresRateLimitStore

  beforeAll(async () => {
    const database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    proxy = startWireProxy({ target: database.url })
    db = createDb({ url: proxy.url, max: 4 })
    otherDb = createDb({ url: database.url, max: 2, prepare: true })
    store = new PostgresRateLimitStore(db)
  })

  afterAll(async () => {
    await Promise.all([db.close(), otherDb.close()])
    await proxy.close()
  })

  describeRateLimitStore(() => ({ store, other: new PostgresRateLimitStore(() => otherDb) }))

  describe('round trips', () => {
    test('a question is one, and so are many for many keys', async () => {
      await store.decide([question()])
      const one = await proxy.measure(() => store.decide([question()]))
      const many = await proxy.measure(() => store.decide(Array.from({ length: 50 }, () => question())))
      expect([one.counts.roundTrips, many.counts.roundTrips]).toEqual([1, 1])
      expect(many.value.map(({ admitted }) => admitted)).toEqual(Array(50).fill(1))
    })

    test('questions that arrive while one is under way share the next', async () => {
      const hot = question()
      const { value, counts } = await proxy.measure(() =>
        Promise.all(Array.from({ length: 40 }, (_, i) => store.decide([i % 4 === 0 ? question() : hot])))
      )
      expect(counts.roundTrips).toBe(2)
      const admitted = value.filter((_, i) => i % 4 !== 0).map(([answer]) => answer!.admitted)
      expect(admitted).toEqual([...Array(10).fill(1), ...Array(20).fill(0)])
    })

    test('penalize, block and reset are one each', async () => {
      const { key, ...rest } = question()
      const { counts } = await proxy.measure(async () => {
        await store.penalize({ key, ...rest })
        await store.block(key, 1_000)
        await store.reset(key)
      })
      expect(counts.roundTrips).toBe(3)
    })
  })

  test('calls merged into one question are told what was left after each of them', async () => {
    const hot = question()
    const answers = await Promise.all(Array.from({ length: 12 }, () => store.decide([hot])))
    expect(answers.map(([answer]) => answer!.windows[0]!.remaining)).toEqual([
      9,
      8,
      7,
      6,
      5,
      4,
      3,
      2,
      1,
      0,
      0,
      0,
    ])
  })

  test('keys that are asked for together are decided each for itself', async () => {
    const [full, blocked, part, fresh, other] = Array.from({ length: 5 }, () => question({ blockMs: 60_000 }))
    await store.decide([{ ...full!, count: 10 }, { ...part!, count: 8 }])
    await store.block(blocked!.key, 30_000)
    const asked = [full!, blocked!, { ...part!, count: 3 }, fresh!, { ...other!, count: 10 }]
    const { value, counts } = await proxy.measure(() => store.decide(asked))
    expect(counts.roundTrips).toBe(1)
    expect(
      value.map(({ admitted, windows: [window], blockedMs }) => [admitted, window!.remaining, blockedMs > 0]),
    )
      .toEqual([[0, 0, true], [0, 10, true], [2, 0, true], [1, 9, false], [10, 0, false]])
    expect(value.map(({ blockedMs }) => Math.round(blockedMs / 10_000))).toEqual([6, 3, 6, 0, 0])
  })

  test('a row keeps its place on the page: no decision writes the index', async () => {
    for (let i = 0; i < 300; i++) await admin`select holdfast.decide_gcra_limit('place', 1, 1, 0, 1, 1000000)`
    await admin`select pg_stat_force_next_flush()`
    const [row] = await admin`
      select n_tup_upd::int as updates, n_tup_hot_upd::int as in_place from pg_stat_user_tables
      where relid = 'holdfast.rate_limits'::regclass`
    expect(row!.updates).toBeGreaterThanOrEqual(299)
    expect(row!.in_place / row!.updates).toBeGreaterThan(0.95)
  })

  test('keys of any text are taken, and always in the order of their bytes', async () => {
    const texts = [
      '\u{1F600}',
      '\uFFFD',
      '\uE000',
      'ä',
      'z',
      'Z',
      '"',
      '\\',
      '{a,b}',
      'null',
      ' ',
      '\n',
      "'",
      '￿',
      '\u{10FFFF}',
    ]
    const questions = texts.map((text) => question({ key: `texts|${text}` }))
    for (let round = 0; round < 2; round++) {
      const answers = await store.decide(questions)
      expect(answers.map(({ windows: [window] }) => window!.remaining)).toEqual(texts.map(() => 9 - round))
    }
    const rows = await admin`select key from holdfast.rate_limits where key like 'texts|%'`
    expect(rows.map(({ key }) => key.slice('texts|'.length)).sort()).toEqual(texts.toSorted())
  })

  test.each<[string, Partial<RateLimitQuestion>]>([
    ['an empty key', { key: '' }],
    ['a key with NUL', { key: 'a\0b' }],
    ['a key that is not well-formed', { key: 'a\ud800b' }],
    ['a key that is too long', { key: 'x'.repeat(256) }],
    ['a cost of 0', { cost: 0 }],
    ['a cost that is no whole number', { cost: 1.5 }],
    ['a cost beyond counting', { cost: Number.MAX_SAFE_INTEGER }],
    ['a negative count', { count: -1 }],
    ['a count beyond counting', { count: Number.MAX_SAFE_INTEGER }],
    ['a negative block', { blockMs: -1 }],
    ['no windows', { windows: [] }],
    ['a quota of NaN', { windows: [{ ...gcra, quota: NaN }] }],
    ['an unknown algorithm', { windows: [{ ...gcra, algorithm: 'toString' as 'gcra' }] }],
    ['a burst beyond time', { windows: [{ ...gcra, quota: 1, burst: 1e9, windowMs: 31_622_400_000 }] }],
  ])('%s is refused before it is sent, and harms nobody who asks at the same time', async (_, bad) => {
    const { value, counts } = await proxy.measure(() =>
      Promise.allSettled([
        store.decide([question()]),
        store.decide([question(bad)]),
        store.decide([question()]),
      ])
    )
    expect(value.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    const { reason } = value[1] as PromiseRejectedResult
    expect(reason instanceof TypeError || reason instanceof RangeError).toBe(true)
    expect(reason.message).toMatch(/^Cannot ask for a rate limit: .*(received|windows)/)
    expect(counts.roundTrips).toBeLessThanOrEqual(2)
  })

  test.each([-1, 0.5, NaN, Infinity])('a block for %d ms is refused', async (ms) => {
    await expect(store.block('key', ms)).rejects.toThrow(RangeError)
  })

  test('a function of plpgsql can decide with plain values, and read what was admitted', async () => {
    const questions = ['b', 'a', 'c'].map((name) => question({ key: `plain|${name}`, count: 12 }))
    const { expression, places, answers } = rateLimitSql(questions)
    const { text, values } = expression.compile()
    const [row] = await admin.unsafe(`select ${text}::text as decided`, values as string[])
    expect(places).toEqual([1, 0, 2])
    expect(answers(row!.decided).map(({ admitted }) => admitted)).toEqual([10, 10, 10])

    await admin`
      create function pg_temp.admitted() returns bigint language plpgsql as ${
      admin.unsafe(`$$
      declare
          v_decided bigint[];
      begin
          v_decided := holdfast.decide_rate_limits(
              array['plain|a', 'plain|d'], array[1, 3, 0, 0, 1, 0, 360000000, 10, 2, 7, 0, 0, 1, 1, 3600000000, 10]
          );
          return v_decided[2] * 100 + v_decided[3];
      end $$`)
    }`
    expect(await admin`select pg_temp.admitted()::int as n`).toEqual([{ n: 5 }])
  })

  test('keys that are not in order are refused, since whoever locks in another order may wait for ever', async () => {
    await expect(admin`
      select holdfast.decide_rate_limits(array['b', 'a'], array[1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1])`)
      .rejects.toMatchObject({ code: 'HF030' })
  })

  test('a statement for alike keys takes none that could never be admitted: their rows would be locked too late', async () => {
    for (const counts of [[1, 0], [1, 11]]) {
      await expect(admin`
        select holdfast.decide_gcra_limits(array['a', 'b'], ${counts}::bigint[], 1, 0, 1, 10)`)
        .rejects.toMatchObject({ code: 'HF030' })
    }
  })

  test('a plan made while the table was empty does not read all of it later', async () => {
    const [row] = await admin`
      select proconfig::text as settings from pg_proc where proname = 'decide_rate_limit'`
    expect(row!.settings).toContain('enable_seqscan=off')
  })

  test('admins see who is limited, in plain words', async () => {
    const within = question({ key: 'seen|gcra:10/h|within' })
    const refused = question({ key: 'seen|gcra:10/h|refused|twice', count: 11 })
    await store.decide([within, refused])
    await store.block('seen|gcra:10/h|blocked', 60_000)
    const sql = openSql(proxy.url)
    const rows = await asCaller(sql, { role: 'service_role' }, (tx) =>
      tx`
      select limiter, windows, counted, standing, blocked_until > now() as blocked, refused_at is not null as refused,
        forgotten_at > now() as counts
      from holdfast.rate_limit_status where limiter = 'seen' order by counted`)
    await sql.end()
    const seen = { limiter: 'seen', windows: 'gcra:10/h' }
    expect(rows).toEqual([
      { ...seen, counted: 'blocked', standing: 'blocked', blocked: true, refused: false, counts: false },
      {
        ...seen,
        counted: 'refused|twice',
        standing: 'refused in the last minute',
        blocked: null,
        refused: true,
        counts: true,
      },
      {
        ...seen,
        counted: 'within',
        standing: 'within its limits',
        blocked: null,
        refused: false,
        counts: true,
      },
    ])
  })

  describe('purge_rate_limits()', () => {
    test('deletes what is over, in batches, and keeps what is counted or blocked', async () => {
      await admin`truncate holdfast.rate_limits`
      const over = Array.from({ length: 5 }, () => question())
      const [counted, blocked] = [question(), question()]
      await store.decide([...over, counted, blocked])
      await store.block(blocked.key, 60_000)
      await admin`
        update holdfast.rate_limits set forget_at = 1
        where key = any(${[...over, blocked].map(({ key }) => key)})`
      const purge = async () => Number((await admin`select holdfast.purge_rate_limits(3) as n`)[0]!.n)
      expect([await purge(), await purge(), await purge()]).toEqual([3, 2, 0])
      const left = await admin`select key from holdfast.rate_limits order by key`
      expect(left.map(({ key }) => key)).toEqual([counted.key, blocked.key].sort())
    })

    test('passes over keys that are being decided', async () => {
      const { key } = question()
      await admin`insert into holdfast.rate_limits (key, forget_at) values (${key}, 1)`
      const other = openSql(proxy.url)
      await other.begin(async (tx) => {
        await tx`select from holdfast.rate_limits where key = ${key} for update`
        expect(await admin`select holdfast.purge_rate_limits()::int as n`).toEqual([{ n: 0 }])
      })
      await other.end()
    })

    test('is run by pg_cron every minute', async () => {
      expect(await admin`select schedule, command from cron.job where jobname = 'holdfast_purge_rate_limits'`)
        .toEqual([{ schedule: '* * * * *', command: 'select holdfast.purge_rate_limits()' }])
    })
  })

  test('the API roles reach neither the table nor the view nor a function', async () => {
    const sql = openSql(proxy.url)
    for (const caller of [{ role: 'anon' } as const, user(crypto.randomUUID())]) {
      for (
        const attempt of [
          'select from holdfast.rate_limits',
          'select from holdfast.rate_limit_status',
          `select holdfast.decide_rate_limits(array['a'], array[1, 1, 0, 0, 1, 0, 1, 1])`,
          `select holdfast.decide_rate_limit('a', array[1, 1, 0, 0, 1, 0, 1, 1], 1, 0)`,
          `select holdfast.decide_gcra_limit('a', 1, 1, 0, 1, 1)`,
          `select holdfast.decide_gcra_limits(array['a'], array[1], 1, 0, 1, 1)`,
          `select holdfast.block_rate_limit('a', 1)`,
          `select holdfast.reset_rate_limit('a')`,
          'select holdfast.purge_rate_limits()',
        ]
      ) {
        await expect(asCaller(sql, caller, (tx) => tx.unsafe(attempt)), attempt).rejects
          .toMatchObject({ code: '42501' })
      }
    }
    await sql.end()
  })

  test('a server that is away is SERVICE_UNAVAILABLE', async () => {
    const away = createDb({ url: 'postgresql://postgres:x@127.0.0.1:1/postgres' })
    const unreachable = new PostgresRateLimitStore(away)
    const away503 = { code: 'SERVICE_UNAVAILABLE' }
    await expect(unreachable.decide([question()])).rejects.toMatchObject(away503)
    await expect(unreachable.penalize(question())).rejects.toMatchObject(away503)
    await expect(unreachable.block('key', 1)).rejects.toMatchObject(away503)
    await expect(unreachable.reset('key')).rejects.toMatchObject(away503)
    await away.close()
  })

  test('an answer that is lost fails whoever asked, and nobody after', async () => {
    const hot = question()
    await store.decide([hot])
    const lost = proxy.loseAnswer('holdfast.decide_')
    await expect(store.decide([hot])).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
    await lost
    // The server had decided.
    expect((await store.decide([{ ...hot, count: 0 }]))[0]!.windows[0]!.remaining).toBe(8)
  })
})

/** The proxy that counts round trips, between postgres.js and PostgreSQL: figures that other tests rely on. */
import postgres from 'postgres'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

onEachPostgres('the wire proxy', (pg) => {
  let proxy: WireProxy
  let sql: postgres.Sql

  let db: FreshDatabase

  beforeEach(async () => {
    db = await freshDatabase(pg.major)
    proxy = startWireProxy({ target: db.url })
    sql = postgres(proxy.url, { max: 1, prepare: false, fetch_types: false, onnotice() {} })
    await sql`select 1`
    proxy.reset()
  })

  afterEach(async () => {
    await sql.end({ timeout: 1 })
    await proxy.close()
    // PostgreSQL notices a lost client when it next writes to it: a statement that sleeps would outlast the file.
    await db.drop()
  })

  test('counts a simple query as one round trip, and each of its repetitions', async () => {
    await sql.unsafe('select 1')
    await sql.unsafe('select 2')
    expect(proxy.counts()).toMatchObject({ connections: 0, startupTrips: 0, roundTrips: 2 })
  })

  test('counts statements sent together as one round trip', async () => {
    const { counts } = await proxy.measure(async () => {
      const connection = await sql.reserve()
      await Promise.all([
        connection.unsafe('begin'),
        connection.unsafe('create table public.pipelined (n bigint)'),
        connection.unsafe('insert into public.pipelined select generate_series(1, 1000)'),
        connection.unsafe('commit'),
      ])
      connection.release()
    })
    expect(counts.roundTrips).toBe(1)
  })

  test('counts a long answer as one round trip', async () => {
    const { value, counts } = await proxy.measure(() =>
      sql.unsafe(`select repeat('x', 1000) as text from generate_series(1, 2000)`)
    )
    expect(value).toHaveLength(2_000)
    expect(counts.roundTrips).toBe(1)
    expect(counts.bytesDown).toBeGreaterThan(2_000_000)
  })

  test('counts the start-up of a connection apart', async () => {
    const other = postgres(proxy.url, { max: 1, prepare: false, fetch_types: false })
    await other.unsafe('select 1')
    await other.end()
    const { connections, startupTrips, roundTrips } = proxy.counts()
    expect({ connections, roundTrips }).toEqual({ connections: 1, roundTrips: 1 })
    // Start-up, and the messages of SCRAM.
    expect(startupTrips).toBe(3)
  })

  test('adds its delay to every round trip', async () => {
    proxy.delay({ up: 20, down: 20 })
    const started = performance.now()
    for (let n = 0; n < 3; n++) await sql.unsafe('select 1')
    expect(performance.now() - started).toBeGreaterThanOrEqual(119)
  })

  test('loses the answer to a commit that the server has made', async () => {
    await sql.unsafe('create table public.effects (n bigint)')
    const lost = proxy.loseAnswer('commit')
    await expect(sql.begin((tx) => tx`insert into public.effects values (1)`)).rejects.toThrow()
    await lost
    expect(await sql`select n from public.effects`).toEqual([{ n: '1' }])
  })

  test('a cut ends a statement, and the client connects again', async () => {
    const sleeping = expect(sql.unsafe('select pg_sleep(60)')).rejects.toThrow()
    await expect.poll(() => proxy.counts().bytesUp).toBeGreaterThan(0)
    proxy.cut()
    await sleeping
    expect(await sql.unsafe('select 1 as one')).toEqual([{ one: 1 }])
  })
})

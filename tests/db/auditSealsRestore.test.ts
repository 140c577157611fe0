/** Seals after a restore into another server, where transactions are numbered anew and lower. */
import { beforeAll, beforeEach, expect, test } from 'vitest'
import {
  clearTrail,
  emptyTrail,
  rehash,
  seal,
  sealsOfChanges,
  tamper,
  verify,
  write,
} from '../support/auditTrail.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'

const far = 1_000_000_000_000

onEachPostgres('a restored audit trail', (pg) => {
  let database: FreshDatabase
  let sql: Sql
  let admin: Sql
  let old: number[]

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    ;({ sql, admin } = await emptyTrail(database))
  })

  /** What a dump of another server brings: six sealed changes, and two of then open transactions without a seal. */
  beforeEach(async () => {
    await clearTrail(admin)
    old = await write(sql, 8)
    await tamper(admin, async (tx) => {
      await tx`update audit.database_changes set transaction_id = ${far} + id`
      await tx`create temporary table later on commit drop as
        select * from audit.database_changes where id in (${old[2]!}, ${old[7]!})`
      await tx`delete from audit.database_changes where id in (${old[2]!}, ${old[7]!})`
      await tx`select audit.seal()`
      await tx`insert into audit.database_changes select * from later`
      const open = [far + old[2]!, far + old[7]!]
      await tx`
        update audit.seals set cluster = 1, transaction_id = ${far + 1_000_000},
          sealed_through = ${`${open[0]}:${far + 1_000_000}:${open}`}::text::pg_snapshot`
      await rehash(tx)
    })
    expect(await verify(sql)).toMatchObject({
      intact: true,
      problem: null,
      checked_changes: 6,
      unsealed_changes: 2,
    })
  })

  const everyChangeHasOneSeal = async () => {
    expect([...new Set((await sealsOfChanges(sql)).values())]).toEqual([1])
    expect(await verify(sql)).toMatchObject({ intact: true, problem: null, unsealed_changes: 0 })
  }

  test('has its open changes sealed along with new ones, whose transactions bear lower numbers', async () => {
    await write(sql, 3)
    expect(await seal(sql)).toMatchObject({ changes: 5, complete: true })
    await everyChangeHasOneSeal()
    await write(sql, 2)
    expect(await seal(sql)).toMatchObject({ changes: 2 })
    await everyChangeHasOneSeal()
  })

  test('is sealed in several runs where there is more than one may seal', async () => {
    await write(sql, 3)
    await write(sql, 2)
    const runs = []
    for (let run = 0; run < 4; run++) runs.push(await seal(sql, 2))
    expect(runs.map(({ changes, complete }) => [changes, complete])).toEqual([
      [2, false],
      [2, false],
      [2, false],
      [1, true],
    ])
    await everyChangeHasOneSeal()
    expect(await seal(sql)).toMatchObject({ changes: 0 })
  })

  test('loses nothing of a transaction that is open while it is first sealed', async () => {
    await openSql(database.url).begin(async (slow) => {
      await write(slow, 2)
      await write(sql, 3)
      expect(await seal(sql)).toMatchObject({ changes: 5 })
    })
    expect(await seal(sql)).toMatchObject({ changes: 2 })
    await everyChangeHasOneSeal()
  })

  test('has no room for changes that pretend to come from the other server, before the first seal or after it', async () => {
    const slipIn = (transaction: number) =>
      admin`
      insert into audit.database_changes
      select id - 100, occurred_at, ${transaction}, actor_id, actor_role, ip, user_agent, request_id, function_name,
        schema_name, table_name, object_identity, operation, primary_key, details
      from audit.database_changes where id = ${old[0]!}`
    const named = {
      intact: false,
      problem: expect.stringMatching(/^Change -?\d+ of .* was inserted behind the seals' back$/),
    }
    await slipIn(far + old[0]!)
    expect(await verify(sql)).toMatchObject(named)
    await tamper(admin, (tx) => tx`delete from audit.database_changes where id = ${old[0]! - 100}`)

    await write(sql, 1)
    await seal(sql)
    await slipIn(far + 2_000_000)
    await seal(sql)
    expect(await verify(sql)).toMatchObject(named)
  })

  test('is found by its head, which was kept when it was on the other server', async () => {
    const [{ head }] = await sql`select audit.head() as head` as unknown as [{ head: Uint8Array }]
    await write(sql, 1)
    await seal(sql)
    expect(await verify(sql, { head })).toMatchObject({ intact: true })
  })
})

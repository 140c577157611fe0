/** Retention of the audit trail: whole months go with their seals, and only retention can make them go. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { clearTrail, emptyTrail, makeMonth, seal, tamper, verify, write } from '../support/auditTrail.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql, type Queries, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'

const april = `'2021-04-10 12:00+00'::timestamptz + n * interval '1 day'`
const may = `'2021-05-10 12:00+00'::timestamptz + n * interval '1 day'`

onEachPostgres('audit.drop_expired_partitions()', (pg) => {
  let database: FreshDatabase
  let sql: Sql
  let admin: Sql

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    ;({ sql, admin } = await emptyTrail(database))
  })

  /** Seals of two changes each, those of the months one after another in the chain. */
  beforeEach(async () => {
    await sql`
      drop table if exists audit.database_changes_2021_04, audit.database_changes_2021_05,
        audit.database_changes_2021_04_late`
    await makeMonth(sql, '2021-04')
    await makeMonth(sql, '2021-05')
    await clearTrail(admin)
    await keepSince('2021-05-31 12:00+00')
    for (const at of [april, may, undefined, april, april, undefined, may, april, may]) {
      await write(sql, 2, at)
    }
    for (let run = 0; run < 9; run++) expect((await seal(sql, 2)).changes).toBe(2)
    expect(await verify(sql)).toMatchObject({ intact: true, checked_seals: 9, unsealed_changes: 0 })
  })

  /** Sets retention such that what is older than that time is expired. */
  const keepSince = (time: string) =>
    sql`update audit.settings set retention = clock_timestamp() - ${time}::timestamptz`
  const drop = async (queries: Queries = sql) =>
    Number((await queries`select audit.drop_expired_partitions() as dropped`)[0]!.dropped)
  const partitions = async () =>
    (await sql`select relname from pg_class where relname like 'database_changes_2021%' and relkind = 'r' order by 1`)
      .map(({ relname }) => relname)
  const seals = async () =>
    (await sql`select to_char(month, 'YYYY-MM') as month, count(*)::int as seals from audit.seals where month < '2022-01-01' group by 1 order by 1`)
      .map(({ month, seals }) => [month, seals])

  test('drops the months that are wholly older than retention, with their seals, and the chain still holds', async () => {
    const { head } = await seal(sql)
    expect(await drop()).toBe(1)
    expect([await partitions(), await seals()]).toEqual([['database_changes_2021_05'], [['2021-05', 3]]])
    expect(await verify(sql, { head })).toMatchObject({ intact: true, problem: null, checked_changes: 10 })
    expect(await drop()).toBe(0)

    await keepSince('2021-06-01 00:00+00')
    expect(await drop()).toBe(1)
    expect([await partitions(), await seals()]).toEqual([[], []])
    await write(sql, 1)
    await seal(sql)
    expect(await verify(sql)).toMatchObject({ intact: true, problem: null, unsealed_changes: 0 })
  })

  test('leaves a line for each month: how many changes, the last hash, when and by what retention', async () => {
    const [last] =
      await sql`select hash from audit.seals where month = '2021-04-01' order by number desc limit 1`
    await drop()
    const lines = await sql`
      select to_char(month, 'YYYY-MM') as month, changes::int, last_number::int, last_hash, links::text,
        cardinality(link_hashes) as hashes, retired_at > now() - interval '1 minute' as now, retention > interval '30 days' as retention
      from audit.retired_months`
    expect(lines).toEqual([{
      month: '2021-04',
      changes: 8,
      last_number: 4,
      last_hash: last!.hash,
      links: '{[1,2),[4,6),[8,9)}',
      hashes: 3,
      now: true,
      retention: true,
    }])
  })

  test('drops nothing where no month is over', async () => {
    await keepSince('2021-04-30 12:00+00')
    expect(await drop()).toBe(0)
    expect(await partitions()).toHaveLength(2)
    expect(await sql`select from audit.retired_months`).toHaveLength(0)
  })

  test('keeps a partition of several months, and their seals, until the last of them is over', async () => {
    await clearTrail(admin)
    await sql`drop table audit.database_changes_2021_04, audit.database_changes_2021_05`
    await sql.unsafe(`
      create table audit.database_changes_2021_04_late partition of audit.database_changes
      for values from ('2021-04-01 00:00+00') to ('2021-06-01 00:00+00')`)
    await write(sql, 2, april)
    await write(sql, 2, may)
    await seal(sql)
    expect([await drop(), await seals()]).toEqual([0, [['2021-04', 1], ['2021-05', 1]]])
    expect(await verify(sql)).toMatchObject({ intact: true, problem: null })
    await keepSince('2021-06-01 00:00+00')
    expect([await drop(), await partitions(), await seals()]).toEqual([1, [], []])
    expect(await verify(sql)).toMatchObject({ intact: true, problem: null })
  })

  test('removes what is as old and lies where no month was made for it', async () => {
    await clearTrail(admin)
    for (const at of [`'1999-12-31'`, `'-infinity'`, `'infinity'`]) await write(sql, 2, at)
    await seal(sql)
    await drop()
    const left =
      await sql`select distinct occurred_at::text as at from audit.database_changes where operation = 'INSERT'`
    expect(left).toEqual([{ at: 'infinity' }])
    expect(await verify(sql)).toMatchObject({ intact: true, problem: null })
    await expect(sql`delete from audit.database_changes_default`).rejects.toMatchObject({ code: 'HF451' })
  })

  test('gives up after a second where somebody reads the month, changes nothing, and the next run does it', async () => {
    const reader = openSql(database.url)
    await reader.begin(async (tx) => {
      await tx`select count(*) from audit.database_changes_2021_04`
      expect(await drop()).toBe(0)
      expect(await partitions()).toHaveLength(2)
      expect(await sql`select from audit.retired_months`).toHaveLength(0)
      expect(await verify(sql)).toMatchObject({ intact: true, checked_seals: 9 })
    })
    expect(await drop()).toBe(1)
    expect(await verify(sql)).toMatchObject({ intact: true })
  })

  test('holds up those who write for no more than that second', async () => {
    const [reader, dropper, writer] = [openSql(database.url), openSql(database.url), openSql(database.url)]
    const [{ pid }] = await dropper`select pg_backend_pid() as pid` as unknown as [{ pid: number }]
    await reader.begin(async (tx) => {
      await tx`select count(*) from audit.database_changes`
      const dropped = drop(dropper)
      await waitFor(async () => {
        const [row] =
          await admin`select wait_event_type = 'Lock' as waits from pg_stat_activity where pid = ${pid}`
        return row!.waits
      }, { what: 'the drop to wait for the reader' })
      // The reader is still there: only the end of the drop's patience lets this through.
      const ids = await write(writer, 1)
      expect(ids).toHaveLength(1)
      expect(await dropped).toBe(0)
    })
  })

  test('waits no longer for a run that seals', async () => {
    const sealer = openSql(database.url)
    await sealer.begin(async (tx) => {
      await seal(tx)
      expect(await drop()).toBe(0)
    })
    expect(await drop()).toBe(1)
  })

  describe('cannot be pretended', () => {
    const lineAbout = (month: string) =>
      `The line about ${month} in audit.retired_months was altered, or slipped in, or deleted`

    test.each([
      ['month', `month + interval '1 month'`],
      ['retired_at', `retired_at - interval '1 day'`],
      ['retention', `retention + interval '1 day'`],
      ['changes', 'changes - 1'],
      ['last_number', 'last_number + 1'],
      ['last_hash', 'sha256(last_hash)'],
    ])('by another %s in its line', async (column, value) => {
      await drop()
      await tamper(admin, (tx) => tx.unsafe(`update audit.retired_months set ${column} = ${value}`))
      expect(await verify(sql)).toMatchObject({ intact: false, problem: lineAbout('2021-04') })
    })

    test.each([
      ['noted_link', 'noted_link + 1'],
      ['links', `'{[1,2),[4,9)}'`],
      ['link_hashes', 'array_reverse'],
    ])('by other %s in its line', async (column, value) => {
      await drop()
      const expression = value === 'array_reverse' ? 'link_hashes[2:3] || link_hashes[1:1]' : value
      await tamper(admin, (tx) => tx.unsafe(`update audit.retired_months set ${column} = ${expression}`))
      expect(await verify(sql)).toMatchObject({ intact: false })
    })

    test('by a line without a seal about it', async () => {
      await tamper(admin, async (tx) => {
        await tx`drop table audit.database_changes_2021_04`
        await tx`
          insert into audit.retired_months
          select 1000, s.month, now(), '90 days', 8, 4, (array_agg(s.hash order by s.link desc))[1],
            range_agg(int8range(s.link, s.link, '[]')), array_agg(s.hash order by s.link) filter (where s.link in (1, 5, 8))
          from audit.seals as s where s.month = '2021-04-01' group by s.month`
        await tx`delete from audit.seals where month = '2021-04-01'`
      })
      expect(await verify(sql)).toMatchObject({ intact: false, problem: lineAbout('2021-04') })
    })

    test('by deleting the line', async () => {
      await drop()
      await tamper(admin, (tx) => tx`delete from audit.retired_months`)
      expect(await verify(sql)).toMatchObject({
        intact: false,
        problem: 'The seal before seal 1 of 2021-05 is missing: link 1 of the chain',
      })
    })

    test('by dropping the partition of another month', async () => {
      await drop()
      await sql`drop table audit.database_changes_2021_05`
      expect(await verify(sql)).toMatchObject({
        intact: false,
        problem: 'The partition of 2021-05 is missing, and retention did not drop it',
      })
    })

    test('by bringing back a change of the month', async () => {
      await tamper(
        admin,
        (tx) => tx`create table kept as select * from audit.database_changes_2021_04 limit 1`,
      )
      await drop()
      await tamper(admin, (tx) => tx`insert into audit.database_changes select * from kept`)
      await tamper(admin, (tx) => tx`drop table kept`)
      expect(await verify(sql)).toMatchObject({
        intact: false,
        problem: expect.stringMatching(/^Change \d+ of 2021-04 was inserted behind the seals' back$/),
      })
    })
  })
})

/** Seals over the audit trail: what one run seals, what it costs to look, and who may do what. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  clearTrail,
  emptyTrail,
  makeMonth,
  seal,
  sealsOfChanges,
  tamper,
  verify,
  write,
} from '../support/auditTrail.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { asCaller, type Caller, openSql, type Sql, user } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'

onEachPostgres('audit.seal()', (pg) => {
  let sql: Sql
  let admin: Sql
  let url: string

  beforeAll(async () => {
    const database = await freshDatabase(pg.major)
    url = database.url
    ;({ sql, admin } = await emptyTrail(database))
    await makeMonth(sql, '2021-04')
    await makeMonth(sql, '2021-05')
  })

  beforeEach(() => clearTrail(admin))

  test('seals every committed change once, and nothing where there is nothing new', async () => {
    const ids = [...await write(sql, 3), ...await write(sql, 4)]
    expect(await seal(sql)).toMatchObject({
      changes: 7,
      seals: 1,
      complete: true,
      head: expect.any(Uint8Array),
    })
    expect(await seal(sql)).toMatchObject({ changes: 0, seals: 0, complete: true })
    ids.push(...await write(sql, 1))
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 7, unsealed_changes: 1 })
    expect(await seal(sql)).toMatchObject({ changes: 1, seals: 1 })
    expect(await sealsOfChanges(sql)).toEqual(new Map(ids.map((id) => [id, 1])))
    expect(await verify(sql)).toMatchObject({
      intact: true,
      checked_changes: 8,
      checked_seals: 2,
      unsealed_changes: 0,
    })
  })

  test('tells of itself what it has sealed, and what it has not and since when', async () => {
    await write(sql, 5, `'2021-05-02 10:00+00'::timestamptz + n * interval '1 hour'`)
    await write(sql, 5, `'2021-05-02 20:00+00'::timestamptz + n * interval '1 hour'`)
    expect(await verify(sql)).toEqual({
      intact: true,
      problem: null,
      seal_month: null,
      seal_number: null,
      change_id: null,
      checked_changes: 0,
      checked_seals: 0,
      unsealed_changes: 10,
      unsealed_since: new Date('2021-05-02T11:00:00Z'),
    })
    expect(await seal(sql, 5)).toMatchObject({ changes: 5, complete: false })
    expect(await verify(sql)).toMatchObject({
      checked_changes: 5,
      unsealed_changes: 5,
      unsealed_since: new Date('2021-05-02T21:00:00Z'),
    })
  })

  test('has one chain of seals, numbered by month wherever the changes are', async () => {
    await write(sql, 2, `'2021-05-31 23:59:59.999999+00'::timestamptz`)
    await write(sql, 2, `'2021-04-30 23:59:59.999999+00'::timestamptz`)
    await write(sql, 2, `'2021-04-01 00:00+00'::timestamptz`)
    await write(sql, 1, `'1999-12-31 23:59:59+00'::timestamptz`)
    await write(sql, 1, `'-infinity'`)
    await write(sql, 1, `'infinity'`)
    await write(sql, 1, `'4714-11-24 00:00+00 BC'`)
    await write(sql, 1, `'294276-12-31 23:59:59.999999+00'`)
    await seal(sql)
    await write(sql, 1)
    await seal(sql)
    const seals = await sql`
      select month::text, number::int, link::int, change_count::int as changes from audit.seals where month < '2021-06-01' or month = 'infinity'
      order by link`
    expect(seals).toEqual([
      { month: '-infinity', number: 1, link: 1, changes: 2 },
      { month: '1999-12-01', number: 1, link: 2, changes: 1 },
      { month: '2021-04-01', number: 1, link: 3, changes: 4 },
      { month: '2021-05-01', number: 1, link: 4, changes: 2 },
      { month: 'infinity', number: 1, link: 5, changes: 2 },
    ])
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 12, checked_seals: 6 })
  })

  test('works through more than it may seal at once in several runs, the oldest transactions first', async () => {
    await write(sql, 7)
    await write(sql, 9)
    await write(sql, 4)
    const runs = []
    for (let run = 0; run < 6; run++) runs.push(await seal(sql, 5))
    expect(runs.map(({ changes, complete }) => [changes, complete])).toEqual([
      [5, false],
      [5, false],
      [5, false],
      [5, true],
      [0, true],
      [0, true],
    ])
    expect([...new Set((await sealsOfChanges(sql)).values())]).toEqual([1])
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 20, unsealed_changes: 0 })
  })

  test('puts at most 50,000 changes under one seal', async () => {
    await write(sql, 100_001)
    expect(await seal(sql)).toMatchObject({ changes: 100_001, seals: 3, complete: true })
    const seals = await sql`select change_count::int as changes, complete from audit.seals order by link`
    expect(seals).toEqual([
      { changes: 50_000, complete: false },
      { changes: 50_000, complete: false },
      { changes: 1, complete: true },
    ])
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 100_001 })
  }, 60_000)

  test('leaves nothing of a run that is killed half-way, and the next run does it', async () => {
    await write(sql, 3, `'2021-05-02 10:00+00'`)
    await write(sql, 3)
    const [holder, sealer] = [openSql(url), openSql(url)]
    const [{ pid }] = await sealer`select pg_backend_pid() as pid` as unknown as [{ pid: number }]
    await holder.begin(async (tx) => {
      await tx`lock table audit.seals in share mode`
      const killed = expect(seal(sealer)).rejects.toThrow()
      await waitFor(async () => {
        const [row] =
          await admin`select wait_event_type = 'Lock' as waits from pg_stat_activity where pid = ${pid}`
        return row!.waits
      }, { what: 'the run to reach its first seal' })
      await admin`select pg_terminate_backend(${pid})`
      await killed
    })
    expect(await sql`select from audit.seals`).toHaveLength(0)
    expect(await seal(sql)).toMatchObject({ changes: 6, seals: 2 })
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 6 })
  })

  test('hashes the same whatever the session says about times, numbers, bytes and intervals', async () => {
    await write(sql, 3)
    await seal(sql)
    const other = openSql(url)
    await other`set timezone = 'Pacific/Chatham'`
    await other`set datestyle = 'german, dmy'`
    await other`set bytea_output = 'escape'`
    await other`set intervalstyle = 'iso_8601'`
    await other`set extra_float_digits = -15`
    await other`set client_encoding = 'latin1'`
    await other`set default_transaction_read_only = on`
    expect(await verify(other)).toMatchObject({ intact: true, checked_changes: 3 })
    await other`set default_transaction_read_only = off`
    await write(other, 3)
    await seal(other)
    await other.end()
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 6 })
  })

  test('takes whatever a column can hold', async () => {
    const [id] = await write(sql, 1)
    await tamper(admin, (tx) =>
      tx`
      update audit.database_changes set
        actor_id = null, actor_role = '', ip = '2001:db8::/32', user_agent = ${'"\\\n\u{1F600}\u0001'}, request_id = null,
        function_name = '[]', primary_key = '["a", "b"]',
        details = '{"b": 1e400, "a": [null, "\\u00e9", 0.10, -0], "": {}}'
      where id = ${id!}`)
    await seal(sql)
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 1 })
  })

  test('does not see a column that is added later, and seals of before stay as they are', async () => {
    await write(sql, 2)
    await seal(sql)
    await sql`alter table audit.database_changes add column note text default 'later'`
    expect(await verify(openSql(url))).toMatchObject({ intact: true, checked_changes: 2 })
    await sql`alter table audit.database_changes drop column note`
  })

  test('finds what is new by the index, without reading what is sealed', async () => {
    await write(sql, 20_000)
    await seal(sql)
    await sql`vacuum analyze audit.database_changes`
    await write(sql, 10)
    const [before] = await blocksRead(admin)
    await sql`select * from audit.unsealed_changes()`
    const [after] = await blocksRead(admin)
    const [{ pages }] = await sql`
      select sum(relpages)::int as pages from pg_class where relname like 'database_changes_20%' and relkind = 'r'` as unknown as [
      { pages: number },
    ]
    expect(pages).toBeGreaterThan(500)
    expect(after!.blocks - before!.blocks).toBeLessThan(pages / 2)
  }, 30_000)

  test.each([0, -1, null])('refuses to seal at most %s changes', async (atMost) => {
    await expect(sql`select audit.seal(${atMost})`).rejects.toMatchObject({
      code: '22023',
      message: expect.stringMatching(
        /^Cannot seal the audit trail: p_max_changes must be at least 1, received/,
      ),
    })
  })

  test('is run by pg_cron every minute, and retention every hour', async () => {
    const jobs = await admin`
      select schedule, command from cron.job where jobname in ('holdfast_audit_seal', 'holdfast_audit_retention') order by jobname`
    expect(jobs).toEqual([
      { schedule: '47 * * * *', command: 'select audit.drop_expired_partitions()' },
      { schedule: '* * * * *', command: 'select audit.seal()' },
    ])
  })

  describe('the window of audit.verify()', () => {
    const days = (month: string) => `'${month}-01 00:00+00'::timestamptz + (n - 1) * interval '1 day'`

    beforeEach(async () => {
      await write(sql, 30, days('2021-04'))
      await write(sql, 30, days('2021-05'))
      // Seals of ten days.
      for (let run = 0; run < 6; run++) expect((await seal(sql, 10)).changes).toBe(10)
    })

    test('reads the changes of the seals that have one of that time, and no others', async () => {
      const checked = async (from?: string, to?: string) => {
        const { intact, problem, checked_seals, checked_changes } = await verify(sql, { from, to })
        expect({ intact, problem }).toEqual({ intact: true, problem: null })
        return [checked_seals, checked_changes]
      }
      expect(await checked()).toEqual([6, 60])
      expect(await checked('2021-04-05', '2021-04-06')).toEqual([1, 10])
      expect(await checked('2021-04-10 00:00+00', '2021-04-11 00:00+00')).toEqual([2, 20])
      expect(await checked('2021-05-01')).toEqual([3, 30])
      expect(await checked(undefined, '2021-04-01 00:00+00')).toEqual([1, 10])
      expect(await checked('2099-01-01', '2099-02-01')).toEqual([0, 0])
    })

    test('leaves out what was altered at another time, and finds what was altered or inserted in its own', async () => {
      await tamper(admin, (tx) =>
        tx`
        update audit.database_changes set details = '{}' where occurred_at = '2021-04-15 00:00+00'`)
      expect(await verify(sql, { from: '2021-05-01' })).toMatchObject({ intact: true })
      expect(await verify(sql, { from: '2021-04-21', to: '2021-04-30' })).toMatchObject({ intact: true })
      expect(await verify(sql, { from: '2021-04-15', to: '2021-04-16' })).toMatchObject({ intact: false })

      await tamper(admin, (tx) =>
        tx`
        insert into audit.database_changes select * from audit.database_changes where occurred_at = '2021-05-15 00:00+00'`)
      await tamper(admin, (tx) =>
        tx`
        update audit.database_changes set id = nextval('audit.change_ids'), occurred_at = '2021-05-15 12:00+00'
        where ctid = (select max(ctid) from audit.database_changes where occurred_at = '2021-05-15 00:00+00')
          and occurred_at = '2021-05-15 00:00+00'`)
      expect(await verify(sql, { from: '2021-05-16' })).toMatchObject({ intact: true })
      expect(await verify(sql, { from: '2021-05-15', to: '2021-05-16' })).toMatchObject({
        intact: false,
        problem: expect.stringMatching(/^Change \d+ of 2021-05 was inserted behind the seals' back$/),
      })
    })

    test('has no room for a change that was moved into it from another seal of the month', async () => {
      const [{ id }] = await sql`
        select id::int from audit.database_changes where occurred_at = '2021-05-02 00:00+00'` as unknown as [
        { id: number },
      ]
      await tamper(admin, (tx) =>
        tx`
        update audit.database_changes set occurred_at = '2021-05-25 12:00+00' where id = ${id}`)
      for (
        const window of [{ from: '2021-05-25', to: '2021-05-26' }, { from: '2021-05-02', to: '2021-05-03' }]
      ) {
        expect(await verify(sql, window)).toMatchObject({
          intact: false,
          problem: expect.stringMatching(`^Change ${id} .*was altered after it was sealed`),
          change_id: id,
        })
      }
    })
  })

  describe("the API's roles", () => {
    const anon: Caller = { role: 'anon' }
    const person = user(crypto.randomUUID())
    const adminPerson = user(crypto.randomUUID(), { app_metadata: { role: 'admin' } })
    const service: Caller = { role: 'service_role' }
    const fakeAdmin: Caller = { role: 'anon', claims: { app_metadata: { role: 'admin' } } }
    const callers = { anon, person, adminPerson, service, fakeAdmin }

    test.each(Object.keys(callers) as (keyof typeof callers)[])(
      'cannot read, change or delete seals (%s)',
      async (name) => {
        await write(sql, 3)
        await seal(sql)
        for (
          const statement of [
            'select from audit.seals',
            'select from audit.retired_months',
            `insert into audit.seals select * from audit.seals`,
            `update audit.seals set hash = hash where link = 1`,
            'delete from audit.seals where link = 1',
            'truncate audit.seals',
            'delete from audit.retired_months where noted_link = 1',
            'select audit.seal()',
            'select audit.seal(1)',
            'select audit.drop_expired_partitions()',
            `select audit.retire_seals('2021-04-01', '1 day')`,
            `select audit.add_to_chain(null)`,
            `select audit.hash_changes('2021-04-01', '{}')`,
            `select audit.change_digests('2021-04-01', '{}')`,
            `select audit.unsealed_changes()`,
            `select audit.first_broken_link()`,
          ]
        ) {
          await expect(asCaller(sql, callers[name], (tx) => tx.unsafe(statement)), statement).rejects
            .toMatchObject({ code: '42501' })
        }
        expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 3 })
      },
    )

    test('verify the trail and read its head where they are signed-in admins, and else are told why not', async () => {
      await write(sql, 3)
      const { head } = await seal(sql)
      await asCaller(sql, adminPerson, async (tx) => {
        expect(await verify(tx)).toMatchObject({ intact: true, checked_changes: 3 })
        expect(await tx`select audit.head() as head`).toEqual([{ head }])
      })
      for (const caller of [anon, person, service, fakeAdmin]) {
        for (const statement of ['select audit.verify()', 'select audit.head()']) {
          await expect(asCaller(sql, caller, (tx) => tx.unsafe(statement))).rejects.toMatchObject({
            code: '42501',
          })
        }
      }
      await expect(asCaller(sql, person, (tx) => tx`select audit.verify()`)).rejects
        .toThrow(/Only an admin may read the audit trail/)
    })
  })

  test('cannot be taken back by the owner of the tables: seals are append-only', async () => {
    await write(sql, 3)
    await seal(sql)
    for (
      const statement of [
        'update audit.seals set hash = hash where link = 1',
        'delete from audit.seals where link = 1',
        'truncate audit.seals',
        'truncate audit.retired_months',
      ]
    ) {
      await expect(sql.unsafe(statement), statement).rejects.toMatchObject({ code: 'HF451' })
    }
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 3 })
  })
})

async function blocksRead(admin: Sql) {
  await admin`select pg_stat_force_next_flush()`.catch(() => {})
  return await admin<{ blocks: number }[]>`
    select sum(heap_blks_read + heap_blks_hit)::int as blocks from pg_statio_all_tables
    where schemaname = 'audit' and relname like 'database_changes%'`
}

/** The trail itself is broken, by its owner or for want of anything: writes go on, and what is missing is counted. */
import postgres from 'postgres'
import { beforeAll, describe, expect, test } from 'vitest'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { type Gap, gaps, recorded } from '../support/auditProbe.ts'
import { openSql, type Queries, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'

/** Ends a transaction whose work is not to be kept. */
class TakenBack extends Error {}

/** Not for DDL, which would be stopped by what it makes. */
const raising = (how: string) => `
  create function audit.sabotage() returns trigger language plpgsql as
    $$ begin if new.operation <> 'DDL' then ${how}; end if; return new; end $$;
  create trigger sabotage before insert on audit.database_changes for each row execute function audit.sabotage()`

/** Sabotage, and the error that the gap is to name. */
const sabotages: [string, string, string][] = [
  [
    'with a check that nothing passes',
    'alter table audit.database_changes add constraint sabotage check (false) not valid',
    '23514',
  ],
  ['under another name', 'alter table audit.database_changes rename to elsewhere', '42P01'],
  ['without a column', 'alter table audit.database_changes drop column details cascade', '42703'],
  ['with a trigger that raises', raising(`raise exception 'sabotage'`), 'P0001'],
  ['with a trigger that asserts', raising(`assert false`), 'P0004'],
  ['with a trigger that divides by zero', raising(`perform 1 / 0`), '22012'],
  ['with its ids used up', 'alter sequence audit.change_ids maxvalue 1000000 restart 1000000', '2200H'],
]

onEachPostgres('a write beside a broken trail', (pg) => {
  let admin: Sql
  let owner: Sql
  let other: Sql
  let warnings: string[]

  beforeAll(async () => {
    const database = await freshDatabase(pg.major)
    warnings = []
    owner = openSql(database.url)
    other = openSql(database.adminUrl)
    admin = postgres(database.adminUrl, {
      max: 1,
      prepare: false,
      onnotice: ({ message }) => warnings.push(message ?? ''),
    })
    await owner`create table public.probes (id int primary key, note text)`
    await owner`grant select, insert, update, delete, truncate on public.probes to authenticated`
    return () => admin.end()
  })

  /** Breaks the trail and writes as a user would, all in a transaction that is taken back. */
  async function broken(sabotage: string, look: (tx: Queries) => Promise<void>): Promise<void> {
    warnings = []
    await admin.begin(async (tx) => {
      await tx.unsafe(sabotage).simple()
      await tx`set local role authenticated`
      await tx`insert into public.probes values (1, 'one'), (2, 'two')`
      await tx`update public.probes set note = 'changed'`
      await tx`update public.probes set note = 'again' where id = 1`
      await tx`delete from public.probes where id = 1`
      expect(await tx`select * from public.probes`).toEqual([{ id: 2, note: 'changed' }])
      await tx`truncate public.probes`
      await tx`reset role`
      await look(tx)
      throw new TakenBack()
    }).catch((error) => {
      if (!(error instanceof TakenBack)) throw error
    })
    expect(await gaps(admin)).toEqual([])
  }

  test.each(sabotages)('%s succeeds, and each statement is a gap', async (_, sabotage, sqlstate) => {
    await broken(sabotage, async (tx) => {
      const operations = ['INSERT', 'UPDATE', 'UPDATE', 'DELETE', 'TRUNCATE']
      const counted: Gap[] = (await gaps(tx)).filter(({ object }) => object === 'public.probes')
      expect(counted.map(({ operation }) => operation)).toEqual(operations)
      expect(new Set(counted.map((gap) => gap.sqlstate))).toEqual(new Set([sqlstate]))
      expect(warnings.filter((text) => /could not record \w+ of public\.probes/.test(text))).toHaveLength(5)
    })
  })

  test('whose current month was dropped is recorded all the same', async () => {
    const month = new Date().toISOString().slice(0, 7).replace('-', '_')
    await broken(`drop table audit.database_changes_${month}`, async (tx) => {
      expect((await recorded(tx, 'public.probes')).map(({ operation }) => operation))
        .toEqual(['INSERT', 'INSERT', 'UPDATE', 'UPDATE', 'UPDATE', 'DELETE', 'TRUNCATE'])
      expect(await gaps(tx)).toEqual([])
    })
  })

  test('without any partition succeeds, and is a gap', async () => {
    const parts = await admin`
      select inhrelid::regclass::text as name from pg_inherits where inhparent = 'audit.database_changes'::regclass`
    await broken(parts.map(({ name }) => `drop table ${name}`).join(';'), async (tx) => {
      expect((await gaps(tx)).filter(({ object }) => object === 'public.probes')).toHaveLength(5)
    })
  })

  test('where even gaps cannot be counted succeeds, and is in the log of the server', async () => {
    const sabotage =
      'alter table audit.database_changes rename to elsewhere; alter table audit.gaps rename to nowhere'
    await broken(sabotage, async (tx) => {
      expect(await tx`select from audit.nowhere where object_identity = 'public.probes'`).toHaveLength(0)
      expect(warnings.filter((text) => /could not record \w+ of public\.probes/.test(text))).toHaveLength(5)
      await tx`alter table audit.nowhere rename to gaps`
    })
  })

  test.each([
    ['the function that reads requests', 'drop function audit.readable_request'],
    ['the whole schema of the trail', 'drop schema audit cascade'],
  ])('succeeds without %s', async (_, sabotage) => {
    await broken(
      `alter table audit.database_changes rename to elsewhere; ${sabotage} `,
      () => Promise.resolve(),
    )
  })

  test('that is rolled back leaves no gap', async () => {
    await broken(sabotages[0]![1], async (tx) => {
      const before = (await gaps(tx)).length
      await tx`savepoint inner_work`
      await tx`insert into public.probes values (3, 'three')`
      expect(await gaps(tx)).toHaveLength(before + 1)
      await tx`rollback to savepoint inner_work`
      expect(await gaps(tx)).toHaveLength(before)
    })
  })

  describe('is not kept from hearing', () => {
    test.each([
      ['a serialization failure', `raise exception 'on purpose' using errcode = '40001'`, '40001'],
      ['a deadlock', `raise exception 'on purpose' using errcode = '40P01'`, '40P01'],
      ['that it takes too long', `perform pg_sleep(20)`, '57014'],
    ])('%s', async (_, how, code) => {
      const attempt = admin.begin(async (tx) => {
        await tx.unsafe(raising(how)).simple()
        await tx`set local statement_timeout = '200ms'`
        await tx`insert into public.probes values (1, 'one')`
      })
      await expect(attempt).rejects.toMatchObject({ code })
      expect(await gaps(admin)).toEqual([])
      expect(await admin`select from public.probes`).toHaveLength(0)
    })

    test('that somebody cancelled it', async () => {
      const attempt = admin.begin(async (tx) => {
        await tx.unsafe(raising('perform pg_sleep(20)')).simple()
        await tx`insert into public.probes values (1, 'one')`
      })
      const cancelled = waitFor(async () => {
        const rows = await other`
          select pg_cancel_backend(pid) from pg_stat_activity
          where datname = current_database() and wait_event = 'PgSleep'`
        return rows.length === 1
      }, { what: 'the write to be cancelled' })
      await Promise.all([expect(attempt).rejects.toMatchObject({ code: '57014' }), cancelled])
      expect(await gaps(admin)).toEqual([])
    })
  })

  test('raises an alert each minute until somebody has looked', async () => {
    const heard: string[] = []
    const listening = await other.listen('holdfast_alerts', (payload) => heard.push(payload))
    expect(Number((await owner`select audit.watch() as open`)[0]!.open)).toBe(0)
    await owner`select audit.count_gap('public.probes', 'INSERT', '23514', 'it did not fit')`
    expect(Number((await owner`select audit.watch() as open`)[0]!.open)).toBe(1)
    await waitFor(() => heard.length > 0, { what: 'the alert' })
    expect(JSON.parse(heard[0]!)).toMatchObject({ alert: 'audit_gaps', open: 1 })
    expect(Number((await owner`select audit.see_gaps('it was a test') as seen`)[0]!.seen)).toBe(1)
    expect(Number((await owner`select audit.watch() as open`)[0]!.open)).toBe(0)
    await listening.unlisten()
  })
})

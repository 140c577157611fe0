/** The engine under the transaction manager: what travels with the opening and the end, and what a lost answer means. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDb, type Db, sql } from '../../supabase/functions/_shared/db/client.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

onEachPostgres('db/transaction', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let proxy: WireProxy
  /** One connection, so that each transaction finds what the one before has left on it. */
  let db: Db

  const as = { service: 'test' }
  const note = (text: string) => sql`insert into public.notes (text, by) values (${text}, current_user)`
  const notes = async (prefix: string) =>
    (await admin`select text, by from public.notes where text like ${`${prefix}%`} order by id`)
      .map(({ text, by }) => `${text} ${by}`)

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    await admin`create table public.notes (id int generated always as identity, text text, by text)`
    await admin`grant all on public.notes to postgres, service_role`
    proxy = startWireProxy({ target: database.url })
    db = createDb({ url: proxy.url, max: 1 })
  })

  afterAll(async () => {
    await db.close()
    await proxy.close()
  })

  const trips = async (work: () => Promise<unknown>) => {
    await db.ping()
    const before = proxy.counts().roundTrips
    await work()
    return proxy.counts().roundTrips - before
  }

  describe('commit()', () => {
    test('carries opening, last and closing in one trip, each in its role', async () => {
      const tx = db.begin(as, {
        before: [note('one-before')],
        opening: [sql`current_user::text as opener`, sql`pg_current_xact_id()::text as xid`],
      })
      const count = await trips(async () => {
        const rows = await tx.commit({
          last: sql`insert into public.notes (text, by) values ('one-last', current_user) returning text`,
          closing: [note('one-closing')],
        })
        expect(rows).toEqual([{ text: 'one-last' }])
      })
      expect(count).toBe(1)
      expect(tx.openingRow).toMatchObject({ opener: 'postgres', xid: expect.stringMatching(/^\d+$/) })
      expect(await notes('one-')).toEqual([
        'one-before postgres',
        'one-last service_role',
        'one-closing postgres',
      ])
    })

    test('sends nothing for a transaction that did nothing', async () => {
      expect(await trips(() => db.begin(as).commit())).toBe(0)
    })

    test('is refused as a whole when an opening expression raises, with that very error', async () => {
      const tx = db.begin(as, { opening: [sql`1 / ${0}::int as never`] })
      await expect(tx.commit({ last: note('two-last'), closing: [note('two-closing')] }))
        .rejects.toMatchObject({ sqlState: '22012' })
      expect(await notes('two-')).toEqual([])
    })

    test('is refused as a whole when a closing statement raises', async () => {
      const tx = db.begin(as)
      await tx.query(note('three-work'))
      await expect(tx.commit({ closing: [sql`select 1 / 0`] })).rejects.toMatchObject({ sqlState: '22012' })
      expect(await notes('three-')).toEqual([])
    })

    test('reports a constraint that is checked at the commit as a refusal, not as unknown', async () => {
      await admin`create table public.late (a int unique deferrable initially deferred)`
      await admin`grant all on public.late to service_role`
      const tx = db.begin(as)
      await tx.query(sql`insert into public.late values (1), (1)`)
      await expect(tx.commit()).rejects.toMatchObject({ code: 'CONFLICT', sqlState: '23505' })
    })

    test('whose answer is lost is CommitUnknownError, and not to be retried blindly', async () => {
      const tx = db.begin(as)
      await tx.query(note('four-work'))
      const lost = proxy.loseAnswer('commit')
      await expect(tx.commit()).rejects.toMatchObject({
        name: 'CommitUnknownError',
        code: 'COMMIT_UNKNOWN',
        retryable: false,
      })
      await lost
      expect(await notes('four-')).toEqual(['four-work service_role'])
    })

    test('on a connection that was lost before is a certain rollback', async () => {
      const tx = db.begin(as)
      await tx.query(note('five-work'))
      await admin`select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and state = 'idle in transaction'`
      await expect(tx.query(sql`select 1`)).rejects.toThrow()
      await expect(tx.commit()).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE', retryable: true })
      expect(await notes('five-')).toEqual([])
    })

    test('gives no half-open transaction to whoever comes next when a value cannot be sent', async () => {
      const tx = db.begin(as)
      await tx.query(note('six-work'))
      await expect(tx.commit({ last: sql`select ${() => {}}` })).rejects.toThrow(TypeError)
      const [next] = await db.owner.query(sql`select current_user as role, count(*)::int as notes
        from public.notes where text = 'six-work'`)
      expect(next).toEqual({ role: 'postgres', notes: 0 })
    })
  })

  describe('rollback()', () => {
    test('carries what is to be written after it, in one trip', async () => {
      const tx = db.begin(as)
      await tx.query(note('seven-work'))
      const before = proxy.counts().roundTrips
      await tx.rollback({ after: [note('seven-after')] })
      expect(proxy.counts().roundTrips - before).toBe(1)
      expect(await notes('seven-')).toEqual(['seven-after postgres'])
    })

    test('writes it over another connection when its own is lost', async () => {
      const tx = db.begin(as)
      await tx.query(note('eight-work'))
      tx.abandon()
      expect(await tx.rollback({ after: [note('eight-after')] })).toBeUndefined()
      expect(await notes('eight-')).toEqual(['eight-after postgres'])
    })

    test('resolves to the failure of what it carried', async () => {
      const tx = db.begin(as)
      await tx.query(note('nine-work'))
      expect(await tx.rollback({ after: [sql`select 1 / 0`] })).toMatchObject({ sqlState: '22012' })
    })
  })

  test('an ended transaction refuses every further use', async () => {
    for (const end of ['commit', 'rollback', 'abandon'] as const) {
      const tx = db.begin(as)
      await tx.query(sql`select 1`)
      await tx[end]()
      await expect(tx.query(sql`select 1`)).rejects.toMatchObject({ code: 'TRANSACTION_CLOSED' })
      await expect(tx.commit()).rejects.toMatchObject({ code: 'TRANSACTION_CLOSED' })
    }
  })

  test('a time limit is set on the server, for the whole transaction where it knows such a thing', async () => {
    const tx = db.begin(as, { timeoutMs: 12_345, isolation: 'serializable' })
    const [limits] = await tx.query(sql`
      select current_setting('statement_timeout') as statement,
        current_setting('idle_in_transaction_session_timeout') as idle,
        current_setting('transaction_timeout', true) as whole,
        current_setting('transaction_isolation') as isolation`)
    await tx.commit()
    expect(limits).toEqual({
      statement: '12345ms',
      idle: '12345ms',
      whole: pg.major >= 17 ? '12346ms' : null,
      isolation: 'serializable',
    })
  })

  test('a failed operation does not stop the server from counting', async () => {
    const tx = db.begin(as, { timeoutMs: 500 })
    await tx.query(sql`select pg_advisory_xact_lock(4711)`)
    await tx.query(sql`savepoint one`)
    await expect(tx.query(sql`select 1 / 0`)).rejects.toThrow()
    await waitFor(
      async () =>
        (await admin`select from pg_locks where locktype = 'advisory' and objid = 4711`).count === 0,
      { what: 'the server to end it' },
    )
    await tx.rollback()
  })
})

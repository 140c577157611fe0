/** Deadlines of transactions, kept by the client and by the server; and the sweep that closes what nobody ends. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import {
  createTransactionManager,
  type ManagedTx,
  type RunOptions,
} from '../../supabase/functions/_shared/db/transactionManager.ts'
import { onEachPostgres } from '../support/database.ts'
import { ada, type TransactionBed, transactionBed } from '../support/transactions.ts'
import { waitFor } from '../support/wait.ts'

const note = (name: string) => sql`insert into public.notes (name) values (${name})`
const forever = () => new Promise<never>(() => {})

onEachPostgres('the time of a transaction', (pg) => {
  let bed: TransactionBed

  beforeAll(async () => {
    bed = await transactionBed(pg.major)
  })

  beforeEach(async () => {
    await bed.admin`truncate public.notes, holdfast.transactions`
  })

  const sessions = async () =>
    (await bed.admin`
      select from pg_stat_activity
      where datname = current_database() and usename = 'postgres' and state <> 'idle'`).count
  const sweep = async () => (await bed.admin`select holdfast.sweep_transactions()::int as n`)[0]!.n as number
  const status = async (id?: string) => (await bed.books(id))[0]?.status

  test.each([Number.NaN, 0, -1, Number.POSITIVE_INFINITY, 2 ** 31, '5' as unknown as number])(
    'of %d ms is refused, and nothing is sent',
    async (timeoutMs) => {
      const { counts } = await bed.proxy.measure(async () => {
        for (const start of [() => bed.manager.begin({ as: ada, timeoutMs }), () => once({ timeoutMs })]) {
          await expect(start()).rejects.toThrow(RangeError)
        }
      })
      expect([counts.roundTrips, counts.connections]).toEqual([0, 0])
    },
  )

  test.each([[{ attempts: 0 }, RangeError], [{ attempts: Number.NaN }, RangeError], [
    { isolation: 'serializable; drop table public.notes' as 'serializable' },
    TypeError,
  ], [{ as: undefined as never }, TypeError]])('%j is refused as well', async (options, type) => {
    await expect(once(options)).rejects.toThrow(type)
  })

  const once = (
    options: Partial<RunOptions>,
    work = (tx: ManagedTx): Promise<unknown> => tx.query(sql`select 1`),
  ) => bed.manager.run({ as: ada, ...options }, work)

  test('is kept by the server as well, for a statement, a rest, and from 17 on the whole', async () => {
    const [row] = await once({ timeoutMs: 5_000 }, (tx) =>
      tx.query(sql`
        select current_setting('statement_timeout') as statement,
          current_setting('idle_in_transaction_session_timeout') as rest,
          current_setting('transaction_timeout', true) as whole`)) as unknown[]
    expect(row).toEqual({ statement: '5s', rest: '5s', whole: pg.major >= 17 ? '5001ms' : null })
  })

  test('ends a statement that runs on, at the deadline, on both sides', async () => {
    const startedAt = performance.now()
    await expect(once({ timeoutMs: 150 }, async (tx) => {
      await tx.query(note('one'))
      await tx.query(sql`select pg_sleep(30)`)
    })).rejects.toMatchObject({ code: 'TRANSACTION_TIMED_OUT', status: 504 })
    expect(performance.now() - startedAt).toBeLessThan(2_000)
    await waitFor(async () => await sessions() === 0, { what: 'the statement to end' })
    expect([await bed.notes(), await status()]).toEqual([[], 'timed_out'])
  })

  test('frees its connection at the deadline: the next one does not wait for a slow answer', async () => {
    await expect(once({ timeoutMs: 500 }, async (tx) => {
      await tx.query(sql`select 1`)
      bed.proxy.delay({ down: 5_000 })
      const slow = tx.query(note('slow'))
      slow.catch(() => {})
      await waitFor(async () =>
        (await bed.admin`
          select from pg_stat_activity
          where datname = current_database() and state = 'idle in transaction' and query like '%public.notes%'`)
          .count === 1, { what: 'the answer to be on its way' })
      // Of that answer alone.
      bed.proxy.delay({})
      await slow
    })).rejects.toMatchObject({ code: 'TRANSACTION_TIMED_OUT' })
    const startedAt = performance.now()
    await bed.db.ping()
    expect(performance.now() - startedAt).toBeLessThan(2_000)
  })

  test('that a rollback may take is a second: then its connection is given up, too', async () => {
    const failure = new Error('no')
    await expect(once({}, async (tx) => {
      await tx.query(note('one'))
      bed.proxy.delay({ down: 5_000 })
      throw failure
    })).rejects.toBe(failure)
    bed.proxy.delay({})
    const startedAt = performance.now()
    await bed.db.ping()
    expect(performance.now() - startedAt).toBeLessThan(2_000)
    expect(await bed.notes()).toEqual([])
  })

  test('ends work that hangs without a statement, and tells it', async () => {
    let held: ManagedTx | undefined
    await expect(once({ timeoutMs: 150 }, async (tx) => {
      held = tx
      await tx.query(note('one'))
      await forever()
    })).rejects.toMatchObject({ code: 'TRANSACTION_TIMED_OUT' })
    expect(held!.signal.aborted).toBe(true)
    await expect(held!.query(note('late'))).rejects.toMatchObject({ code: 'TRANSACTION_TIMED_OUT' })
    await expect(held!.execute('notes', 'insert', { name: 'late' })).rejects.toMatchObject({
      code: 'TRANSACTION_TIMED_OUT',
    })
    await waitFor(async () => await sessions() === 0, { what: 'the transaction to end' })
    expect([await bed.notes(), await status(held!.id)]).toEqual([[], 'timed_out'])
  })

  test('ends a transaction that is waited for by nobody: the isolate is frozen, the server rolls back', async () => {
    const frozen = await once({ timeoutMs: 300 }, async (tx) => {
      await tx.query(note('one'))
      bed.proxy.freeze()
      await forever()
    }).then(() => undefined, (error) => error)
    expect(frozen).toMatchObject({ code: 'TRANSACTION_TIMED_OUT' })
    await waitFor(async () => await sessions() === 0, { what: 'the server to end it' })
    expect([await status(), await sweep(), await status()]).toEqual(['open', 1, 'abandoned'])
    bed.proxy.thaw()
    await waitFor(async () => await status() === 'timed_out', { what: 'the books of whoever came back' })
    expect(await bed.notes()).toEqual([])
  })

  test('from PostgreSQL 17 on ends the whole, however short its statements', async ({ skip }) => {
    if (pg.major < 17) return skip('PostgreSQL has transaction_timeout from 17 on')
    // Without the manager, whose own clock would be first.
    const tx = bed.open().begin(ada, { timeoutMs: 200 })
    const startedAt = performance.now()
    await expect((async () => {
      for (let i = 0; i < 200; i++) await tx.query(sql`select pg_sleep(0.02)`)
    })()).rejects.toThrow()
    expect(performance.now() - startedAt).toBeLessThan(1_500)
    await tx.rollback()
  })

  test('covers all attempts together', async () => {
    let calls = 0
    await expect(once({ timeoutMs: 400, attempts: 1_000 }, async (tx) => {
      calls++
      await tx.query(sql`select pg_sleep(0.05)`)
      await tx.query(sql`do $$ begin raise exception 'busy' using errcode = '40001'; end $$`)
    })).rejects.toMatchObject({ code: 'TRANSACTION_TIMED_OUT' })
    expect(calls).toBeGreaterThan(1)
  })

  test("of a stepwise transaction ends it without anybody's doing", async () => {
    const id = await bed.manager.begin({ as: ada, timeoutMs: 150 })
    await bed.manager.execute(id, 'notes', 'insert', { name: 'one' })
    await waitFor(() => bed.manager.getActiveTransactions().length === 0, { what: 'its deadline' })
    await expect(bed.manager.commit(id)).rejects.toMatchObject({ code: 'TRANSACTION_TIMED_OUT' })
    await waitFor(async () => await status() === 'timed_out', { what: 'its books' })
    expect([await bed.notes(), await sessions()]).toEqual([[], 0])
  })

  describe('a signal', () => {
    const reason = new Error('the client has gone')

    test('that is aborted already begins nothing', async () => {
      const { counts } = await bed.proxy.measure(() =>
        expect(once({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
      )
      expect(counts.roundTrips).toBe(0)
    })

    test.each([
      ['a statement that runs', (tx: ManagedTx) => tx.query(sql`select pg_sleep(30)`)],
      ['work that rests', forever],
    ])('ends %s, with its reason', async (_, rest) => {
      const controller = new AbortController()
      const running = once({ signal: controller.signal, timeoutMs: 5_000 }, async (tx) => {
        await tx.query(note('one'))
        const waiting = rest(tx)
        setTimeout(() => controller.abort(reason), 20)
        await waiting
      })
      await expect(running).rejects.toBe(reason)
      expect([await bed.notes(), await bed.books()]).toMatchObject([[], [{ status: 'rolled_back' }]])
      await waitFor(async () => await sessions() === 0, { what: 'the transaction to end', timeoutMs: 6_000 })
    })

    test('does not stop a commit that is on its way', async () => {
      const controller = new AbortController()
      bed.proxy.delay({ down: 100 })
      const before = bed.proxy.counts().bytesUp
      const running = once({ signal: controller.signal }, (tx) => tx.query(note('one')))
      await waitFor(() => bed.proxy.counts().bytesUp > before, { what: 'the opening' })
      const opened = bed.proxy.counts().bytesUp
      await waitFor(() => bed.proxy.counts().bytesUp > opened, { what: 'the commit', everyMs: 1 })
      controller.abort(reason)
      await expect(running).resolves.toEqual([])
      bed.proxy.delay({})
      expect(await bed.notes()).toEqual(['one'])
    })
  })

  describe('the sweep', () => {
    test('closes the books of a transaction whose isolate died', async () => {
      const dying = once({}, async (tx) => {
        await tx.query(note('one'))
        bed.proxy.refuse(true)
        bed.proxy.cut()
        await tx.query(note('two'))
      })
      await expect(dying).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
      bed.proxy.refuse(false)
      await waitFor(async () => await sessions() === 0, { what: 'the server to notice' })
      expect([await status(), await sweep(), await status(), await sweep()]).toEqual([
        'open',
        1,
        'abandoned',
        0,
      ])
      expect(await bed.notes()).toEqual([])
    })

    test('leaves one that lives alone', async () => {
      let id = ''
      await once({}, async (tx) => {
        await tx.query(note('one'))
        id = tx.id
        expect([await sweep(), await status(id)]).toEqual([0, 'open'])
      })
      expect([await bed.notes(), await status(id)]).toEqual([['one'], 'committed'])
    })

    test('does not bind: one that had not begun when it looked commits all the same', async () => {
      await once({}, async (tx) => {
        await tx.query(note('one'))
        await bed.admin`update holdfast.transactions set status = 'abandoned', ended_at = now()`
      })
      expect([await bed.notes(), await status()]).toEqual([['one'], 'committed'])
    })

    test('and the purge are scheduled', async () => {
      const jobs = await bed.admin`
        select jobname, schedule, command, username from cron.job where jobname like 'holdfast%transactions'
        order by jobname`
      expect(jobs).toEqual([
        ['holdfast_purge_transactions', '*/5 * * * *', 'select holdfast.purge_transactions()'],
        ['holdfast_sweep_transactions', '* * * * *', 'select holdfast.sweep_transactions()'],
      ].map(([jobname, schedule, command]) => ({ jobname, schedule, command, username: 'postgres' })))
    })

    test('is followed by a purge of what is older than 30 days, in batches, and never of what is open', async () => {
      for (let i = 0; i < 4; i++) await once({})
      await bed.admin`update holdfast.transactions set started_at = now() - interval '31 days'
        where id <> (select id from holdfast.transactions order by started_at desc limit 1)`
      await bed.admin`update holdfast.transactions set status = 'open', ended_at = null
        where id = (select id from holdfast.transactions order by started_at limit 1)`
      const purge = async () => (await bed.admin`select holdfast.purge_transactions(1)::int as n`)[0]!.n
      expect([await purge(), await purge(), await purge()]).toEqual([1, 1, 0])
      expect((await bed.books()).map((book) => book.status).sort()).toEqual(['committed', 'open'])
    })
  })

  test('has a clock that may be wrong by a minute: only its length counts', async () => {
    const manager = createTransactionManager(bed.db, { clock: () => performance.now() - 60_000 })
    await manager.run({ as: ada, timeoutMs: 1_000 }, (tx) => tx.query(note('one')))
    expect(await bed.notes()).toEqual(['one'])
  })
})

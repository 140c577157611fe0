/** A commit that is not answered: what the manager says became of it is what did. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Db, sql } from '../../supabase/functions/_shared/db/client.ts'
import { CommitUnknownError } from '../../supabase/functions/_shared/db/databaseError.ts'
import {
  createTransactionManager,
  type ManagedTx,
} from '../../supabase/functions/_shared/db/transactionManager.ts'
import { onEachPostgres } from '../support/database.ts'
import { ada, type TransactionBed, transactionBed } from '../support/transactions.ts'
import { waitFor } from '../support/wait.ts'

const note = (name: string) => sql`insert into public.notes (name) values (${name})`

onEachPostgres('a commit without an answer', (pg) => {
  let bed: TransactionBed
  /** The session behind the one connection of `bed.db`. */
  let pid = 0

  beforeAll(async () => {
    bed = await transactionBed(pg.major)
  })

  beforeEach(async () => {
    await bed.admin`truncate public.notes, holdfast.transactions`
    const [row] = await bed.db.owner.query<{ pid: number }>(sql`select pg_backend_pid() as pid`)
    pid = row!.pid
  })

  const statuses = async (id: string) => (await bed.books(id)).map((book) => book.status)

  const sessionEnds = () =>
    waitFor(async () => (await bed.admin`select from pg_stat_activity where pid = ${pid}`).count === 0, {
      what: 'the late commit to be answered',
    })

  /** Statements travel through the proxy; the question what became of them goes straight to the server. */
  const asksElsewhere = (): Db => {
    const straight = bed.open()
    const direct = (as: unknown) => (as as { service?: string }).service === 'resolving a commit'
    return { ...bed.db, begin: (as, options) => (direct(as) ? straight : bed.db).begin(as, options) }
  }

  /** Freezes the wire, and does `then` when the commit is in it. */
  const whenTheCommitIsFrozen = (then: () => void) => {
    bed.proxy.freeze()
    const before = bed.proxy.counts().bytesUp
    return waitFor(() => bed.proxy.counts().bytesUp > before, { what: 'the commit' }).then(then)
  }

  describe.each([['with books', true], ['without books', false]])('%s', (_, record) => {
    const manager = () => createTransactionManager(bed.db, { record })

    test('whose answer was lost is reported as committed, and what follows it happens', async () => {
      const seen: string[] = []
      const lost = bed.proxy.loseAnswer(record ? 'commit_transaction' : 'commit')
      const result = await manager().run({ as: ada }, async (tx) => {
        await tx.query(note('one'))
        tx.afterCommit(() => void seen.push('after'))
        return 'done'
      })
      await lost
      expect([result, seen, await bed.notes()]).toEqual(['done', ['after'], ['one']])
      expect((await bed.books()).map((book) => book.status)).toEqual(record ? ['committed'] : [])
    })

    test('that never arrived is reported as rolled back, to be tried again, and is not tried again', async () => {
      let calls = 0
      let cutting: Promise<void> | undefined
      await expect(
        manager().run({ as: ada }, async (tx) => {
          calls++
          await tx.query(note('one'))
          tx.afterCommit(() => void calls++)
          cutting = whenTheCommitIsFrozen(() => (bed.proxy.cut(), bed.proxy.thaw()))
        }),
      ).rejects.toMatchObject({
        code: 'SERVICE_UNAVAILABLE',
        retryable: true,
        details: { outcome: 'rolled_back' },
      })
      await cutting
      expect([calls, await bed.notes()]).toEqual([1, []])
      expect((await bed.books()).map((book) => book.status)).toEqual(record ? ['rolled_back'] : [])
    })
  })

  test('that arrives after the verdict "rolled back" is refused', async () => {
    const manager = createTransactionManager(asksElsewhere())
    bed.proxy.freeze()
    let id = ''
    let rows: Promise<unknown> | undefined
    // All of it is one trip, and stands in the wire: nothing of it has reached the server.
    await expect(manager.run({ as: ada, timeoutMs: 200 }, (tx) => {
      id = tx.id
      rows = tx.atCommit(note('late'))
      return Promise.resolve()
    })).rejects.toMatchObject({ code: 'TRANSACTION_TIMED_OUT' })
    await expect(rows).rejects.toMatchObject({ code: 'TRANSACTION_TIMED_OUT' })
    expect(await statuses(id)).toEqual(['rolled_back'])
    bed.proxy.thaw()
    await sessionEnds()
    expect([await bed.notes(), await statuses(id)]).toEqual([[], ['rolled_back']])
  })

  test('of a transaction that still waits for its client is decided by ending that session', async () => {
    const manager = createTransactionManager(asksElsewhere())
    const startedAt = performance.now()
    let id = ''
    await expect(manager.run({ as: ada }, async (tx) => {
      id = tx.id
      await tx.query(note('one'))
      bed.proxy.freeze()
      const abandoning = waitFor(() => isCommitting(tx), { what: 'the commit' }).then(() => interrupt(tx))
      abandoning.catch(() => {})
    })).rejects.toMatchObject({ message: 'given up by the test' })
    expect(performance.now() - startedAt).toBeGreaterThan(900)
    expect(performance.now() - startedAt).toBeLessThan(4_000)
    bed.proxy.thaw()
    await sessionEnds()
    expect([await bed.notes(), await statuses(id)]).toEqual([[], ['rolled_back']])
  })

  test(
    'by a server that cannot be asked is a CommitUnknownError, and the truth is in the books',
    async () => {
      const lost = bed.proxy.loseAnswer('commit_transaction').then(() => bed.proxy.refuse(true))
      let id = ''
      const result = await bed.manager.run({ as: ada }, async (tx) => {
        id = tx.id
        await tx.query(note('one'))
      }).then(() => undefined, (error) => error)
      await lost
      bed.proxy.refuse(false)
      expect(result).toBeInstanceOf(CommitUnknownError)
      expect(result).toMatchObject({
        code: 'COMMIT_UNKNOWN',
        status: 503,
        retryable: false,
        details: { transactionId: id },
      })
      expect([await statuses(id), await bed.notes()]).toEqual([['committed'], ['one']])
    },
    15_000,
  )

  test('tells of a last statement that its rows are lost, though it committed', async () => {
    const lost = bed.proxy.loseAnswer('commit_transaction')
    let rows: Promise<unknown> | undefined
    await bed.manager.run({ as: ada }, async (tx) => {
      await tx.query(note('one'))
      rows = tx.atCommit(sql`insert into public.notes (name) values ('two') returning name`)
    })
    await lost
    await expect(rows).rejects.toMatchObject({
      code: 'SERVICE_UNAVAILABLE',
      details: { outcome: 'committed' },
    })
    expect(await bed.notes()).toEqual(['one', 'two'])
  })

  test('that the server refuses is no unknown one: a deferred constraint rolls back', async () => {
    await bed.admin.unsafe(`create table if not exists public.pairs (
      id integer primary key, other integer references public.pairs (id) deferrable initially deferred);
      grant all on public.pairs to authenticated`)
    await expect(bed.manager.run({ as: ada }, (tx) => tx.query(sql`insert into public.pairs values (1, 2)`)))
      .rejects.toMatchObject({
        code: 'CONFLICT',
        sqlState: '23503',
      })
    expect(await bed.books()).toMatchObject([{ status: 'rolled_back', error_code: 'CONFLICT' }])
  })

  test('is not asked for by others: a transaction closed in the books cannot commit', async () => {
    await expect(bed.manager.run({ as: ada }, async (tx) => {
      await tx.query(note('one'))
      await bed.admin`update holdfast.transactions set status = 'rolled_back', ended_at = now()`
    })).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE', details: { outcome: 'rolled_back' } })
    expect(await bed.notes()).toEqual([])
  })

  describe('resolve_transaction()', () => {
    const facts = { callerRole: 'anon', isolation: 'read committed', attempt: 1, timeoutMs: 1 }
    const resolve = async (id: string, facts: unknown, xid: string | null) =>
      (await bed.admin`select holdfast.resolve_transaction(${id}, ${
        facts === null ? null : bed.admin.json(facts as never)
      }, ${xid}, false) as outcome`)[0]?.outcome

    test('is sure of nothing without books and without an id of the server', async () => {
      expect(await resolve(crypto.randomUUID(), null, null)).toBe('unknown')
    })

    test('takes an id that the server never gave out for no proof', async () => {
      expect(await resolve(crypto.randomUUID(), null, '9000000000000000')).toBe('unknown')
      expect(await resolve(crypto.randomUUID(), facts, '9000000000000000')).toBe('rolled_back')
    })

    test('is unknown where the books and the server disagree', async () => {
      const [{ xid } = {}] = await bed.admin`select pg_current_xact_id()::text as xid`
      expect(await resolve(crypto.randomUUID(), facts, xid)).toBe('unknown')
    })

    test('binds: what it has told once it tells again, and a commit raises HF001', async () => {
      const id = crypto.randomUUID()
      expect([await resolve(id, facts, null), await resolve(id, facts, null)]).toEqual([
        'rolled_back',
        'rolled_back',
      ])
      await expect(bed.admin`select holdfast.commit_transaction(${id}, ${bed.admin.json(facts)}, 0, '{}')`)
        .rejects.toMatchObject({ code: 'HF001' })
    })
  })
})

/** What the deadline does, at a moment of the test's choosing. */
function interrupt(tx: ManagedTx): void {
  const managed = tx as unknown as { interrupt(reason: Error, abandon: 'always'): void }
  managed.interrupt(new Error('given up by the test'), 'always')
}

function isCommitting(tx: ManagedTx): boolean {
  return (tx as unknown as { isCommitting: boolean }).isCommitting
}

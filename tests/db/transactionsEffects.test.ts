/** Effects outside the database in a transaction of the manager: when they are undone, and when they stay. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import { HoldfastError } from '../../supabase/functions/_shared/core/errors.ts'
import { CommitUnknownError } from '../../supabase/functions/_shared/db/databaseError.ts'
import {
  createTransactionManager,
  type ManagedTx,
  type TransactionManager,
} from '../../supabase/functions/_shared/db/transactionManager.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import { onEachPostgres } from '../support/database.ts'
import { ada, type TransactionBed, transactionBed } from '../support/transactions.ts'
import { waitFor } from '../support/wait.ts'

const note = (name: string) => sql`insert into public.notes (name) values (${name})`

onEachPostgres('an effect', (pg) => {
  let bed: TransactionBed
  let manager: TransactionManager
  let undone: unknown[] = []

  beforeAll(async () => {
    bed = await transactionBed(pg.major)
    manager = createTransactionManager(bed.open({ url: bed.proxy.url, max: 3 }), {
      functionName: 'effects',
      log: createLogger({ write: () => {} }),
      compensations: { refund: (args) => Promise.resolve(void undone.push(args)) },
    })
  })

  beforeEach(async () => {
    await bed.admin`truncate public.notes, holdfast.transactions, holdfast.compensations`
    undone = []
  })

  const run = (work: (tx: ManagedTx) => Promise<unknown>, options = {}) =>
    manager.run({ as: ada, ...options }, work).then(() => undefined, (error) => error)
  const statuses = async () =>
    (await bed.admin`select status from holdfast.compensations order by position`).map((row) => row.status)

  test('stays when its transaction commits, and costs one trip', async () => {
    await run((tx) => tx.query(sql`select 1`))
    const { counts } = await bed.proxy.measure(() =>
      run(async (tx) => {
        await tx.compensate('refund', 1)
        await tx.query(note('one'))
      })
    )
    expect([undone, await bed.notes(), counts.roundTrips]).toEqual([[], ['one'], 3])
    expect(await statuses()).not.toContain('pending')
    expect(await manager.undoDue()).toEqual([])
  })

  test('stays when it commits although nothing was written', async () => {
    await run((tx) => tx.compensate('refund', 1))
    expect([undone, (await bed.books()).map((book) => book.status)]).toEqual([[], ['committed']])
    expect(await statuses()).not.toContain('pending')
  })

  test('is on record before it happens, and undone, last first, when the work throws', async () => {
    const failure = new Error('no')
    const error = await run(async (tx) => {
      await tx.query(note('one'))
      for (const n of [1, 2, 3]) {
        await tx.compensate('refund', n)
        expect(await statuses()).toHaveLength(n)
      }
      throw failure
    })
    expect([error, undone, await bed.notes()]).toEqual([failure, [3, 2, 1], []])
  })

  test('is undone when the commit is refused', async () => {
    await run(async (tx) => {
      await tx.compensate('refund', 1)
      await tx.query(sql`select 1 / 0`).catch(() => {})
    })
    expect(undone).toEqual([1])
  })

  test('is undone before the transaction is run again', async () => {
    const seen: unknown[] = []
    await run(async (tx) => {
      seen.push([...undone])
      await tx.compensate('refund', tx.attempt)
      if (tx.attempt === 1) {
        await tx.query(sql`do $$ begin raise exception 'busy' using errcode = '40001'; end $$`)
      }
    })
    expect([seen, undone]).toEqual([[[], [1]], [1]])
  })

  test('with a resume key is left to the next attempt when the failure may pass', async () => {
    const keys: unknown[] = []
    await run(async (tx) => {
      const { effectKey, resumed } = await tx.compensate('refund', 1, { resumeKey: 'order 1' })
      keys.push(effectKey, resumed)
      if (tx.attempt === 1) {
        await tx.query(sql`do $$ begin raise exception 'busy' using errcode = '40001'; end $$`)
      }
    })
    expect([keys, undone]).toEqual([[keys[0], false, keys[0], true], []])
    const away = new HoldfastError('SERVICE_UNAVAILABLE', 'The provider is away')
    await run(async (tx) => {
      await tx.compensate('refund', 2, { resumeKey: 'order 2' })
      throw away
    })
    expect([undone, (await statuses()).at(-1)]).toEqual([[], 'pending'])
    await run(async (tx) => {
      await tx.compensate('refund', 3, { resumeKey: 'order 3' })
      throw new HoldfastError('CONFLICT', 'Too little stock')
    })
    expect(undone).toEqual([3])
  })

  test('is left to the sweep while the work, overtaken by its deadline, may still cause it', async () => {
    const held = Promise.withResolvers<void>()
    const error = await run(async (tx) => {
      await tx.compensate('refund', 1)
      await held.promise
    }, { timeoutMs: 150 })
    expect([error.code, undone, await statuses()]).toEqual(['TRANSACTION_TIMED_OUT', [], ['pending']])
    held.resolve()
  })

  test('is left to the sweep when nobody knows whether its transaction committed', async () => {
    const [{ definition } = {}] = await bed.admin`
      select pg_get_functiondef('holdfast.resolve_transaction'::regproc) as definition`
    await bed.admin.unsafe(`
      create or replace function holdfast.resolve_transaction(
        p_id uuid, p_facts jsonb, p_xid text, p_end_holder boolean
      ) returns text language sql as $$ select 'unknown' $$`)
    let cutting: Promise<void> | undefined
    const error = await run(async (tx) => {
      await tx.query(note('one'))
      await tx.compensate('refund', 1)
      bed.proxy.freeze()
      const before = bed.proxy.counts().bytesUp
      cutting = waitFor(() => bed.proxy.counts().bytesUp > before, { what: 'the commit' }).then(() => {
        bed.proxy.cut()
        bed.proxy.thaw()
      })
    })
    await cutting
    await bed.admin.unsafe(definition)
    expect(error).toBeInstanceOf(CommitUnknownError)
    expect([undone, await statuses()]).toEqual([[], ['pending']])
    await bed.admin`update holdfast.compensations set due_at = now() - interval '1 minute'`
    expect(await manager.undoDue()).toMatchObject([{ outcome: 'undone' }])
    expect([undone, await bed.notes()]).toEqual([[1], []])
  })

  test('that the sweep has begun to undo keeps its transaction from committing', async () => {
    const error = await run(async (tx) => {
      await tx.query(note('one'))
      await tx.compensate('refund', 1)
      await bed.admin`update holdfast.compensations set due_at = now() - interval '1 minute'`
      expect(await manager.undoDue()).toMatchObject([{ outcome: 'undone' }])
    })
    expect(error).toMatchObject({ code: 'CONFLICT', retryable: true })
    expect([undone, await bed.notes()]).toEqual([[1], []])
  })

  test('is not undone when the service that refused it is believed', async () => {
    await run(async (tx) => {
      await tx.withdraw(await tx.compensate('refund', 1))
      await tx.compensate('refund', 2)
      throw new Error('no')
    })
    await run(async (tx) => {
      await tx.withdraw(await tx.compensate('refund', 3))
      await tx.query(note('one'))
    })
    expect([undone, await bed.notes()]).toEqual([[2], ['one']])
  })

  describe('is refused', () => {
    test('by a manager without handlers, or without that handler, with a TypeError', async () => {
      expect(await bed.manager.run({ as: ada }, (tx) => tx.compensate('refund', 1)).catch((error) => error))
        .toBeInstanceOf(TypeError)
      expect(await run((tx) => tx.compensate('elsewhere', 1))).toBeInstanceOf(TypeError)
      expect(await statuses()).toEqual([])
    })

    test('by a manager without books', () => {
      expect(() => createTransactionManager(bed.db, { record: false, compensations: {} })).toThrow(TypeError)
    })

    test('once the transaction is over', async () => {
      let late: Promise<unknown> | undefined
      await run(async (tx) => {
        await tx.query(note('one'))
        late = waitFor(() => tx.signal.aborted, { what: 'the deadline' }).then(() =>
          tx.compensate('refund', 1)
        )
        late.catch(() => {})
        await new Promise(() => {})
      }, { timeoutMs: 100 })
      await expect(late).rejects.toMatchObject({ code: 'TRANSACTION_TIMED_OUT' })
      expect(await statuses()).toEqual([])
    })
  })
})

/** Restore points of a transaction: what a failed operation undoes, and what rollbackTo() does. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import type { ManagedTx } from '../../supabase/functions/_shared/db/transactionManager.ts'
import { onEachPostgres } from '../support/database.ts'
import { ada, adaId, type TransactionBed, transactionBed } from '../support/transactions.ts'

onEachPostgres('a transaction in pieces', (pg) => {
  let bed: TransactionBed

  const run = <T>(work: (tx: ManagedTx) => Promise<T>) => bed.manager.run({ as: ada }, work)
  const count = async () => (await bed.admin`select from public.notes`).count

  beforeAll(async () => {
    bed = await transactionBed(pg.major)
  })

  beforeEach(async () => {
    await bed.admin`truncate public.notes`
    await bed.admin`insert into public.notes (author, name, size) select ${adaId}, 'note ' || n, n
      from generate_series(1, 3) as n`
  })

  describe('a failure', () => {
    test('undoes itself alone: the transaction goes on and commits', async () => {
      const results = await run(async (tx) => [
        (await tx.execute('notes', 'insert', { name: 'before' })).success,
        (await tx.execute('notes', 'insert', { name: 'note 1' })).error?.code,
        (await tx.execute('notes', 'insert', { name: 'after' })).success,
      ])
      expect(results).toEqual([true, 'CONFLICT', true])
      expect(await bed.notes()).toEqual(['note 1', 'note 2', 'note 3', 'before', 'after'])
    })

    test('does not touch what was asked for at the same time', async () => {
      const results = await run(async (tx) => {
        const all = await Promise.all([
          tx.execute('notes', 'insert', { name: 'a' }),
          tx.execute('notes', 'insert', { name: 'note 1' }),
          tx.execute('notes', 'insert', { name: 'b' }),
          tx.query(sql`insert into public.notes (name) values ('c')`),
        ])
        return all.slice(0, 3).map((each) => 'success' in each && each.success)
      })
      expect(results).toEqual([true, false, true])
      expect((await bed.notes()).slice(3)).toEqual(['a', 'b', 'c'])
    })

    test('after a statement that was not an operation is told, and nothing commits', async () => {
      await expect(run(async (tx) => {
        await tx.query(sql`select 1 / 0`).catch(() => {})
        const result = await tx.execute('notes', 'insert', { name: 'lost' })
        expect(result).toMatchObject({ success: false, error: { sqlState: '25P02' } })
      })).rejects.toMatchObject({ code: 'INTERNAL_ERROR' })
      expect(await count()).toBe(3)
    })
  })

  describe('rollbackTo()', () => {
    test('undoes the operation and all later ones, and keeps the earlier ones', async () => {
      await run(async (tx) => {
        await tx.execute('notes', 'insert', { name: 'a' })
        const { restorePoint } = await tx.execute('notes', 'insert', { name: 'b' })
        await tx.execute('notes', 'insert', { name: 'c' })
        await tx.query(sql`insert into public.notes (name) values ('d')`)
        await tx.rollbackTo(restorePoint)
        await tx.execute('notes', 'insert', { name: 'e' })
      })
      expect((await bed.notes()).slice(3)).toEqual(['a', 'e'])
    })

    test('can be repeated for one point, and goes further back, never forward', async () => {
      await run(async (tx) => {
        const first = await tx.savepoint()
        const { restorePoint: second } = await tx.execute('notes', 'insert', { name: 'a' })
        await tx.rollbackTo(second)
        await tx.rollbackTo(second)
        await tx.rollbackTo(first)
        await expect(tx.rollbackTo(second)).rejects.toThrow(RangeError)
        await tx.execute('notes', 'insert', { name: 'b' })
      })
      expect((await bed.notes()).slice(3)).toEqual(['b'])
    })

    test('saves a transaction in which a statement has failed', async () => {
      await run(async (tx) => {
        await tx.execute('notes', 'insert', { name: 'a' })
        const point = await tx.savepoint()
        await tx.query(sql`select 1 / 0`).catch(() => {})
        await tx.rollbackTo(point)
      })
      expect((await bed.notes()).slice(3)).toEqual(['a'])
    })

    test('takes the point of a failed operation', async () => {
      await run(async (tx) => {
        const { restorePoint } = await tx.execute('notes', 'update', {}, { where: {} })
        await tx.execute('notes', 'insert', { name: 'a' })
        await tx.rollbackTo(restorePoint)
      })
      expect(await count()).toBe(3)
    })

    test.each([
      ['another transaction', { transactionId: crypto.randomUUID(), name: 'holdfast_1' }],
      ['nothing', undefined],
      ['SQL', { transactionId: 'x', name: 'a"; commit; --' }],
    ])('refuses a point of %s, and the transaction goes on', async (_, point) => {
      await run(async (tx) => {
        await tx.savepoint()
        await expect(tx.rollbackTo(point!)).rejects.toThrow(RangeError)
        await tx.execute('notes', 'insert', { name: 'on' })
      })
      expect(await bed.notes()).toContain('on')
    })
  })
})

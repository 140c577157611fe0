/** The stepwise face of the transaction manager: begin, execute, commit, rollback, and what is active. */
import { beforeAll, beforeEach, expect, test } from 'vitest'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import { onEachPostgres } from '../support/database.ts'
import { ada, adaId, grace, graceId, type TransactionBed, transactionBed } from '../support/transactions.ts'

onEachPostgres('the stepwise face', (pg) => {
  let bed: TransactionBed

  beforeAll(async () => {
    bed = await transactionBed(pg.major)
  })

  beforeEach(async () => {
    await bed.admin`truncate public.notes, holdfast.transactions`
  })

  test('begins, executes, queries and commits', async () => {
    const id = await bed.manager.begin({ as: ada })
    const inserted = await bed.manager.execute(id, 'notes', 'insert', { name: 'Ada' })
    expect(inserted).toMatchObject({ success: true, data: { name: 'Ada', author: adaId }, error: null })
    expect(await bed.manager.query(id, sql`select name from public.notes`)).toEqual([{ name: 'Ada' }])
    expect(await bed.notes()).toEqual([])
    await bed.manager.commit(id)
    expect(await bed.notes()).toEqual(['Ada'])
  })

  test('rolls back on demand', async () => {
    const id = await bed.manager.begin({ as: ada })
    await bed.manager.execute(id, 'notes', 'insert', { name: 'Ada' })
    await bed.manager.rollback(id)
    expect([await bed.notes(), (await bed.books(id))[0]?.status]).toEqual([[], 'rolled_back'])
  })

  test('lists what is active in this isolate, and nothing that has ended', async () => {
    const id = await bed.manager.begin({ as: grace, timeoutMs: 5_000 })
    await bed.manager.execute(id, 'notes', 'insert', { name: 'Grace' })
    const [active] = bed.manager.getActiveTransactions()
    expect(active).toMatchObject({
      id,
      callerRole: 'authenticated',
      callerId: graceId,
      attempt: 1,
      operations: 1,
      tables: ['notes'],
    })
    expect(active!.deadlineAt.getTime() - active!.startedAt.getTime()).toBe(5_000)
    await bed.manager.rollback(id)
    expect(bed.manager.getActiveTransactions()).toEqual([])
  })

  test('refuses an id that is unknown, committed, or rolled back, and says which', async () => {
    const committed = await bed.manager.begin({ as: ada })
    await bed.manager.commit(committed)
    const rolledBack = await bed.manager.begin({ as: ada })
    await bed.manager.rollback(rolledBack)
    const cases = [['nobody', 'is not one'], [committed, 'is committed'], [rolledBack, 'was rolled back']]
    for (const [id = '', found] of cases) {
      const uses = [
        () => bed.manager.query(id, sql`select 1`),
        () => bed.manager.execute(id, 'notes', 'select'),
        () => bed.manager.commit(id),
        () => bed.manager.rollback(id),
        () => bed.manager.rollbackTo(id, { transactionId: id, name: 'holdfast_1' }),
      ]
      for (const use of uses) {
        await expect(use()).rejects.toMatchObject({
          code: 'TRANSACTION_CLOSED',
          message: expect.stringContaining(found!),
        })
      }
    }
  })

  test('commits once when it is told to twice at a time', async () => {
    const id = await bed.manager.begin({ as: ada })
    await bed.manager.execute(id, 'notes', 'insert', { name: 'Ada' })
    const [first, second] = await Promise.allSettled([bed.manager.commit(id), bed.manager.commit(id)])
    expect(first.status).toBe('fulfilled')
    expect(second).toMatchObject({ reason: { code: 'TRANSACTION_CLOSED' } })
    expect(await bed.notes()).toEqual(['Ada'])
  })
})

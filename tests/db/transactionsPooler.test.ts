/** The transaction manager through a pooler in transaction mode, where connections change hands after each transaction. */
import { expect, test } from 'vitest'
import { createDb, sql } from '../../supabase/functions/_shared/db/client.ts'
import { createTransactionManager } from '../../supabase/functions/_shared/db/transactionManager.ts'
import { startPooler } from '../support/pooler.ts'
import { signedIn, transactionBed } from '../support/transactions.ts'

test("transactions of many callers share a pooler's connections, keep their books, and leave nothing behind", async ({ skip }) => {
  const bed = await transactionBed()
  const pooler = await startPooler(bed.database.url, 2)
  if (pooler === undefined) return skip('PgBouncer is not installed, nor can it be')
  const db = createDb({ url: pooler.url, max: 10 })
  const manager = createTransactionManager(db)
  try {
    const users = Array.from({ length: 40 }, () => crypto.randomUUID())
    const who = sql`select auth.uid() as uid, current_user as role`
    const seen = await Promise.all(
      users.map((userId, i) =>
        manager.run({ as: signedIn(userId) }, async (tx) => {
          await tx.execute('notes', 'insert', { name: `note ${i}` })
          const repeated = await tx.execute('notes', 'insert', { name: `note ${i}` })
          const [row] = await tx.query(who)
          if (i % 4 === 0) throw Object.assign(new Error('given up'), { row, failed: repeated.error?.code })
          return { row, failed: repeated.error?.code }
        }).catch(({ row, failed }) => ({ row, failed }))
      ),
    )
    expect(seen).toEqual(users.map((uid) => ({ row: { uid, role: 'authenticated' }, failed: 'CONFLICT' })))

    const kept = await bed.admin`select author, name from public.notes`
    expect(new Map(kept.map(({ name, author }) => [name, author]))).toEqual(
      new Map(users.map((id, i) => [`note ${i}`, id] as const).filter((_, i) => i % 4 !== 0)),
    )
    const [books] = await bed.admin`
      select count(*) filter (where status = 'committed')::int as committed,
        count(*) filter (where status = 'rolled_back')::int as rolled_back, count(*)::int as all
      from holdfast.transactions`
    expect(books).toEqual({ committed: 30, rolled_back: 10, all: 40 })
    const left = await Promise.all(Array.from({ length: 20 }, () =>
      db.asService('looking').query(sql`
        select nullif(current_setting('request.headers', true), '') as headers, auth.uid() as uid,
          current_setting('statement_timeout') as timeout`)))
    expect(left.flat()).toEqual(Array(20).fill({ headers: null, uid: null, timeout: '8s' }))
    expect(
      await bed.admin`select
      from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
    ).toHaveLength(0)
  } finally {
    await db.close()
    await pooler.close()
  }
})

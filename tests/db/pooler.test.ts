/** db/client.ts through a pooler in transaction mode, where connections change hands after every transaction. */
import { expect, test } from 'vitest'
import type { Actor } from '../../supabase/functions/_shared/core/caller.ts'
import { createDb, sql } from '../../supabase/functions/_shared/db/client.ts'
import { freshDatabase } from '../support/database.ts'
import { startPooler } from '../support/pooler.ts'

test('callers that share server connections never see each other, and nothing of them stays behind', async ({ skip }) => {
  const database = await freshDatabase()
  const pooler = await startPooler(database.url, 2)
  if (pooler === undefined) return skip('PgBouncer is not installed, nor can it be')
  const db = createDb({ url: pooler.url, max: 10 })
  try {
    const users = Array.from({ length: 60 }, () => crypto.randomUUID())
    const seen = await Promise.all(users.map((userId, i) => {
      const actor: Actor = {
        caller: { kind: 'user', role: 'authenticated', userId, claims: { sub: userId } },
      }
      const who = sql`select auth.uid() as uid, current_user as role, ${'a value'}::text as value`
      if (i % 3 > 0) return db.as(actor).query(who).then(([row]) => row)
      return db.as(actor).transaction(async (tx) => {
        await tx.query(sql`select pg_sleep(0.001)`)
        const [row] = await tx.query(who)
        if (i % 2 === 0) throw Object.assign(new Error('given up'), { row })
        return row
      }).catch((error) => error.row)
    }))
    expect(seen).toEqual(users.map((uid) => ({ uid, role: 'authenticated', value: 'a value' })))

    const left = await Promise.all(Array.from({ length: 20 }, () =>
      db.asService('looking').query(sql`
        select nullif(current_setting('request.headers', true), '') as headers, auth.uid() as uid`)))
    expect(left.flat()).toEqual(Array(20).fill({ headers: null, uid: null }))
  } finally {
    await db.close()
    await pooler.close()
  }
})

/** transactions.run on a real server: the caller, the books, the trips, the ends. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import {
  createTransactionManager,
  type ManagedTx,
  type RunOptions,
} from '../../supabase/functions/_shared/db/transactionManager.ts'
import { onEachPostgres } from '../support/database.ts'
import { ada, adaId, grace, type TransactionBed, transactionBed } from '../support/transactions.ts'

const who = sql`select current_user as role, auth.uid() as uid,
  current_setting('request.headers')::json ->> 'x-request-id' as request`
const ofAda = { role: 'authenticated', uid: adaId, request: 'req-1' }
const note = (name: string) => sql`insert into public.notes (name) values (${name})`

onEachPostgres('transactions', (pg) => {
  let bed: TransactionBed

  beforeAll(async () => {
    bed = await transactionBed(pg.major)
  })

  beforeEach(async () => {
    await bed.admin`truncate public.notes, holdfast.transactions`
  })

  describe('the caller', () => {
    const left = async () => {
      const [row] = await bed.db.asService('looking').query(sql`
        select session_user as session, nullif(current_setting('request.headers', true), '') as headers,
          auth.uid() as uid`)
      return row
    }
    const nothing = { session: 'postgres', headers: null, uid: null }

    test('holds for every statement of a transaction and is gone after its commit', async () => {
      const seen = await bed.manager.run({ as: ada }, async (tx) => {
        const [first] = await tx.query(who)
        await tx.execute('notes', 'insert', { name: 'one' })
        const point = await tx.savepoint()
        await tx.query(note('two'))
        await tx.rollbackTo(point)
        const [second] = await tx.query(who)
        return [first, second]
      })
      expect(seen).toEqual([ofAda, ofAda])
      expect(await left()).toEqual(nothing)
    })

    test('is gone after the work has thrown', async () => {
      await expect(bed.manager.run({ as: ada }, async (tx) => {
        await tx.query(who)
        throw new Error('no')
      })).rejects.toThrow('no')
      expect(await left()).toEqual(nothing)
    })

    test('is gone after a statement has failed', async () => {
      await expect(bed.manager.run({ as: ada }, (tx) => tx.query(sql`select 1 / 0`))).rejects.toThrow()
      expect(await left()).toEqual(nothing)
    })

    test('may be given alone, without a request', async () => {
      const [row] = await bed.manager.run({ as: ada.caller }, (tx) => tx.query(sql`select auth.uid() as uid`))
      expect(row).toEqual({ uid: adaId })
    })

    test('may be the service, which says why', async () => {
      const [row] = await bed.manager.run(
        { as: { service: 'counting' } },
        (tx) => tx.query(sql`select current_user as role, current_setting('application_name') as name`),
      )
      expect(row).toEqual({ role: 'service_role', name: 'holdfast: counting' })
    })

    test('sees and writes what row level security lets it, and no more', async () => {
      await bed.manager.run({ as: ada }, (tx) => tx.execute('notes', 'insert', { name: 'of ada' }))
      const result = await bed.manager.run({ as: grace }, async (tx) => {
        const seen = await tx.execute('notes', 'select')
        const changed = await tx.execute('notes', 'update', { size: 1 }, { where: { name: 'of ada' } })
        const forged = await tx.execute('notes', 'insert', { name: 'forged', author: adaId })
        return [seen.data, changed.data, forged.error?.code]
      })
      expect(result).toEqual([[], [], 'FORBIDDEN'])
      expect(await bed.notes()).toEqual(['of ada'])
    })
  })

  describe('run()', () => {
    test('commits what its work wrote and resolves to what it returned', async () => {
      const result = await bed.manager.run({ as: ada }, async (tx) => {
        await tx.query(note('one'))
        await tx.query(note('two'))
        return 'done'
      })
      expect([result, await bed.notes()]).toEqual(['done', ['one', 'two']])
    })

    test('takes everything back when the work throws, and rethrows that very error', async () => {
      const failure = new Error('the work failed')
      await expect(bed.manager.run({ as: ada }, async (tx) => {
        await tx.query(note('one'))
        throw failure
      })).rejects.toBe(failure)
      expect(await bed.notes()).toEqual([])
    })

    test('never reports success for a transaction in which a statement failed and was caught', async () => {
      await expect(bed.manager.run({ as: ada }, async (tx) => {
        await tx.query(note('one'))
        await tx.query(sql`select 1 / 0`).catch(() => {})
      })).rejects.toMatchObject({ code: 'INTERNAL_ERROR', message: expect.stringContaining('Cannot commit') })
      expect(await bed.notes()).toEqual([])
    })

    test('takes no connection and writes no books when its work sends nothing', async () => {
      const { counts } = await bed.proxy.measure(() => bed.manager.run({ as: ada }, () => Promise.resolve()))
      expect(counts.roundTrips).toBe(0)
      expect(await bed.books()).toEqual([])
    })

    test('inside of another is a transaction of its own', async () => {
      const manager = createTransactionManager(bed.open({ max: 2 }))
      await expect(manager.run({ as: ada }, async (outer) => {
        await outer.query(note('outer'))
        await manager.run({ as: ada }, (inner) => inner.query(note('inner')))
        throw new Error('only the outer one')
      })).rejects.toThrow()
      expect(await bed.notes()).toEqual(['inner'])
    })

    test.each(['commit', ' /* at last */ COMMIT;', '-- so\nrollback', 'begin', 'savepoint mine', 'end'])(
      "refuses %j as a statement, which would end the caller's role as well",
      async (text) => {
        await bed.manager.run({ as: ada }, async (tx) => {
          const strings = Object.assign([text], { raw: [text] }) as unknown as TemplateStringsArray
          await expect(tx.query(sql(strings))).rejects.toThrow(TypeError)
          expect(await tx.query(who)).toEqual([ofAda])
        })
      },
    )

    test('runs its tasks after the commit, in order, and logs one that fails', async () => {
      const seen: unknown[] = []
      await bed.manager.run({ as: ada }, async (tx) => {
        await tx.query(note('one'))
        tx.afterCommit(async () => void seen.push(['first', await bed.notes()]))
        tx.afterCommit(() => {
          throw new Error('a task failed')
        })
        tx.afterCommit(() => void seen.push('third'))
      })
      expect(seen).toEqual([['first', ['one']], 'third'])
      expect(JSON.stringify(bed.logged.at(-1))).toContain('a task failed')
    })

    test('runs no task when nothing is committed', async () => {
      const seen: string[] = []
      await expect(bed.manager.run({ as: ada }, async (tx) => {
        tx.afterCommit(() => void seen.push('ran'))
        await tx.query(sql`select 1 / 0`).catch(() => {})
      })).rejects.toThrow()
      expect(seen).toEqual([])
    })

    test('lets one statement travel with the commit, and gives its rows when that is certain', async () => {
      const { value: { rows }, counts } = await bed.proxy.measure(() =>
        bed.manager.run({ as: ada }, (tx) =>
          Promise.resolve({
            rows: tx.atCommit<{ name: string }>(
              sql`insert into public.notes (name) values ('last') returning name`,
            ),
          }))
      )
      expect([await rows, counts.roundTrips]).toEqual([[{ name: 'last' }], 1])
      await expect(bed.manager.run({ as: ada }, async (tx) => {
        tx.atCommit(note('first'))
        await Promise.resolve()
        tx.atCommit(note('second'))
      })).rejects.toMatchObject({ code: 'TRANSACTION_CLOSED' })
      expect(await bed.notes()).toEqual(['last'])
    })

    test('rejects a statement of the commit with what failed', async () => {
      let rows: Promise<unknown> | undefined
      await expect(bed.manager.run({ as: ada }, (tx) => {
        rows = tx.atCommit(sql`select 1 / 0`)
        return Promise.resolve()
      })).rejects.toMatchObject({ sqlState: '22012' })
      await expect(rows).rejects.toMatchObject({ sqlState: '22012' })
    })

    test("commits statements of Holdfast itself with it, as the connection's own role", async () => {
      await bed.manager.run({ as: ada }, async (tx) => {
        await tx.query(note('one'))
        tx.beforeCommit(sql`update public.notes set name = current_user`)
      })
      expect(await bed.notes()).toEqual(['postgres'])
    })

    test('cannot be used once it has ended', async () => {
      let kept: ManagedTx | undefined
      await bed.manager.run({ as: ada }, async (tx) => {
        kept = tx
        await tx.query(note('one'))
      })
      const uses = [
        () => kept!.query(note('late')),
        () => kept!.execute('notes', 'insert', { name: 'late' }),
        () => kept!.savepoint(),
        () => kept!.atCommit(note('late')),
        () => kept!.afterCommit(() => {}),
      ]
      for (const use of uses) {
        await expect((async () => await use())()).rejects.toMatchObject({
          code: 'TRANSACTION_CLOSED',
          message: expect.stringContaining('is committed'),
        })
      }
      expect(await bed.notes()).toEqual(['one'])
    })
  })

  describe('the books', () => {
    test('say who ran what, and cost no trip of their own', async () => {
      let id = ''
      await bed.manager.run({ as: ada, isolation: 'repeatable read' }, async (tx) => {
        id = tx.id
        await tx.execute('notes', 'insert', { name: 'one' })
        await tx.execute('slots', 'select', { where: { id: 1 } })
        await tx.execute('notes', 'select')
        await tx.query(sql`select 1`)
      })
      expect(await bed.books(id)).toEqual([{
        id,
        status: 'committed',
        caller_role: 'authenticated',
        caller_id: adaId,
        function_name: 'notes',
        request_id: 'req-1',
        isolation: 'repeatable read',
        attempt: 1,
        operations: 4,
        tables: ['notes', 'slots'],
        error_code: null,
        ended: true,
      }])
    })

    test('are open while it runs', async () => {
      await bed.manager.run({ as: ada }, async (tx) => {
        await tx.query(note('one'))
        expect(await bed.books(tx.id)).toMatchObject([{ status: 'open', ended: false }])
      })
    })

    test.each([
      ['the code of a HoldfastError', (tx: ManagedTx) => tx.query(sql`select 1 / 0`), 'INTERNAL_ERROR'],
      ['the name of any other', () => Promise.reject(new RangeError('no')), 'RangeError'],
    ])('of one that rolled back have %s', async (_, fail, code) => {
      await expect(bed.manager.run({ as: ada }, async (tx) => {
        await tx.query(note('one'))
        await fail(tx)
      })).rejects.toThrow()
      expect(await bed.books()).toMatchObject([{ status: 'rolled_back', error_code: code, ended: true }])
    })

    test('are not kept where `record` is false', async () => {
      const manager = createTransactionManager(bed.db, { record: false })
      await manager.run({ as: ada }, (tx) => tx.query(note('one')))
      await expect(manager.run({ as: ada }, (tx) => tx.query(sql`select 1 / 0`))).rejects.toThrow()
      expect([await bed.notes(), await bed.books()]).toEqual([['one'], []])
    })

    test('cannot be read or written by the callers', async () => {
      await expect(bed.db.as(ada).query(sql`select from holdfast.transactions`)).rejects.toMatchObject({
        code: 'FORBIDDEN',
      })
      await expect(
        bed.db.as(ada).query(sql`select holdfast.commit_transaction(gen_random_uuid(), '{}', 0, '{}')`),
      ).rejects.toMatchObject({ code: 'FORBIDDEN' })
    })
  })

  describe('round trips', () => {
    const trips = async (work: (tx: ManagedTx) => Promise<unknown>, options: Partial<RunOptions> = {}) => {
      // The connection is open, and the table is known.
      await bed.manager.run({ as: ada }, (tx) => tx.execute('notes', 'select'))
      const { counts } = await bed.proxy.measure(() => bed.manager.run({ as: ada, ...options }, work))
      return counts.roundTrips
    }

    test.each([1, 2, 5])('%i dependent statements cost one more', async (n) => {
      expect(
        await trips(async (tx) => {
          for (let i = 0; i < n; i++) await tx.query(sql`select ${i}::int`)
        }),
      ).toBe(n + 1)
    })

    test('independent statements share one', async () => {
      expect(
        await trips((tx) => Promise.all([1, 2, 3].map((i) => tx.query(sql`select ${i}::int`)))),
      ).toBe(2)
    })

    test('an operation brings its savepoint along', async () => {
      expect(
        await trips(async (tx) => {
          await tx.execute('notes', 'insert', { name: 'one' })
          await tx.execute('notes', 'update', { size: 1 }, { where: { name: 'one' } })
        }),
      ).toBe(3)
    })

    test('a rollback costs one, its books included', async () => {
      const failing = trips(async (tx) => {
        await tx.query(sql`select 1`)
        throw new Error('no')
      })
      await expect(failing).rejects.toThrow('no')
      expect(bed.proxy.counts().roundTrips).toBe(2)
    })

    test('limits that shrink with the time left cost none', async () => {
      const clock = { now: 0 }
      const manager = createTransactionManager(bed.db, { clock: () => clock.now })
      const limits = sql`select current_setting('statement_timeout') as statement,
        current_setting('idle_in_transaction_session_timeout') as idle`
      const { value, counts } = await bed.proxy.measure(() =>
        manager.run({ as: ada, timeoutMs: 60_000 }, async (tx) => {
          const [first] = await tx.query(limits)
          clock.now = 40_000
          const [second] = await tx.query(limits)
          return [first, second]
        })
      )
      expect(value).toEqual([{ statement: '1min', idle: '1min' }, { statement: '20s', idle: '20s' }])
      expect(counts.roundTrips).toBe(3)
    })
  })
})

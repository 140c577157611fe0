/** Transactions that get in each other's way: what is run again, what is locked, and what is left alone. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import {
  createTransactionManager,
  type ManagedTx,
  type TransactionManager,
} from '../../supabase/functions/_shared/db/transactionManager.ts'
import { HoldfastError } from '../../supabase/functions/_shared/core/errors.ts'
import { onEachPostgres } from '../support/database.ts'
import { ada, grace, type TransactionBed, transactionBed } from '../support/transactions.ts'
import { waitFor } from '../support/wait.ts'

const add = (id: number, n = 1) => sql`update public.slots set n = n + ${n} where id = ${id}`
const conflict = sql`do $$ begin raise exception 'busy' using errcode = '40001'; end $$`

onEachPostgres('transactions in conflict', (pg) => {
  let bed: TransactionBed
  /** With a connection for each of those who run at the same time. */
  let manager: TransactionManager

  beforeAll(async () => {
    bed = await transactionBed(pg.major)
    manager = createTransactionManager(bed.open({ max: 8 }))
  })

  beforeEach(async () => {
    await bed.admin`update public.slots set n = 0`
    await bed.admin`truncate holdfast.transactions`
  })

  const slot = async (id: number) =>
    (await bed.admin`select n from public.slots where id = ${id}`)[0]!.n as number

  /** Lets `count` callers pass together; who comes again passes at once. */
  const gate = (count: number) => {
    const open = Promise.withResolvers<void>()
    let arrived = 0
    return () => {
      if (++arrived >= count) open.resolve()
      return open.promise
    }
  }

  test('a deadlock ends for both with a commit: the one that is chosen runs again', async () => {
    const both = gate(2)
    const attempts: number[] = []
    const transfer = (from: number, to: number) =>
      manager.run({ as: ada }, async (tx) => {
        await tx.query(add(from, -1))
        await both()
        await tx.query(add(to, 1))
        attempts.push(tx.attempt)
      })
    await Promise.all([transfer(1, 2), transfer(2, 1)])
    expect([await slot(1), await slot(2), attempts.sort()]).toEqual([0, 0, [1, 2]])
    const statuses = (await bed.books()).map((
      { status, attempt, error_code },
    ) => [status, attempt, error_code])
    expect(statuses.sort()).toEqual([
      ['committed', 1, null],
      ['committed', 2, null],
      ['rolled_back', 1, 'CONFLICT'],
    ])
  })

  test('write skew under serializable is run again until it is none', async () => {
    const both = gate(2)
    const takeIfFree = () =>
      manager.run({ as: ada, isolation: 'serializable' }, async (tx) => {
        const [row] = await tx.query<{ taken: string }>(
          sql`select coalesce(sum(n), 0) as taken from public.slots where id <= 2`,
        )
        await both()
        if (Number(row!.taken) > 0) return 'full'
        await tx.query(add(tx.attempt))
        return 'taken'
      })
    expect((await Promise.all([takeIfFree(), takeIfFree()])).sort()).toEqual(['full', 'taken'])
    expect(await slot(1) + await slot(2)).toBe(1)
  })

  test('serializable transactions on different rows do not meet in the books', async () => {
    const all = gate(6)
    const attempts = await Promise.all(
      Array.from(
        { length: 6 },
        (_, i) =>
          manager.run({ as: i % 2 ? ada : grace, isolation: 'serializable' }, async (tx) => {
            await tx.query(sql`insert into public.notes (name) values (${`note ${i}`})`)
            await all()
            return tx.attempt
          }),
      ),
    )
    expect(attempts).toEqual(Array(6).fill(1))
  })

  describe('run()', () => {
    const counted = async (
      work: (tx: ManagedTx) => Promise<unknown>,
      options: { attempts?: number } = {},
    ) => {
      let calls = 0
      const result = await manager.run({ as: ada, ...options }, async (tx) => {
        calls++
        return await work(tx)
      }).then(() => undefined, (error) => error)
      return { calls, error: result }
    }

    test('gives up after three attempts, with the conflict, and books for each', async () => {
      const { calls, error } = await counted((tx) => tx.query(conflict))
      expect([calls, error.code, error.retryable, error.sqlState]).toEqual([3, 'CONFLICT', true, '40001'])
      expect((await bed.books()).map(({ status, attempt }) => [status, attempt])).toEqual([
        ['rolled_back', 1],
        ['rolled_back', 2],
        ['rolled_back', 3],
      ])
    })

    test('is told how often', async () => {
      expect((await counted((tx) => tx.query(conflict), { attempts: 1 })).calls).toBe(1)
      expect((await counted((tx) => tx.query(conflict), { attempts: 5 })).calls).toBe(5)
    })

    test('runs again when the work has caught the conflict, or has wrapped it', async () => {
      expect((await counted((tx) => tx.query(conflict).catch(() => {}))).calls).toBe(3)
      const wrapped = await counted((tx) =>
        tx.query(conflict).catch((cause) => {
          throw new Error('the work failed', { cause })
        })
      )
      expect([wrapped.calls, wrapped.error.message]).toEqual([3, 'the work failed'])
    })

    test('runs again after a conflict in an operation that the work rethrows', async () => {
      await bed.admin.unsafe(`create or replace function public.busy() returns trigger language plpgsql as
        $$ begin raise exception 'busy' using errcode = '40001'; end $$;
        create or replace trigger busy before delete on public.slots for each row execute function public.busy()`)
      const { calls } = await counted(async (tx) => {
        const { error } = await tx.execute('slots', 'delete', { where: { id: 1 } })
        if (error) throw error
      })
      await bed.admin`drop trigger busy on public.slots`
      expect(calls).toBe(3)
    })

    test.each<[string, (tx: ManagedTx) => Promise<unknown>]>([
      ['a violated key', (tx) => tx.query(sql`insert into public.slots values (1)`)],
      ['an error that calls itself retryable', () => {
        throw new HoldfastError('SERVICE_UNAVAILABLE', 'The provider is away')
      }],
      ['a conflict that the work answers with an error of its own', (tx) =>
        tx.query(conflict).catch(() => {
          throw new Error('busy, and that is the answer')
        })],
      ['a lost connection', async (tx) => {
        await tx.query(sql`select pg_terminate_backend(pg_backend_pid())`)
      }],
    ])('never runs again after %s', async (_, work) => {
      expect(await counted(work)).toMatchObject({ calls: 1, error: expect.any(Error) })
    })

    test('waits between two attempts, longer each time, by a random part of it', async () => {
      const asked: number[] = []
      const slow = createTransactionManager(bed.open(), { random: () => (asked.push(1), 0.999) })
      const startedAt = performance.now()
      await expect(slow.run({ as: ada, attempts: 4 }, (tx) => tx.query(conflict))).rejects.toThrow()
      expect(asked).toHaveLength(3)
      expect(performance.now() - startedAt).toBeGreaterThan(0.999 * (20 + 40 + 80))
    })

    test('stops waiting for the next attempt when its signal is aborted', async () => {
      const controller = new AbortController()
      const reason = new Error('gone')
      const slow = createTransactionManager(bed.open(), {
        random: () => (controller.abort(reason), 0.999),
      })
      await expect(slow.run({ as: ada, signal: controller.signal }, (tx) => tx.query(conflict))).rejects.toBe(
        reason,
      )
    })
  })

  describe('lock()', () => {
    const deadlocks = async () =>
      (await bed.admin`select deadlocks::int as n from pg_stat_database where datname = current_database()`)[
        0
      ]!.n

    test('in opposite orders never deadlocks', async () => {
      const before = await deadlocks()
      const attempts = await Promise.all(
        Array.from({ length: 24 }, (_, i) =>
          manager.run({ as: ada, attempts: 1 }, async (tx) => {
            const keys = ['a', 'b', 'c', 'd']
            await tx.lock(...(i % 2 === 0 ? keys : keys.reverse()))
            await tx.query(add(1))
            return tx.attempt
          })),
      )
      expect([attempts.length, await slot(1), await deadlocks()]).toEqual([24, 24, before])
    })

    test('is held to the end, and by one at a time', async () => {
      const events: string[] = []
      let second: Promise<void> | undefined
      await manager.run({ as: ada }, async (tx) => {
        await tx.lock('order 7')
        second = manager.run({ as: grace }, async (other) => {
          await other.lock('order 7', 'order 8')
          events.push('second')
        })
        await waitFor(
          async () =>
            (await bed.admin`select from pg_locks where locktype = 'advisory' and not granted`).count === 1,
          {
            what: 'the second to wait',
          },
        )
        events.push('first')
      })
      await second
      expect(events).toEqual(['first', 'second'])
    })

    test('takes any text, twice if need be, and none', async () => {
      await manager.run({ as: ada }, async (tx) => {
        await tx.lock('a', 'a', '"; drop table', '', '{curly,}', 'snow \u2603', 'null')
        await tx.lock()
        const rows = await tx.query(
          sql`select from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'`,
        )
        expect(rows).toHaveLength(1 + 6)
      })
    })
  })
})

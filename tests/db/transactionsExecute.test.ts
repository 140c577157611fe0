/** execute() of a transaction: each operation, and what it refuses, on a real server. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { ManagedTx } from '../../supabase/functions/_shared/db/transactionManager.ts'
import { onEachPostgres } from '../support/database.ts'
import { ada, adaId, type TransactionBed, transactionBed } from '../support/transactions.ts'

onEachPostgres('execute()', (pg) => {
  let bed: TransactionBed

  const run = <T>(work: (tx: ManagedTx) => Promise<T>) => bed.manager.run({ as: ada }, work)
  const count = async () => (await bed.admin`select from public.notes`).count

  beforeAll(async () => {
    bed = await transactionBed(pg.major)
    await bed.admin.unsafe(`
      create schema shop;
      grant usage on schema shop to authenticated;
      create type shop.mood as enum ('happy', 'so so');
      create domain shop.tags as text[];
      create table shop.things (
        id integer primary key, mood shop.mood, moods shop.mood[], tags shop.tags, grid integer[], parts jsonb[],
        doc json, bytes bytea, flag boolean, fixed char(3), amount numeric, day date, note text default 'given'
      );
      grant all on shop.things to authenticated;
      create table public.users (id bigint generated always as identity primary key, name text, email text);
      grant insert (name, email) on public.users to authenticated;`)
  })

  beforeEach(async () => {
    await bed.admin`truncate public.notes, shop.things, public.users`
    await bed.admin`insert into public.notes (author, name, size) select ${adaId}, 'note ' || n, n
      from generate_series(1, 3) as n`
  })

  describe('insert', () => {
    test('of an object gives its row', async () => {
      const result = await run((tx) => tx.execute('notes', 'insert', { name: 'one', labels: ['a', 'b "c"'] }))
      expect(result).toMatchObject({
        success: true,
        data: { name: 'one', author: adaId, labels: ['a', 'b "c"'] },
        error: null,
      })
    })

    test('of a list gives all rows, and leaves what a row does not set to its default', async () => {
      const { data } = await run((tx) =>
        tx.execute('shop.things', 'insert', [{ id: 1, flag: true }, { id: 2, note: 'own' }, {
          id: 3,
          note: null,
        }])
      )
      expect(data).toMatchObject([
        { id: 1, flag: true, note: 'given' },
        { id: 2, flag: null, note: 'own' },
        { id: 3, flag: null, note: null },
      ])
    })

    test('of an empty list changes nothing', async () => {
      const result = await run((tx) => tx.execute('notes', 'insert', []))
      expect(result).toMatchObject({ success: true, data: [] })
    })

    test('of an empty object is a row of defaults', async () => {
      await bed.admin`grant select on public.users to authenticated`
      const result = await run((tx) => tx.execute('users', 'insert', {}))
      await bed.admin`revoke select on public.users from authenticated`
      expect(result.data).toMatchObject({ name: null })
    })

    test('by a caller who may write and not read gives nothing back when told so', async () => {
      const results = await run(async (tx) => [
        await tx.execute('users', 'insert', { name: 'x' }),
        await tx.execute('users', 'insert', { name: 'Ada' }, { returning: false }),
      ])
      expect(results).toMatchObject([
        { success: false, error: { code: 'FORBIDDEN' } },
        { success: true, data: null },
      ])
      expect(await bed.admin`select name from public.users`).toEqual([{ name: 'Ada' }])
    })

    test.each<[string, Record<string, unknown>, Record<string, unknown>?]>([
      ['an enumeration', { mood: 'so so' }],
      ['an array of an enumeration', { moods: ['happy', 'so so'] }],
      ['a domain over an array', { tags: ['x', '{y}', 'null', ''] }],
      ['an array of arrays', { grid: [[1, 2], [3, 4]] }],
      ['an array with a null', { grid: [1, null, 3] }],
      ['an array of JSON', { parts: [{ a: [1] }, 'text', [2], null] }],
      ['a JSON object', { doc: { deep: { list: [1, 'two', null] } } }],
      ['a JSON text, which stays a text', { doc: '{"not":"parsed"}' }],
      ['a JSON array', { doc: [1, 2] }],
      ['false', { flag: false }],
      ['a fixed length', { fixed: 'abc' }],
      ['a hostile text', { note: `'; drop table shop.things; -- "` }],
      ['a bigint', { amount: 12345678901234567890n }, { amount: '12345678901234567890' }],
      ['bytes', { bytes: new Uint8Array([0, 255]) }, { bytes: Buffer.from([0, 255]) }],
    ])('takes %s', async (_, data, expected = data) => {
      const result = await run((tx) => tx.execute('shop.things', 'insert', { id: 1, ...data }))
      const [stored] = await bed.admin`
        select to_jsonb(t) as row, bytes, amount from shop.things as t`
      const row = { ...stored!.row, bytes: stored!.bytes, amount: stored!.amount }
      const [key = ''] = Object.keys(data)
      expect(result.error).toBeNull()
      expect(row[key]).toEqual(expected[key])
      // And so it comes back.
      if (key !== 'bytes') expect((result.data as Record<string, unknown>)[key]).toEqual(expected[key])
    })

    test('refuses what is too long instead of cutting it', async () => {
      const result = await run((tx) => tx.execute('notes', 'insert', { name: 'long', code: 'abcd' }))
      expect(result).toMatchObject({ success: false, error: { sqlState: '22001' } })
      expect(await count()).toBe(3)
    })
  })

  describe('upsert', () => {
    test('inserts what is new and changes what is there', async () => {
      const { data } = await run((tx) =>
        tx.execute('notes', 'upsert', [{ name: 'note 1', size: 10 }, { name: 'new', size: 11 }], {
          onConflict: ['name'],
        })
      )
      expect(data).toMatchObject([{ name: 'note 1', size: 10 }, { name: 'new', size: 11 }])
      expect(await count()).toBe(4)
    })

    test('of the key alone gives the row that is there', async () => {
      const { data } = await run((tx) =>
        tx.execute('notes', 'upsert', { name: 'note 2' }, { onConflict: ['name'] })
      )
      expect(data).toMatchObject({ name: 'note 2', size: 2 })
    })

    test.each([
      ['no onConflict', {}, [{ name: 'a' }]],
      ['an empty one', { onConflict: [] }, [{ name: 'a' }]],
      ['rows that set different columns', { onConflict: ['name'] }, [{ name: 'a', size: 1 }, { name: 'b' }]],
    ])('refuses %s', async (_, options, rows) => {
      const result = await run((tx) =>
        tx.execute('notes', 'upsert', rows, options as { onConflict: string[] })
      )
      expect(result.error).toMatchObject({ code: 'VALIDATION_ERROR' })
    })
  })

  describe('update and delete', () => {
    test('change what the filter finds, and give it back', async () => {
      const [updated, deleted] = await run(async (tx) => [
        await tx.execute('notes', 'update', { size: null, meta: { a: 1 } }, { where: { name: 'note 1' } }),
        await tx.execute('notes', 'delete', {
          where: { name: ['note 2', 'note 3', 'none'] },
          returning: ['name'],
        }),
      ])
      expect(updated!.data).toMatchObject([{ name: 'note 1', size: null, meta: { a: 1 } }])
      expect(deleted!.data).toEqual([{ name: 'note 2' }, { name: 'note 3' }])
      expect(await bed.notes()).toEqual(['note 1'])
    })

    const filters: [string, unknown][] = [
      ['no options', undefined],
      ['no filter', {}],
      ['an empty filter', { where: {} }],
      ['a filter that is null', { where: null }],
      ['a list for a filter', { where: [] }],
      ['a filter by an undefined value', { where: { name: undefined } }],
      ['an undefined value beside another', { where: { size: 1, name: undefined } }],
    ]

    test.each(filters)('refuse %s, and change nothing', async (_, options) => {
      const results = await run(async (tx) => [
        await tx.execute('notes', 'update', { size: 0 }, options as { where: Record<string, unknown> }),
        await tx.execute('notes', 'delete', options as { where: Record<string, unknown> }),
      ])
      for (const { success, error } of results) {
        expect([success, error?.code, error?.status]).toEqual([false, 'FILTER_REQUIRED', 400])
      }
      expect(await bed.admin`select from public.notes where size > 0`).toHaveLength(3)
    })

    test('an update that sets nothing is refused', async () => {
      const result = await run((tx) =>
        tx.execute('notes', 'update', { size: undefined }, { where: { size: 1 } })
      )
      expect(result.error).toMatchObject({ code: 'VALIDATION_ERROR' })
    })
  })

  describe('select', () => {
    test.each([
      ['null', { labels: null }, []],
      ['a value', { size: 2 }, [2]],
      ['any of a list', { size: [1, 3] }, [1, 3]],
      ['any of a list with null in it', { meta: [null] }, [1, 2, 3]],
      ['an empty list', { size: [] }, []],
      ['an array as a whole', { labels: [] }, [1, 2, 3]],
      ['several, which must all hold', { size: [1, 2], name: 'note 2' }, [2]],
      ['nothing', {}, [1, 2, 3]],
    ])('filters by %s', async (_, where, sizes) => {
      const { data } = await run((tx) => tx.execute('notes', 'select', { where, orderBy: { size: 'asc' } }))
      expect(data?.map((row) => row.size)).toEqual(sizes)
    })

    test('takes columns, an order and a limit', async () => {
      const { data } = await run((tx) =>
        tx.execute('notes', 'select', { columns: ['name', 'size'], orderBy: { size: 'desc' }, limit: 2 })
      )
      expect(data).toEqual([{ name: 'note 3', size: 3 }, { name: 'note 2', size: 2 }])
    })

    test.each([
      ['a limit that is no whole number', { limit: 1.5 }, 'VALIDATION_ERROR'],
      ['a negative limit', { limit: -1 }, 'VALIDATION_ERROR'],
      ['NaN', { limit: Number.NaN }, 'VALIDATION_ERROR'],
      [
        'SQL as a direction',
        { orderBy: { size: 'asc; drop table public.notes' as 'asc' } },
        'VALIDATION_ERROR',
      ],
      ['an undefined value', { where: { size: undefined } }, 'FILTER_REQUIRED'],
    ])('refuses %s', async (_, options, code) => {
      const result = await run((tx) => tx.execute('notes', 'select', options))
      expect(result.error?.code).toBe(code)
    })
  })
})

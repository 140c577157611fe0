/** Names of tables and columns in execute(): taken as they are, from the live schema, or refused. */
import { beforeAll, beforeEach, expect, test } from 'vitest'
import {
  createTransactionManager,
  type ManagedTx,
} from '../../supabase/functions/_shared/db/transactionManager.ts'
import { onEachPostgres } from '../support/database.ts'
import { ada, adaId, type TransactionBed, transactionBed } from '../support/transactions.ts'

onEachPostgres('names', (pg) => {
  let bed: TransactionBed

  const run = <T>(work: (tx: ManagedTx) => Promise<T>) => bed.manager.run({ as: ada }, work)
  const count = async () => (await bed.admin`select from public.notes`).count

  beforeAll(async () => {
    bed = await transactionBed(pg.major)
    await bed.admin.unsafe(`
      create table public."weird ""name" (id integer primary key, "a ""column" text, "größe ☃" text, "select" text);
      grant all on public."weird ""name" to authenticated;
      create table public.${'n'.repeat(63)} (id integer, ${'c'.repeat(63)} integer);
      grant all on public.${'n'.repeat(63)} to authenticated;
      create schema shop;
      grant usage on schema shop to authenticated;
      create table shop.things (id integer primary key);
      grant all on shop.things to authenticated;
      create table shop.secret (id integer);
      create table public.users (id bigint generated always as identity primary key, name text, email text);
      grant insert (name, email) on public.users to authenticated;`)
  })

  beforeEach(async () => {
    await bed.admin`truncate public.notes`
    await bed.admin`insert into public.notes (author, name, size) select ${adaId}, 'note ' || n, n
      from generate_series(1, 3) as n`
  })

  test('are quoted, whatever they hold', async () => {
    const { data } = await run((tx) =>
      tx.execute('weird "name', 'insert', { 'id': 1, 'a "column': 'x', 'größe ☃': 'y', 'select': 'z' })
    )
    expect(data).toEqual({ 'id': 1, 'a "column': 'x', 'größe ☃': 'y', 'select': 'z' })
  })

  const hostile = [
    'notes; drop table public.notes',
    'notes" ; drop table public.notes; --',
    'public.notes.name',
    '"notes"',
    'Notes',
    'ноты',
    `${'n'.repeat(64)}`,
    `${'ö'.repeat(32)}`,
    'notes\0',
    '',
    '.',
    'public.',
    '.notes',
    'pg_catalog.pg_authid',
    'pg_toast.pg_toast_1255',
    'information_schema.tables',
    'nowhere.notes',
  ]

  test.each(hostile)('of a table that is not there are UNKNOWN_TABLE: %j', async (name) => {
    const result = await run((tx) => tx.execute(name, 'delete', { where: { id: 1 } }))
    expect(result).toMatchObject({ success: false, error: { code: 'UNKNOWN_TABLE', status: 400 } })
    expect(await count()).toBe(3)
  })

  const columns = [
    'ctid',
    'xmin',
    'tableoid',
    'name"; drop table public.notes; --',
    'Name',
    'n'.repeat(64),
    'имя',
    '',
    'name\0',
    '__proto__',
    'constructor',
  ]

  test.each(columns)('of a column that is not there are UNKNOWN_COLUMN: %j', async (name) => {
    const record = (value: unknown) => Object.fromEntries([[name, value]])
    const results = await run(async (tx) => [
      await tx.execute('notes', 'insert', record('x')),
      await tx.execute('notes', 'update', record('x'), { where: { size: 1 } }),
      await tx.execute('notes', 'update', { size: 9 }, { where: record('x') }),
      await tx.execute('notes', 'update', { size: 9 }, { where: { size: 1 }, returning: [name] }),
      await tx.execute('notes', 'upsert', { name: 'x' }, { onConflict: [name] }),
      await tx.execute('notes', 'delete', { where: record('x') }),
      await tx.execute('notes', 'select', { columns: [name] }),
      await tx.execute('notes', 'select', { orderBy: record('asc') as Record<string, 'asc'> }),
    ])
    expect(results.map(({ error }) => error?.code)).toEqual(Array(8).fill('UNKNOWN_COLUMN'))
    expect(await bed.admin`select from public.notes where size < 4`).toHaveLength(3)
  })

  test('of 64 characters are not cut to find what has 63', async () => {
    const [table, column, exact] = await run(async (tx) => [
      await tx.execute('n'.repeat(64), 'select'),
      await tx.execute('n'.repeat(63), 'select', { columns: ['c'.repeat(64)] }),
      await tx.execute('n'.repeat(63), 'select', { columns: ['c'.repeat(63)] }),
    ])
    expect([table!.error?.code, column!.error?.code, exact!.data]).toEqual([
      'UNKNOWN_TABLE',
      'UNKNOWN_COLUMN',
      [],
    ])
  })

  test('that are nearly right are told what is near, among what the caller may see', async () => {
    const messages = await run(async (tx) => [
      (await tx.execute('note', 'select')).error,
      (await tx.execute('thing', 'select')).error,
      (await tx.execute('shop.secrets', 'select')).error,
      (await tx.execute('notes', 'select', { columns: ['nam'] })).error,
      (await tx.execute('users', 'select', { columns: ['ids'] })).error,
    ])
    expect(messages.map((error) => error?.details)).toEqual([
      { near: ['notes'] },
      undefined,
      undefined,
      { near: ['name'] },
      undefined,
    ])
  })

  test('of a column that a migration has added since are found', async () => {
    await run((tx) => tx.execute('notes', 'select'))
    await bed.admin`alter table public.notes add column fresh text`
    const { data } = await run((tx) => tx.execute('notes', 'update', { fresh: 'x' }, { where: { size: 1 } }))
    expect(data).toMatchObject([{ fresh: 'x' }])
    await bed.admin`alter table public.notes drop column fresh`
    const late = await run(async (tx) => [
      await tx.execute('notes', 'update', { fresh: 'x' }, { where: { size: 1 } }),
      await tx.execute('notes', 'update', { size: 7 }, { where: { size: 1 } }),
    ])
    expect(late).toMatchObject([{ error: { code: 'UNKNOWN_COLUMN' } }, { success: true }])
  })

  test('are looked up once, in one trip', async () => {
    const manager = createTransactionManager(bed.db)
    const trips = async () =>
      (await bed.proxy.measure(() => manager.run({ as: ada }, (tx) => tx.execute('shop.things', 'select'))))
        .counts.roundTrips
    const known = await trips()
    await bed.admin`create table public.unknown_yet (id integer)`
    await bed.admin`grant select on public.unknown_yet to authenticated`
    const first = (await bed.proxy.measure(() =>
      manager.run({ as: ada }, (tx) => tx.execute('unknown_yet', 'select'))
    )).counts.roundTrips
    expect([first, await trips()]).toEqual([3, 2])
    expect(known).toBeLessThanOrEqual(3)
  })
})

/** Input that nobody should send, at every public face: each gets its documented error, and nothing is written. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { createDb, type Db, sql } from '../../supabase/functions/_shared/db/client.ts'
import {
  createTransactionManager,
  type TransactionManager,
} from '../../supabase/functions/_shared/db/transactionManager.ts'
import { newUser, type SignedIn } from '../support/client.ts'
import { type FreshDatabase, freshDatabase } from '../support/database.ts'
import { orderOf, provider, shopState } from '../support/shop.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

const hostileNames = [
  ['SQL', '"; drop table notes; --'],
  ['SQL behind a quote', 'notes"; drop table "notes'],
  ['a comment', 'notes/**/'],
  ['a cast', 'notes::text'],
  ['other letters', 'nöten'],
  ['letters that look alike', 'nоtes'],
  ['a letter of two code points', 'note\u0301s'],
  ['64 characters', 'n'.repeat(64)],
  ['63 characters that take 126 bytes', 'ö'.repeat(63)],
  ['a megabyte', 'n'.repeat(1_000_000)],
  ['nothing', ''],
  ['a space', ' notes'],
  ['capitals', 'NOTES'],
  ['a zero byte', 'notes\0'],
  ['half a surrogate pair', 'notes\ud800'],
  ['a name that every object has', '__proto__'],
  ['a name that every function has', 'constructor'],
] as const

describe('the transaction manager', () => {
  let database: FreshDatabase
  let admin: Sql
  let proxy: WireProxy
  let db: Db
  let manager: TransactionManager
  const as = { service: 'bad input' }
  const all = () => admin`select text from public.notes order by text`

  beforeAll(async () => {
    database = await freshDatabase()
    admin = openSql(database.adminUrl)
    await admin`create table public.notes (text text not null)`
    await admin`insert into public.notes values ('kept')`
    await admin`grant all on public.notes to service_role`
    proxy = startWireProxy({ target: database.url })
    db = createDb({ url: proxy.url })
    manager = createTransactionManager(db, { functionName: 'badInput' })
  })

  afterAll(async () => {
    await db.close()
    await proxy.close()
  })

  test.each(
    [
      ...hostileNames,
      ['a system table', 'pg_catalog.pg_authid'],
      ['a system view', 'information_schema.tables'],
      ['a table that no longer is', 'public.gone'],
      ['three parts', 'postgres.public.notes'],
    ] as const,
  )('knows no table named with %s, and goes on', async (_, name) => {
    await manager.run({ as }, async (tx) => {
      const results = [
        await tx.execute(name, 'insert', { text: 'lost' }),
        await tx.execute(name, 'upsert', { text: 'lost' }, { onConflict: ['text'] }),
        await tx.execute(name, 'update', { text: 'lost' }, { where: { text: 'kept' } }),
        await tx.execute(name, 'delete', { where: { text: 'kept' } }),
        await tx.execute(name, 'select', { where: { text: 'kept' } }),
      ]
      expect(results.map(({ success, error }) => [success, error?.code]))
        .toEqual(Array(5).fill([false, 'UNKNOWN_TABLE']))
      expect(JSON.stringify(results.map(({ error }) => error?.message)).length).toBeLessThan(5_000)
    })
    expect(await all()).toEqual([{ text: 'kept' }])
  })

  test.each(
    [
      ...hostileNames,
      ['a row’s place', 'ctid'],
      ['a row’s transaction', 'xmin'],
      ['the table’s number', 'tableoid'],
    ] as const,
  )('knows no column named with %s, and goes on', async (_, name) => {
    const named = Object.fromEntries([[name, 'x']])
    await manager.run({ as }, async (tx) => {
      const results = [
        await tx.execute('notes', 'insert', { text: 'lost', ...named }),
        await tx.execute('notes', 'insert', { text: 'lost' }, { returning: [name] }),
        await tx.execute('notes', 'upsert', { text: 'lost' }, { onConflict: [name] }),
        await tx.execute('notes', 'update', named, { where: { text: 'kept' } }),
        await tx.execute('notes', 'delete', { where: named }),
        await tx.execute('notes', 'select', { columns: [name] }),
        await tx.execute('notes', 'select', { orderBy: Object.fromEntries([[name, 'asc' as const]]) }),
      ]
      expect(results.map(({ success, error }) => [success, error?.code]))
        .toEqual(Array(7).fill([false, 'UNKNOWN_COLUMN']))
    })
    expect(await all()).toEqual([{ text: 'kept' }])
  })

  test('finds tables and columns whose real names are hostile', async () => {
    const [table, column] = ['"; drop table notes; --', 'q"uo\'te; ö']
    await admin`create table public.${admin(table)} (${admin(column)} text)`
    await admin`grant all on public.${admin(table)} to service_role`
    await manager.run({ as }, async (tx) => {
      const { data, error } = await tx.execute(table, 'insert', { [column]: column })
      expect([data, error]).toEqual([{ [column]: column }, null])
    })
    expect(await all()).toEqual([{ text: 'kept' }])
  })

  test.each([NaN, Infinity, -Infinity, 0, -1, 2 ** 31, Number.MAX_SAFE_INTEGER])(
    'refuses a timeout of %d ms before anything is sent',
    async (timeoutMs) => {
      proxy.reset()
      let ran = false
      const running = manager.run({ as, timeoutMs }, async (tx) => {
        ran = true
        await tx.query(sql`insert into public.notes values ('lost')`)
      })
      await expect(running).rejects.toThrow(RangeError)
      await expect(manager.begin({ as, timeoutMs })).rejects.toThrow(RangeError)
      expect([ran, proxy.counts().bytesUp, manager.getActiveTransactions()]).toEqual([false, 0, []])
      expect(await all()).toEqual([{ text: 'kept' }])
    },
  )
})

describe('POST /orders', () => {
  let stack: TestStack
  let admin: Sql
  let customer: SignedIn
  let payments: ReturnType<typeof provider>
  let before: unknown
  const body = orderOf({ 'ROPE-10': 1 })

  beforeAll(async () => {
    stack = await testStack()
    admin = openSql(stack.db.adminUrl)
    payments = provider(stack)
    customer = await newUser(stack)
  })

  beforeEach(async () => {
    before = await everything()
  })

  const everything = async () => ({
    ...await shopState(admin),
    charges: await payments.charges(),
    keys: await admin`select count(*) from holdfast.idempotency_keys`,
  })
  test.each([
    ['256 characters', 'k'.repeat(256)],
    ['256 characters in quotes', `"${'k'.repeat(256)}"`],
    ['two names with a comma', 'one, two'],
    ['an empty string', '""'],
    ['an open quote', '"key'],
    ['a letter outside ASCII', 'schlüssel'],
  ])('refuses a key of %s', async (_, key) => {
    expect(await place([key])).toEqual([400, 'IDEMPOTENCY_KEY_INVALID'])
    expect(await everything()).toEqual(before)
  })

  test.each([['one', 'two'], ['same', 'same']])('refuses two key headers, %s and %s', async (...keys) => {
    expect(await place(keys)).toEqual([400, 'IDEMPOTENCY_KEY_INVALID'])
    expect(await everything()).toEqual(before)
  })

  test('asks for a key where there is none', async () => {
    expect(await place([])).toEqual([400, 'IDEMPOTENCY_KEY_REQUIRED'])
    expect(await everything()).toEqual(before)
  })

  test.each([
    ['quantity', orderOf({ 'ROPE-10': 2 })],
    ['sku', orderOf({ 'ROPE-11': 1 })],
    ['token', orderOf({ 'ROPE-10': 1 }, 'tok_vis4')],
  ])('refuses a key of 255 characters that was used for another %s', async (_, other) => {
    const key = crypto.randomUUID().padEnd(255, 'k')
    expect(await place([key])).toEqual([201, undefined])
    const after = await everything()
    expect(await place([key], other)).toEqual([422, 'IDEMPOTENCY_KEY_REUSED'])
    expect(await everything()).toEqual(after)
  })

  /** Each key in a line of its own, as no HTTP client sends them. Gives the status, and the code of a refusal. */
  async function place(keys: string[], order: unknown = body): Promise<[number, string | undefined]> {
    const text = JSON.stringify(order)
    const head = [
      'POST /functions/v1/orders HTTP/1.1',
      'host: 127.0.0.1',
      'connection: close',
      `apikey: ${localKeys.publishable}`,
      `authorization: Bearer ${customer.accessToken}`,
      'content-type: application/json',
      `content-length: ${text.length}`,
      ...keys.map((key) => `idempotency-key: ${key}`),
    ]
    const connection = await Deno.connect({ hostname: '127.0.0.1', port: stack.port })
    await connection.write(new TextEncoder().encode(`${head.join('\r\n')}\r\n\r\n${text}`))
    // Reading to the end closes it.
    const answer = await new Response(connection.readable).text()
    return [Number(answer.split(' ')[1]), /"code":"(\w+)"/.exec(answer)?.[1]]
  }
})

/** audit.enable and audit.disable: what stays out of the trail, who may call them, and calling them again and again. */
import { beforeAll, describe, expect, test } from 'vitest'
import { changesOf, gaps, recorded } from '../support/auditProbe.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { asCaller, openSql, type Sql, user } from '../support/sql.ts'

onEachPostgres('audit.enable()', (pg) => {
  let admin: Sql
  let sql: Sql
  let made = 0

  beforeAll(async () => {
    const database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    sql = openSql(database.url)
  })

  /** A table with secrets, in a schema whose tables nobody enables by themselves. */
  async function vault(): Promise<string> {
    const table = `vaults.vault_${++made}`
    await sql`create schema if not exists vaults`
    await sql.unsafe(`
      create table ${table} (id int primary key, name text, password_hash text, seen_at timestamptz, n int default 0)`)
    return table
  }

  test('records nothing that was before it, and everything after', async () => {
    const table = await vault()
    await sql.unsafe(`insert into ${table} (id) values (1)`)
    await sql`select audit.enable(${table})`
    await sql.unsafe(`insert into ${table} (id) values (2)`)
    expect((await recorded(admin, table)).map(({ key }) => key)).toEqual(['2'])
  })

  test('masks what sounds like a secret: that it changed is told, and nothing of what it was', async () => {
    const table = await vault()
    await sql`select audit.enable(${table})`
    await sql.unsafe(`
      insert into ${table} (id, password_hash) values (1, 'first secret'), (2, null);
      update ${table} set password_hash = 'second secret' where id = 1;
      update ${table} set password_hash = 'third secret';
      update ${table} set n = 1, password_hash = null where id = 1;
      update ${table} set n = 2;
      delete from ${table}`)
    const changes = await changesOf(admin, table)
    expect(JSON.stringify(changes)).not.toContain('secret')
    expect(changes).toEqual([
      ['INSERT', '1', { new: { id: 1, name: null, password_hash: '***', seen_at: null, n: 0 } }],
      ['INSERT', '2', { new: { id: 2, name: null, password_hash: null, seen_at: null, n: 0 } }],
      ['UPDATE', '1', { old: { password_hash: '***' }, new: { id: 1, password_hash: '***' } }],
      ['UPDATE', '2', { old: { password_hash: null }, new: { id: 2, password_hash: '***' } }],
      ['UPDATE', '1', { old: { password_hash: '***' }, new: { id: 1, password_hash: '***' } }],
      ['UPDATE', '1', { old: { password_hash: '***', n: 0 }, new: { id: 1, password_hash: null, n: 1 } }],
      ['UPDATE', '2', { old: { n: 0 }, new: { id: 2, n: 2 } }],
      ['UPDATE', '1', { old: { n: 1 }, new: { id: 1, n: 2 } }],
      ['DELETE', '2', { old: { id: 2, name: null, password_hash: '***', seen_at: null, n: 2 } }],
      ['DELETE', '1', { old: { id: 1, name: null, password_hash: null, seen_at: null, n: 2 } }],
    ])
  })

  test.each([
    'token',
    'api_key',
    'apiKey',
    'client_secret',
    'Passphrase',
    'encrypted_password',
    'private_key',
  ])(
    'takes %s for a secret',
    async (column) => {
      const table = `vaults.vault_${++made}`
      await sql`create schema if not exists vaults`
      await sql.unsafe(`create table ${table} (id int primary key, "${column}" text)`)
      await sql`select audit.enable(${table})`
      await sql.unsafe(`insert into ${table} values (1, 'secret')`)
      expect((await recorded(admin, table))[0]!.details.row.new[column]).toBe('***')
    },
  )

  test('leaves columns out altogether, and an UPDATE of nothing else', async () => {
    const table = await vault()
    await sql`select audit.enable(${table}, p_leave_out => '{seen_at}', p_mask => '{name}')`
    await sql.unsafe(`
      insert into ${table} (id, name, password_hash, seen_at) values (1, 'Ada', 'shown', '2026-01-01'), (2, 'Bob', 'shown', '2026-01-01');
      update ${table} set seen_at = '2026-02-02' where id = 1;
      update ${table} set seen_at = '2026-03-03';
      update ${table} set seen_at = '2026-04-04', n = 5 where id = 2;
      update ${table} set name = 'Bea', seen_at = '2026-05-05' where id = 2;
      delete from ${table} where id = 1`)
    const changes = await changesOf(admin, table)
    expect(JSON.stringify(changes)).not.toMatch(/seen_at|2026|Ada|Bob|Bea/)
    expect(changes.slice(2)).toEqual([
      ['UPDATE', '2', { old: { n: 0 }, new: { id: 2, n: 5 } }],
      ['UPDATE', '2', { old: { name: '***' }, new: { id: 2, name: '***' } }],
      ['DELETE', '1', { old: { id: 1, name: '***', password_hash: 'shown', n: 0 } }],
    ])
  })

  test('keeps secrets out of whole rows too, and tells that they changed', async () => {
    const table = await vault()
    await sql`select audit.enable(${table}, p_leave_out => '{seen_at}', p_whole_row => true)`
    await sql.unsafe(`
      insert into ${table} (id, password_hash) values (1, 'secret'), (2, 'secret');
      update ${table} set n = 1 where id = 1;
      update ${table} set password_hash = 'another secret'`)
    const changes = await recorded(admin, table)
    expect(JSON.stringify(changes)).not.toMatch(/secret|seen_at/)
    const row = (id: number, n: number) => ({ id, name: null, password_hash: '***', n })
    expect(changes.slice(2).map(({ details }) => details.row)).toEqual([
      { old: row(1, 0), new: row(1, 1) },
      { old: row(2, 0), new: row(2, 0) },
      { old: row(1, 1), new: row(1, 1) },
    ])
  })

  test('may be called again with nothing, and with other options', async () => {
    const table = await vault()
    const options = async () =>
      (await admin`
        select leave_out, mask, whole_row, enabled from audit.tables where table_oid = ${table}::regclass`)[0]
    await sql`select audit.enable(${table}, p_leave_out => '{seen_at}', p_whole_row => true)`
    const first = { leave_out: ['seen_at'], mask: null, whole_row: true, enabled: true }
    expect(await options()).toEqual(first)
    await sql`select audit.enable(${table})`
    expect(await options()).toEqual(first)
    await sql.unsafe(`insert into ${table} (id) values (1)`)
    expect(await recorded(admin, table)).toHaveLength(1)
    await sql`select audit.enable(${table}, p_leave_out => '{}', p_mask => '{}', p_whole_row => false)`
    await sql.unsafe(`update ${table} set password_hash = 'open', seen_at = '2026-01-01 00:00+00'`)
    expect((await recorded(admin, table)).at(-1)!.details.row).toEqual({
      old: { password_hash: null, seen_at: null },
      new: { id: 1, password_hash: 'open', seen_at: expect.stringContaining('2026') },
    })
  })

  test('comes after audit.disable() with the options of before, and both may be called twice', async () => {
    const table = await vault()
    await sql`select audit.disable(${table})`
    await sql`select audit.enable(${table}, p_leave_out => '{seen_at}')`
    await sql`select audit.disable(${table})`
    await sql`select audit.disable(${table})`
    await sql.unsafe(`insert into ${table} (id) values (1)`)
    expect(await recorded(admin, table)).toEqual([])
    const left = await admin`
      select tgname from pg_trigger where tgrelid = ${table}::regclass and tgname like 'audit%'`
    expect(left).toHaveLength(0)
    await sql.unsafe(`alter table ${table} add column later int`)
    await sql.unsafe(`insert into ${table} (id) values (2)`)
    expect(await recorded(admin, table)).toEqual([])
    await sql`select audit.enable(${table})`
    await sql.unsafe(`insert into ${table} (id, seen_at) values (3, now())`)
    expect((await recorded(admin, table)).map(({ details }) => Object.keys(details.row.new))).toEqual([
      ['n', 'id', 'name', 'later', 'password_hash'],
    ])
    expect(await gaps(admin, table)).toEqual([])
  })

  describe('refuses, with words,', () => {
    beforeAll(async () => {
      await sql.unsafe(`
        create schema if not exists vaults;
        create table vaults.base (id int primary key, note text);
        create view vaults.seen as select * from vaults.base;
        create materialized view vaults.stored as select * from vaults.base;
        create sequence vaults.counter;
        create type vaults.pair as (a int)`)
      await admin.unsafe(`
        create foreign data wrapper nowhere;
        create server nowhere foreign data wrapper nowhere;
        create foreign table vaults.far (id int) server nowhere`)
    })

    test.each([
      'vaults.seen',
      'vaults.stored',
      'vaults.counter',
      'vaults.pair',
      'vaults.far',
      'audit.database_changes',
      'audit.gaps',
      'audit.tables',
      'pg_catalog.pg_class',
      'information_schema.sql_features',
    ])('%s', async (relation) => {
      const attempt = admin`select audit.enable(${relation})`
      await expect(attempt).rejects.toMatchObject({
        code: '42809',
        message: expect.stringMatching(/^Cannot audit \S+: it is no table/),
      })
    })

    test('a column that is not there', async () => {
      for (const option of [`p_leave_out => '{nothing}'`, `p_mask => '{note,nothing}'`]) {
        await expect(sql.unsafe(`select audit.enable('vaults.base', ${option})`)).rejects.toMatchObject({
          code: '42703',
          message: 'Cannot audit vaults.base: it has no column nothing',
        })
      }
    })

    test('to hide the key', async () => {
      for (const option of [`p_leave_out => '{id}'`, `p_mask => '{id}'`]) {
        await expect(sql.unsafe(`select audit.enable('vaults.base', ${option})`)).rejects.toMatchObject({
          code: '22023',
        })
      }
    })

    test('a table that is not there', async () => {
      await expect(sql`select audit.enable('vaults.nothing')`).rejects.toMatchObject({ code: '42P01' })
    })
  })

  test.each(
    [{ role: 'anon' }, user(crypto.randomUUID()), { role: 'service_role' }, {
      ...user(crypto.randomUUID(), { app_metadata: { role: 'admin' } }),
    }] as const,
  )(
    'is not for callers of the API, nor is anything else that decides what is audited: $role',
    async (caller) => {
      for (
        const call of [
          `audit.enable('public.orders')`,
          `audit.enable('public.orders', p_leave_out => '{status}')`,
          `audit.disable('public.orders')`,
          'audit.refresh()',
          'audit.make_partitions()',
          'audit.watch()',
          `audit.see_gaps('nothing to see')`,
          `audit.count_gap('public.orders', 'INSERT', '00000', 'noise')`,
          `audit.generate('public.orders')`,
          'audit.enable_platform()',
          'audit.writer()',
        ]
      ) {
        await expect(asCaller(sql, caller, (tx) => tx.unsafe(`select ${call}`)), call).rejects.toMatchObject({
          code: '42501',
        })
      }
    },
  )
})

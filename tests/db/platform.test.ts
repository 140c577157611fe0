/** What the local platform promises a migration: the roles, schemas and rights of a hosted project. */
import { beforeAll, describe, expect, test } from 'vitest'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { asCaller, openSql, type Sql, user } from '../support/sql.ts'

const insufficientPrivilege = { code: '42501' }

onEachPostgres('the platform', (pg) => {
  let sql: Sql
  let admin: Sql

  beforeAll(async () => {
    const db = await freshDatabase(pg.major)
    sql = openSql(db.url)
    admin = openSql(db.adminUrl)
  })

  describe('roles', () => {
    test.each([
      ['anon', { login: false, superuser: false, bypassRls: false, createRole: false, inherit: true }],
      ['authenticated', {
        login: false,
        superuser: false,
        bypassRls: false,
        createRole: false,
        inherit: true,
      }],
      ['service_role', { login: false, superuser: false, bypassRls: true, createRole: false, inherit: true }],
      ['authenticator', {
        login: true,
        superuser: false,
        bypassRls: false,
        createRole: false,
        inherit: false,
      }],
      ['postgres', { login: true, superuser: false, bypassRls: true, createRole: true, inherit: true }],
      ['supabase_admin', { superuser: true, bypassRls: true, createRole: true, inherit: true }],
      ['supabase_auth_admin', {
        login: true,
        superuser: false,
        bypassRls: false,
        createRole: true,
        inherit: false,
      }],
    ])('%s has the attributes of the hosted role', async (name, attributes) => {
      const [role] = await admin`
        select rolcanlogin as login, rolsuper as superuser, rolbypassrls as "bypassRls",
          rolcreaterole as "createRole", rolinherit as inherit
        from pg_roles where rolname = ${name}`
      expect(role).toMatchObject(attributes)
    })

    test('postgres may act as the API roles and see what monitors see', async () => {
      const rows = await sql<{ granted: string }[]>`
        select granted.rolname as granted from pg_auth_members
        join pg_roles as granted on granted.oid = roleid
        join pg_roles as member on member.oid = member
        where member.rolname = 'postgres'`
      expect(rows.map((row) => row.granted)).toEqual(expect.arrayContaining([
        'anon',
        'authenticated',
        'service_role',
        'pg_monitor',
        'pg_read_all_data',
        'pg_signal_backend',
      ]))
    })

    test('the API roles have the statement timeouts of a hosted project', async () => {
      const rows = await admin<{ name: string; settings: string[] }[]>`
        select rolname as name, rolconfig as settings from pg_roles
        where rolname in ('anon', 'authenticated', 'authenticator') order by rolname`
      expect(Object.fromEntries(rows.map((row) => [row.name, row.settings]))).toMatchObject({
        anon: expect.arrayContaining(['statement_timeout=3s']),
        authenticated: expect.arrayContaining(['statement_timeout=8s']),
        authenticator: expect.arrayContaining(['statement_timeout=8s', 'lock_timeout=8s']),
      })
    })
  })

  describe('postgres, which is no superuser,', () => {
    test('owns the database and may create in public', async () => {
      await sql`create table public.made_by_postgres (id bigint primary key)`
      const [row] = await sql`
        select pg_get_userbyid(datdba) as owner from pg_database where datname = current_database()`
      expect(row?.owner).toBe('postgres')
    })

    test.each([
      ['write jobs past cron.schedule()', `update cron.job set active = false`],
      ['read files of the server', `select pg_read_file('postgresql.conf')`],
      ['run programs on the server', `copy (select 1) to program 'true'`],
      ['become the superuser', 'set role supabase_admin'],
      ['create a superuser', 'create role mighty superuser'],
    ])('may not %s', async (_what, statement) => {
      await expect(sql.unsafe(statement)).rejects.toMatchObject(insufficientPrivilege)
    })
  })

  describe('a new table in public', () => {
    beforeAll(async () => {
      await sql`create table public.unexposed (id bigint generated always as identity primary key)`
      await sql`create function public.unexposed_count() returns bigint language sql
        as 'select count(*) from public.unexposed'`
    })

    test.each(['anon', 'authenticated', 'service_role'] as const)(
      'is closed to %s until it is granted',
      async (role) => {
        await expect(asCaller(sql, { role }, (tx) => tx`select from public.unexposed`))
          .rejects.toMatchObject(insufficientPrivilege)
        await expect(asCaller(sql, { role }, (tx) => tx`insert into public.unexposed default values`))
          .rejects.toMatchObject(insufficientPrivilege)
        await expect(asCaller(sql, { role }, (tx) => tx`create table public.made_by_api (id bigint)`))
          .rejects.toMatchObject(insufficientPrivilege)
      },
    )
  })

  describe('auth', () => {
    const id = '00000000-0000-4000-8000-000000000001'

    test('auth.uid(), auth.role(), auth.email() and auth.jwt() read the claims of the caller', async () => {
      const caller = user(id, { email: 'ada@example.com', app_metadata: { role: 'admin' } })
      const [row] = await asCaller(sql, caller, (tx) =>
        tx`
        select auth.uid() as uid, auth.role() as role, auth.email() as email,
          auth.jwt() -> 'app_metadata' ->> 'role' as "appRole"`)
      expect(row).toEqual({ uid: id, role: 'authenticated', email: 'ada@example.com', appRole: 'admin' })
    })

    test('without claims they are null, and empty claims are no error', async () => {
      const [nobody] = await sql`select auth.uid() as uid, auth.role() as role, auth.jwt() as jwt`
      expect(nobody).toEqual({ uid: null, role: null, jwt: null })
      const [empty] = await sql.begin(async (tx) => {
        await tx`select set_config('request.jwt.claims', '', true)`
        return await tx`select auth.uid() as uid, auth.jwt() as jwt`
      })
      expect(empty).toEqual({ uid: null, jwt: null })
    })

    test('claims are gone after their transaction', async () => {
      await asCaller(sql, user(id), (tx) => tx`select auth.uid()`)
      const [after] = await sql`select auth.uid() as uid, current_user as role`
      expect(after).toEqual({ uid: null, role: 'postgres' })
    })

    test.each(['anon', 'authenticated', 'service_role'] as const)(
      '%s may not read the users',
      async (role) => {
        await expect(asCaller(sql, { role }, (tx) => tx`select from auth.users`))
          .rejects.toMatchObject(insufficientPrivilege)
      },
    )

    test('a table of the application may refer to auth.users', async () => {
      await sql`create table public.profiles (id uuid primary key references auth.users (id) on delete cascade)`
    })
  })

  test('a change of the schema tells the API to read it again', async () => {
    const heard: string[] = []
    const listener = openSql(
      pg.adminUrl.replace(/\/postgres$/, `/${(await sql`select current_database()`)[0]?.current_database}`),
    )
    const { unlisten } = await listener.listen('pgrst', (payload) => heard.push(payload))
    await sql`create table public.announced (id bigint)`
    await sql`drop table public.announced`
    await sql`select pg_notify('pgrst', 'end')`
    await expect.poll(() => heard.at(-1)).toBe('end')
    expect(heard).toEqual(['reload schema', 'reload schema', 'end'])
    await unlisten()
  })
})

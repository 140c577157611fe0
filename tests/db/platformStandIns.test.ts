/** What stands in for pg_net and Supabase Vault: the interface of the hosted extension, and its rights. */
import { beforeAll, describe, expect, test } from 'vitest'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { asCaller, openSql, type Sql } from '../support/sql.ts'

const insufficientPrivilege = { code: '42501' }

onEachPostgres('the stand-ins', (pg) => {
  let sql: Sql

  beforeAll(async () => {
    sql = openSql((await freshDatabase(pg.major)).url)
  })

  async function signature(name: string): Promise<string[]> {
    const rows = await sql<{ signature: string }[]>`
      select pg_get_function_arguments(oid) || ' -> ' || pg_get_function_result(oid) as signature
      from pg_proc where oid::regproc::text = ${name}`
    return rows.map((row) => row.signature)
  }

  describe('pg_net', () => {
    test('functions have the signatures of the hosted extension', async () => {
      expect(await signature('net.http_post')).toEqual([
        `url text, body jsonb DEFAULT '{}'::jsonb, params jsonb DEFAULT '{}'::jsonb, ` +
        `headers jsonb DEFAULT '{"Content-Type": "application/json"}'::jsonb, ` +
        'timeout_milliseconds integer DEFAULT 5000 -> bigint',
      ])
      expect(await signature('net.http_get')).toEqual([
        `url text, params jsonb DEFAULT '{}'::jsonb, headers jsonb DEFAULT '{}'::jsonb, ` +
        'timeout_milliseconds integer DEFAULT 5000 -> bigint',
      ])
      expect(await signature('net.http_delete')).toHaveLength(1)
    })

    test('a migration that creates the extension finds it there', async () => {
      await sql`create extension if not exists pg_net`
    })

    test('a request is queued with its URL, headers and body', async () => {
      const [row] = await sql`
        select net.http_post(
          url := 'http://127.0.0.1:1/hook?a=1',
          body := '{"n": 1}',
          params := '{"b": "x y&z"}',
          headers := '{"Content-Type": "application/json", "x-key": "k"}'
        ) as id`
      const [queued] = await sql`
        select method, url, headers, convert_from(body, 'UTF8') as body, timeout_milliseconds
        from net.http_request_queue where id = ${row?.id}`
      expect(queued).toEqual({
        method: 'POST',
        url: 'http://127.0.0.1:1/hook?a=1&b=x%20y%26z',
        headers: { 'Content-Type': 'application/json', 'x-key': 'k' },
        body: '{"n": 1}',
        timeout_milliseconds: 5_000,
      })
    })

    test('a request of a transaction that is rolled back is never queued', async () => {
      const count = async () => Number((await sql`select count(*) as n from net.http_request_queue`)[0]?.n)
      const before = await count()
      await expect(sql.begin(async (tx) => {
        await tx`select net.http_get('http://127.0.0.1:1/')`
        throw new Error('rolled back')
      })).rejects.toThrow('rolled back')
      expect(await count()).toBe(before)
    })

    test('the API roles may queue a request and not read the queue', async () => {
      for (const role of ['anon', 'authenticated', 'service_role'] as const) {
        await asCaller(sql, { role }, (tx) => tx`select net.http_get('http://127.0.0.1:1/')`)
        await expect(asCaller(sql, { role }, (tx) => tx`select from net.http_request_queue`))
          .rejects.toMatchObject(insufficientPrivilege)
      }
    })
  })

  describe('Vault', () => {
    test('a secret is created, read and updated, and lies encrypted in its table', async () => {
      const [created] = await sql`select vault.create_secret('s3cret', 'project_key', 'for cron') as id`
      const read = async () =>
        (await sql`select decrypted_secret, name, description from vault.decrypted_secrets where id = ${created?.id}`)[
          0
        ]
      expect(await read()).toEqual({
        decrypted_secret: 's3cret',
        name: 'project_key',
        description: 'for cron',
      })
      await sql`select vault.update_secret(${created?.id}, 'n3w')`
      expect(await read()).toMatchObject({ decrypted_secret: 'n3w', name: 'project_key' })
      const [stored] = await sql`select secret from vault.secrets where id = ${created?.id}`
      expect(atob(stored?.secret)).not.toContain('n3w')
    })

    test('two secrets may not have one name', async () => {
      await sql`select vault.create_secret('a', 'unique_name')`
      await expect(sql`select vault.create_secret('b', 'unique_name')`).rejects.toMatchObject({
        code: '23505',
      })
    })

    test('functions have the signatures of the hosted extension', async () => {
      expect(await signature('vault.create_secret')).toEqual([
        `new_secret text, new_name text DEFAULT NULL::text, new_description text DEFAULT ''::text, ` +
        'new_key_id uuid DEFAULT NULL::uuid -> uuid',
      ])
      expect(await signature('vault.update_secret')).toEqual([
        'secret_id uuid, new_secret text DEFAULT NULL::text, new_name text DEFAULT NULL::text, ' +
        'new_description text DEFAULT NULL::text, new_key_id uuid DEFAULT NULL::uuid -> void',
      ])
    })

    test.each(['anon', 'authenticated'] as const)('%s may neither read nor create secrets', async (role) => {
      await expect(asCaller(sql, { role }, (tx) => tx`select from vault.decrypted_secrets`))
        .rejects.toMatchObject(insufficientPrivilege)
      await expect(asCaller(sql, { role }, (tx) => tx`select vault.create_secret('x')`))
        .rejects.toMatchObject(insufficientPrivilege)
    })

    test('service_role may use secrets and not see the key they are encrypted with', async () => {
      const service = { role: 'service_role' } as const
      await asCaller(sql, service, (tx) => tx`select vault.create_secret('of the service', 'service_secret')`)
      const [row] = await asCaller(sql, service, (tx) =>
        tx`
        select decrypted_secret from vault.decrypted_secrets where name = 'service_secret'`)
      expect(row?.decrypted_secret).toBe('of the service')
      await expect(asCaller(sql, service, (tx) => tx`select from vault.root_key`))
        .rejects.toMatchObject(insufficientPrivilege)
    })
  })
})

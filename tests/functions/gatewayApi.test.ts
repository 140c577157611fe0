import { decodeJwt, jwtVerify, SignJWT } from 'jose'
import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { demoUsers, localKeys } from '../../local/keys.ts'
import { fixtureProject } from '../fixtures/hostProject.ts'
import { testStack } from '../support/stack.ts'
import { waitFor } from '../support/wait.ts'

const stack = await testStack({ functions: fixtureProject.root })
const sql = postgres(stack.db.url, { max: 2, onnotice() {} })
const admin = postgres(stack.db.adminUrl, { max: 1, onnotice() {} })
afterAll(() => Promise.all([sql.end(), admin.end()]))
const secret = new TextEncoder().encode(localKeys.jwtSecret)

function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = { apikey: localKeys.publishable, 'content-type': 'application/json', ...init.headers }
  return fetch(`${stack.url}${path}`, { ...init, headers })
}

async function signIn(user: { email: string; password: string } = demoUsers[0]) {
  const response = await ask('/auth/v1/token?grant_type=password', {
    method: 'POST',
    body: JSON.stringify(user),
  })
  expect(response.status).toBe(200)
  return await response.json()
}

describe('a change of the schema', () => {
  test('is served after notify pgrst, without failing a request', async () => {
    let stop = false
    const failures: string[] = []
    const clients = Array.from({ length: 4 }, async () => {
      while (!stop) {
        const response = await ask('/rest/v1/products?limit=1')
        if (response.status >= 400) failures.push(`${response.status} ${await response.text()}`)
        else await response.body?.cancel()
      }
    })
    for (const round of [1, 2, 3]) {
      await sql.unsafe(`
        create table public.fresh_${round} (id integer primary key);
        grant select on public.fresh_${round} to anon;
        create function public.sum_${round}(a integer, b integer) returns integer language sql
            set search_path = '' as 'select a + b';
        grant execute on function public.sum_${round} to anon;
        notify pgrst, 'reload schema'`)
      await waitFor(async () => await statusOf(`/rest/v1/fresh_${round}`) === 200, { what: 'the new table' })
      const sum = await ask(`/rest/v1/rpc/sum_${round}`, {
        method: 'POST',
        body: JSON.stringify({ a: 1, b: round }),
      })
      expect(await sum.json()).toBe(1 + round)
    }
    stop = true
    await Promise.all(clients)
    expect(failures).toEqual([])
  })

  test('is noticed by itself, as hosted, and a dropped table is gone', async () => {
    await sql.unsafe(
      'create table public.passing (id integer primary key); grant select on public.passing to anon',
    )
    await waitFor(async () => await statusOf('/rest/v1/passing') === 200, { what: 'the table' })
    await sql.unsafe('drop table public.passing')
    await waitFor(async () => await statusOf('/rest/v1/passing') === 404, { what: 'the table to go' })
  })

  test('is noticed although the connection that listens was cut', async () => {
    const cut = await admin`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name = 'holdfast-schema'`
    expect(cut.length).toBeGreaterThan(0)
    await sql.unsafe(
      'create table public.after_cut (id integer primary key); grant select on public.after_cut to anon',
    )
    await waitFor(async () => await statusOf('/rest/v1/after_cut') === 200, {
      what: 'the table',
      timeoutMs: 5_000,
    })
  })

  async function statusOf(path: string): Promise<number> {
    const response = await ask(path)
    await response.body?.cancel()
    return response.status
  }
})

describe('an access token', () => {
  test('carries the claims that hosted ones carry, signed with the secret', async () => {
    const { access_token, user } = await signIn()
    const { payload, protectedHeader } = await jwtVerify(access_token, secret, { algorithms: ['HS256'] })
    expect(protectedHeader).toEqual({ alg: 'HS256', typ: 'JWT' })
    const now = Math.floor(Date.now() / 1000)
    expect(payload).toEqual({
      iss: `${stack.url}/auth/v1`,
      sub: user.id,
      aud: 'authenticated',
      role: 'authenticated',
      email: demoUsers[0].email,
      phone: '',
      app_metadata: user.app_metadata,
      user_metadata: user.user_metadata,
      session_id: expect.any(String),
      is_anonymous: false,
      aal: 'aal1',
      amr: [{ method: 'password', timestamp: expect.closeTo(now, -1) }],
      iat: expect.closeTo(now, -1),
      exp: payload.iat! + 3600,
    })
  })

  test('is taken by the auth service, by the API and by functions that have the JWT checked', async () => {
    const { access_token, user } = await signIn()
    const headers = { authorization: `Bearer ${access_token}` }
    expect((await (await ask('/auth/v1/user', { headers })).json()).id).toBe(user.id)
    await sql.unsafe(`create or replace function public.my_claims() returns jsonb language sql
      set search_path = '' as 'select current_setting(''request.jwt.claims'')::jsonb';
      grant execute on function public.my_claims to authenticated; notify pgrst, 'reload schema'`)
    const claims = await waitFor(async () => {
      const response = await ask('/rest/v1/rpc/my_claims', { method: 'POST', headers })
      return response.ok ? await response.json() : void await response.body?.cancel()
    }, { what: 'the function my_claims' })
    expect(claims).toMatchObject({ sub: user.id, app_metadata: user.app_metadata, aal: 'aal1' })
    expect(await (await ask('/functions/v1/guarded', { headers })).text()).toBe('GET reached')
  })

  test('that was refreshed carries them too, and still tells how the session began', async () => {
    const first = await signIn()
    const response = await ask('/auth/v1/token?grant_type=refresh_token', {
      method: 'POST',
      body: JSON.stringify({ refresh_token: first.refresh_token }),
    })
    const second = await response.json()
    const [before, after] = [decodeJwt(first.access_token), decodeJwt(second.access_token)]
    expect(after).toMatchObject({
      session_id: before.session_id,
      sub: before.sub,
      amr: before.amr,
      aal: 'aal1',
    })
    const headers = { authorization: `Bearer ${second.access_token}` }
    expect((await ask('/auth/v1/user', { headers })).status).toBe(200)
  })

  test('of a new user carries what the user was signed up with', async () => {
    const user = { email: 'claims@example.com', password: 'a-long-password', data: { plan: 'free' } }
    const { access_token } =
      await (await ask('/auth/v1/signup', { method: 'POST', body: JSON.stringify(user) })).json()
    expect(decodeJwt(access_token)).toMatchObject({
      user_metadata: { plan: 'free' },
      app_metadata: { provider: 'email', providers: ['email'] },
      amr: [{ method: 'password' }],
    })
  })

  test('is not issued for a wrong password: the refusal passes as it is', async () => {
    const response = await ask('/auth/v1/token?grant_type=password', {
      method: 'POST',
      body: JSON.stringify({ email: demoUsers[0].email, password: 'wrong' }),
    })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ error_code: 'invalid_credentials' })
  })

  test('that is tampered with, expired or of another secret is refused by the API', async () => {
    const sign = (key: Uint8Array, claims: Record<string, unknown>) =>
      new SignJWT({ role: 'authenticated', sub: crypto.randomUUID(), aud: 'authenticated', ...claims })
        .setProtectedHeader({ alg: 'HS256' }).sign(key)
    const tokens = [
      await sign(new Uint8Array(32), { exp: 4_000_000_000 }),
      await sign(secret, { exp: 1 }),
      `${btoa('{"alg":"none"}').replace(/=+$/, '')}.${btoa('{"role":"service_role"}').replace(/=+$/, '')}.`,
      'garbage',
      'two.parts',
      '',
    ]
    for (const token of tokens) {
      const response = await ask('/rest/v1/products', { headers: { authorization: `Bearer ${token}` } })
      expect(response.status, token).toBe(401)
      expect((await response.json()).code, token).toMatch(/^PGRST30[13]$/)
    }
  })
})

describe('API keys', () => {
  test('without one, or with a wrong one, nothing is served', async () => {
    for (const headers of [{ apikey: '' }, { apikey: 'sb_publishable_wrong' }]) {
      const response = await ask('/rest/v1/products', { headers })
      await response.body?.cancel()
      expect(response.status).toBe(401)
    }
  })

  test('of the older kind, which functions get too, mean the same roles', async () => {
    const { env } = await (await ask('/functions/v1/echo')).json()
    await sql.unsafe(`create or replace function public.my_role() returns text language sql
      set search_path = '' as 'select current_user::text';
      grant execute on function public.my_role to anon, authenticated, service_role; notify pgrst, 'reload schema'`)
    const roleWith = (key: string, authorization?: string) =>
      waitFor(async () => {
        const headers = { apikey: key, ...(authorization === undefined ? {} : { authorization }) }
        const response = await ask('/rest/v1/rpc/my_role', { method: 'POST', headers })
        return response.ok ? await response.json() : void await response.body?.cancel()
      }, { what: 'the role' })
    expect(await roleWith(env.SUPABASE_ANON_KEY)).toBe('anon')
    expect(await roleWith(env.SUPABASE_ANON_KEY, `Bearer ${env.SUPABASE_ANON_KEY}`)).toBe('anon')
    expect(await roleWith(env.SUPABASE_SERVICE_ROLE_KEY, `Bearer ${env.SUPABASE_SERVICE_ROLE_KEY}`)).toBe(
      'service_role',
    )
    expect(await roleWith(localKeys.secret)).toBe('service_role')
    const { access_token } = await signIn()
    expect(await roleWith(env.SUPABASE_ANON_KEY, `Bearer ${access_token}`)).toBe('authenticated')
  })

  test('of the older kind with another secret are refused', async () => {
    const forged = await new SignJWT({ role: 'service_role' }).setProtectedHeader({ alg: 'HS256' }).sign(
      new Uint8Array(32),
    )
    const response = await ask('/rest/v1/products', { headers: { apikey: forged } })
    await response.body?.cancel()
    expect(response.status).toBe(401)
  })
})

test('UPDATE and DELETE without a condition are refused, as hosted', async () => {
  const response = await ask('/rest/v1/products', { method: 'DELETE', headers: { apikey: localKeys.secret } })
  await response.body?.cancel()
  expect(response.status).toBe(400)
  expect(await sql`select 1 from public.products limit 1`).toHaveLength(1)
})

import { describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { startStack } from '../../local/stack.ts'
import { fixtureProject, platformAnswer } from '../fixtures/hostProject.ts'
import { testStack } from '../support/stack.ts'
import { waitFor } from '../support/wait.ts'

const stack = await testStack({ functions: fixtureProject.root })
const apikey = localKeys.publishable

/** What the function `echo` saw of a request that went through the gateway. */
async function seen(path?: string, init?: RequestInit) {
  const response = await fetch(`${stack.functionsUrl}/echo${path ?? ''}`, init)
  expect(response.status).toBe(200)
  return { ...await response.json(), response }
}

describe('a request to a function', () => {
  test('arrives without /functions/v1, with its query and its method', async () => {
    expect(await seen('/a/b?c=%20d', { method: 'PUT', body: 'x' })).toMatchObject({
      url: `${stack.url}/echo/a/b?c=%20d`,
      method: 'PUT',
      body: 'x',
    })
  })

  test('carries where it came from, as hosted', async () => {
    const { headers, remoteAddress } = await seen('/a')
    expect(headers).toMatchObject({
      'x-forwarded-for': '127.0.0.1',
      'x-real-ip': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': '127.0.0.1',
      'x-forwarded-port': String(stack.port),
      'x-forwarded-path': '/functions/v1/echo/a',
    })
    expect(remoteAddress).toBe('127.0.0.1')
  })

  test('keeps what proxies before it said in x-forwarded-for, and believes nothing else', async () => {
    const { headers } = await seen('', {
      headers: {
        'x-forwarded-for': '203.0.113.9, 10.0.0.1',
        'x-forwarded-proto': 'https',
        'x-forwarded-host': 'evil.example',
        'x-forwarded-port': '1',
        'x-real-ip': '203.0.113.9',
      },
    })
    expect(headers).toMatchObject({
      'x-forwarded-for': '203.0.113.9, 10.0.0.1, 127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': '127.0.0.1',
      'x-forwarded-port': String(stack.port),
      'x-real-ip': '127.0.0.1',
    })
  })

  test('has the environment that a hosted function has', async () => {
    const { env } = await seen()
    expect(env).toMatchObject({
      SUPABASE_URL: stack.url,
      SUPABASE_DB_URL: stack.databaseUrl,
      SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: localKeys.publishable }),
      SUPABASE_SECRET_KEYS: JSON.stringify({ default: localKeys.secret }),
      SUPABASE_JWKS: '{"keys":[]}',
      SUPABASE_ANON_KEY: expect.stringMatching(/^ey/),
      SUPABASE_SERVICE_ROLE_KEY: expect.stringMatching(/^ey/),
      SUPABASE_FUNCTION_SLUG: 'echo',
      JWT_SECRET: localKeys.jwtSecret,
      PAYMENTS_URL: stack.paymentsUrl,
      SB_REGION: 'local',
    })
    expect(Object.keys(env)).not.toContain('PATH')
  })

  test('streams through: the first chunk arrives before the last is sent', async () => {
    const response = await fetch(`${stack.functionsUrl}/stream?down&name=through-the-gateway`)
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
    expect((await reader?.read())?.value).toContain('line 0')
    await reader?.cancel()
    await heardOf('through-the-gateway')
  })

  test('that the client abandons is aborted in the function', async () => {
    const client = new AbortController()
    const asked = fetch(`${stack.functionsUrl}/stream?never&name=gone`, { signal: client.signal })
    await waitFor(async () => (await streamNames()).begun.includes('gone'), { what: 'the request to begin' })
    client.abort()
    await expect(asked).rejects.toThrow('aborted')
    await heardOf('gone')
  })
})

describe('x-request-id', () => {
  test('is the caller’s where it is sane, on the way in and on the way out', async () => {
    const { headers, response } = await seen('', { headers: { 'x-request-id': 'order-7:retry_2.a' } })
    expect(headers['x-request-id']).toBe('order-7:retry_2.a')
    expect(response.headers.get('x-request-id')).toBe('order-7:retry_2.a')
  })

  test.each(['', '-leading', 'with space', 'quote"', 'a'.repeat(129), 'a,b'])('replaces %j', async (bad) => {
    const { headers, response } = await seen('', { headers: { 'x-request-id': bad } })
    expect(headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/)
    expect(response.headers.get('x-request-id')).toBe(headers['x-request-id'])
  })

  test('is on every answer: of the API, of a refusal, of the page', async () => {
    for (const path of ['/rest/v1/products', '/auth/v1/health', '/nowhere', '/functions/v1/nobody', '/']) {
      const response = await fetch(`${stack.url}${path}`, { headers: { apikey } })
      await response.body?.cancel()
      expect(response.headers.get('x-request-id'), path).toMatch(/^[0-9a-f-]{36}$/)
    }
  })
})

describe('CORS', () => {
  const preflight = {
    method: 'OPTIONS',
    headers: {
      origin: 'http://app.example',
      'access-control-request-method': 'PATCH',
      'access-control-request-headers': 'authorization, apikey, x-own',
    },
  }

  test.each(['/rest/v1/products', '/auth/v1/token'])('for %s is answered by the platform', async (path) => {
    const response = await fetch(`${stack.url}${path}`, preflight)
    await response.body?.cancel()
    expect(response.status).toBe(204)
    expect(response.headers.get('access-control-allow-origin')).toBe('*')
    expect(response.headers.get('access-control-allow-headers')).toBe('authorization, apikey, x-own')
    expect(response.headers.get('access-control-allow-methods')).toContain('PATCH')
  })

  test.each(['/rest/v1/products', '/auth/v1/settings', '/auth/v1/user'])(
    'lets any origin read %s',
    async (path) => {
      const response = await fetch(`${stack.url}${path}`, {
        headers: { apikey, origin: 'http://app.example' },
      })
      await response.body?.cancel()
      expect(response.headers.get('access-control-allow-origin')).toBe('*')
      expect(response.headers.get('access-control-expose-headers')).toContain('x-request-id')
    },
  )

  test('for a function is its own affair', async () => {
    const response = await fetch(`${stack.functionsUrl}/echo`, preflight)
    expect((await response.json()).method).toBe('OPTIONS')
    expect(response.headers.get('access-control-allow-origin')).toBeNull()
  })

  test('lets a browser read what the platform answers in a function’s stead', async () => {
    const response = await fetch(`${stack.functionsUrl}/nobody`, {
      headers: { origin: 'http://app.example' },
    })
    expect(response.headers.get('access-control-allow-origin')).toBe('*')
    expect(await platformAnswer(response)).toMatchObject({ status: 404, code: 'NOT_FOUND' })
  })
})

describe('other paths', () => {
  test.each(['/nowhere', '/rest/v2/products', '/functions', '/functions/v11/echo', '/storage/v1/bucket'])(
    '%s is 404 in JSON, naming what there is',
    async (path) => {
      const answer = await platformAnswer(await fetch(`${stack.url}${path}`))
      expect(answer).toMatchObject({ status: 404, header: 'NOT_FOUND' })
      expect(answer.message).toContain('/functions/v1, /auth/v1, /rest/v1')
    },
  )

  test('/ is a plain page that lists what runs', async () => {
    await seen()
    const response = await fetch(`${stack.url}/`)
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'")
    const html = await response.text()
    expect(html).toContain(`${stack.url}/functions/v1/echo`)
    expect(html).toContain('1 isolate running')
    expect(html).toContain(stack.databaseUrl)
    expect(html).toMatch(/Database<\/th><td>up/)
    expect(html).toMatch(/Payments stand-in<\/th><td>up/)
    expect(html).not.toContain(localKeys.secret)
  })
})

describe('the gateway', () => {
  test('listens on 127.0.0.1 only', async () => {
    const others = Deno.networkInterfaces().filter(({ family, address }) =>
      family === 'IPv4' && address !== '127.0.0.1'
    )
    for (const { address } of others) {
      await expect(Deno.connect({ hostname: address, port: stack.port })).rejects.toThrow()
    }
  })

  test('says which port is taken and what to do', async () => {
    const clash = startStack({
      project: fixtureProject,
      port: stack.port,
      databaseUrl: stack.databaseUrl,
      adminUrl: stack.db.adminUrl,
    })
    await expect(clash).rejects.toMatchObject({
      name: 'LocalError',
      message: `Cannot start the gateway: port ${stack.port} is in use`,
      where: `127.0.0.1:${stack.port}`,
      fix: expect.stringContaining('--port'),
    })
  })

  test('forwards the API to another Supabase where the database is someone else’s', async () => {
    const other = await startStack({
      project: fixtureProject,
      port: 0,
      databaseUrl: stack.databaseUrl,
      apiUrl: stack.url,
    })
    try {
      const response = await fetch(`${other.url}/auth/v1/settings`, { headers: { apikey } })
      expect((await response.json()).external.email).toBe(true)
      expect((await (await fetch(`${other.functionsUrl}/echo`)).json()).env.SUPABASE_URL).toBe(other.url)
      expect(await (await fetch(other.url)).text()).toMatch(/API<\/th><td>up/)
    } finally {
      await other.close()
    }
    const gone = await fetch(`${other.url}/`).catch((error) => error)
    expect(gone).toBeInstanceOf(TypeError)
  })

  test('closes while clients hold their connections and a response is under way', async () => {
    const own = await testStack({ functions: fixtureProject.root })
    const response = await fetch(`${own.functionsUrl}/stream?down`)
    const reader = response.body?.getReader()
    await reader?.read()
    const started = performance.now()
    await own.close()
    expect(performance.now() - started).toBeLessThan(2_000)
    await reader?.cancel().catch(() => {})
  })
})

async function streamNames(): Promise<{ begun: string[]; aborted: string[] }> {
  return await (await fetch(`${stack.functionsUrl}/stream?names`)).json()
}

async function heardOf(name: string): Promise<void> {
  await waitFor(async () => (await streamNames()).aborted.includes(name), { what: `the abort of "${name}"` })
}

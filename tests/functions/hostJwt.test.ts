import { exportPKCS8, generateKeyPair, importPKCS8, SignJWT } from 'jose'
import { describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { platformAnswer, testHost } from '../fixtures/hostProject.ts'

const host = await testHost()
const secret = new TextEncoder().encode(localKeys.jwtSecret)
const valid = await new SignJWT({ role: 'anon' }).setProtectedHeader({ alg: 'HS256' }).setExpirationTime('1h')
  .sign(secret)

interface Refused {
  name: string
  headers: Record<string, string>
  code: string
  message: string
}

describe('verify_jwt lets through', () => {
  const good: Record<string, HeadersInit> = {
    'a valid bearer': { authorization: `Bearer ${valid}` },
    'a valid bearer, whatever the case of the scheme': { authorization: `bearer  ${valid}` },
    'a valid JWT in apikey': { apikey: valid },
    'a valid JWT in apikey beside a key as bearer': {
      apikey: valid,
      authorization: `Bearer ${localKeys.publishable}`,
    },
  }
  test.each(Object.entries(good))('%s', async (_, headers) => {
    const response = await host.ask('/guarded', { method: 'POST', headers })
    expect([response.status, await response.text()]).toEqual([200, 'POST reached'])
  })

  test('a preflight, which carries no credentials', async () => {
    expect(await (await host.ask('/guarded', { method: 'OPTIONS' })).text()).toBe('OPTIONS reached')
  })
})

const bad = await badCredentials()

describe('verify_jwt answers 401', () => {
  test.each(bad)('$name', async ({ headers, code, message }) => {
    expect(await platformAnswer(await host.ask('/guarded', { headers }))).toEqual({
      status: 401,
      header: code,
      code,
      message,
    })
  })

  test('before anything of the function runs', async () => {
    const own = await testHost()
    await own.ask('/guarded')
    expect(own.isolates()).toEqual([])
  })
})

async function badCredentials(): Promise<Refused[]> {
  const sign = (key: Uint8Array, alg: string) =>
    new SignJWT({ role: 'anon' }).setProtectedHeader({ alg }).sign(key)
  const tampered = valid.replace(
    /\.[^.]+\./,
    `.${btoa(JSON.stringify({ role: 'service_role' })).replace(/=+$/, '')}.`,
  )
  const expired = await new SignJWT({}).setProtectedHeader({ alg: 'HS256' }).setExpirationTime(1).sign(secret)
  const none = `${btoa('{"alg":"none"}').replace(/=+$/, '')}.${
    btoa('{"role":"service_role"}').replace(/=+$/, '')
  }.`
  const pair = await generateKeyPair('ES256', { extractable: true })
  const foreign = await new SignJWT({}).setProtectedHeader({ alg: 'ES256' })
    .sign(await importPKCS8(await exportPKCS8(pair.privateKey), 'ES256'))
  const legacy = { code: 'UNAUTHORIZED_LEGACY_JWT', message: 'Invalid JWT' }
  const format = { code: 'UNAUTHORIZED_INVALID_JWT_FORMAT', message: 'Invalid JWT format' }
  const unsupported = (alg: string) => ({
    code: 'UNAUTHORIZED_UNSUPPORTED_TOKEN_ALGORITHM',
    message: `Unsupported JWT algorithm ${alg}`,
  })
  return [
    {
      name: 'without credentials',
      headers: {},
      code: 'UNAUTHORIZED_NO_AUTH_HEADER',
      message: 'Missing authorization header',
    },
    { name: 'to a key, which is no JWT', headers: { apikey: localKeys.publishable }, ...format },
    { name: 'to the secret key', headers: { authorization: `Bearer ${localKeys.secret}` }, ...format },
    { name: 'to another scheme', headers: { authorization: `Basic ${valid}` }, ...format },
    { name: 'to an empty bearer', headers: { authorization: 'Bearer ' }, ...format },
    { name: 'to garbage', headers: { authorization: 'Bearer a.b.c' }, ...format },
    {
      name: 'to a token of two parts',
      headers: { authorization: 'Bearer eyJhbGciOiJIUzI1NiJ9.e30' },
      ...format,
    },
    { name: 'to a tampered token', headers: { authorization: `Bearer ${tampered}` }, ...legacy },
    { name: 'to an expired token', headers: { authorization: `Bearer ${expired}` }, ...legacy },
    {
      name: 'to a token of another secret',
      headers: { authorization: `Bearer ${await sign(new Uint8Array(32), 'HS256')}` },
      ...legacy,
    },
    { name: 'to alg none', headers: { authorization: `Bearer ${none}` }, ...unsupported('none') },
    {
      name: 'to another algorithm with the right secret',
      headers: { authorization: `Bearer ${await sign(new Uint8Array(64), 'HS512')}` },
      ...unsupported('HS512'),
    },
    {
      name: 'to a token of a foreign key pair',
      headers: { authorization: `Bearer ${foreign}` },
      code: 'UNAUTHORIZED_ASYMMETRIC_JWT',
      message: 'Invalid JWT',
    },
    {
      name: 'to a bad bearer beside a good apikey',
      headers: { authorization: 'Bearer x.y.z', apikey: valid },
      ...format,
    },
  ]
}

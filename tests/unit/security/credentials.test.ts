import {
  type CryptoKey,
  exportJWK,
  generateKeyPair,
  type GenerateKeyPairResult,
  SignJWT,
  UnsecuredJWT,
} from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  createCredentialVerifier,
  type CredentialVerifier,
} from '../../../supabase/functions/_shared/security/credentials.ts'

const secret = 'a-shared-secret-of-at-least-32-characters'
const userId = '00000000-0000-4000-8000-00000000000a'
const claims = { sub: userId, role: 'authenticated', app_metadata: { role: 'admin' } }
const keys = { publishable: 'sb_publishable_one', secret: 'sb_secret_one' }

let pair: GenerateKeyPairResult
let otherPair: GenerateKeyPairResult
let publicPem: string
let verify: CredentialVerifier

const encode = (text: string) => new TextEncoder().encode(text)

function sign(
  payload: Record<string, unknown>,
  key: CryptoKey | Uint8Array,
  header: { alg: string; kid?: string },
  expires = '1h',
) {
  return new SignJWT(payload).setProtectedHeader(header).setExpirationTime(expires).sign(key)
}

beforeAll(async () => {
  pair = await generateKeyPair('ES256', { extractable: true })
  otherPair = await generateKeyPair('ES256', { extractable: true })
  const jwk = await exportJWK(pair.publicKey)
  publicPem = JSON.stringify(jwk)
  verify = createCredentialVerifier({
    keys: {
      publishableKeys: { default: keys.publishable },
      secretKeys: { default: keys.secret },
      jwks: { keys: [{ ...jwk, kid: 'k1', alg: 'ES256', use: 'sig' }] },
      jwtSecret: secret,
    },
  })
})

const bearer = (token: string, more: Record<string, string> = {}) =>
  new Headers({ authorization: `Bearer ${token}`, ...more })

describe('a user', () => {
  test('is known by a token of the shared secret, with or without a key id', async () => {
    const token = await sign(claims, encode(secret), { alg: 'HS256' })
    expect(await verify(bearer(token), 'user')).toMatchObject({
      kind: 'user',
      role: 'authenticated',
      userId,
      claims: { app_metadata: { role: 'admin' } },
    })
  })

  test('is known by a token of the key set', async () => {
    const token = await sign(claims, pair.privateKey, { alg: 'ES256', kid: 'k1' })
    expect(await verify(bearer(token, { apikey: keys.publishable }), 'user')).toMatchObject({ userId })
  })

  const attacks: [string, () => Promise<Headers> | Headers][] = [
    ['nothing', () => new Headers()],
    ['a key alone', () => new Headers({ apikey: keys.publishable })],
    ['a key as the bearer', () => bearer(keys.publishable)],
    ['a secret key as the bearer', () => bearer(keys.secret)],
    ['another scheme', () => new Headers({ authorization: 'Basic YTpi' })],
    ['two tokens', () => bearer('a.b.c d.e.f')],
    ['no token', () => new Headers({ authorization: 'Bearer' })],
    ['garbage', () => bearer('a.b.c')],
    ['alg none', () => bearer(new UnsecuredJWT(claims).setExpirationTime('1h').encode())],
    ['another secret', async () => bearer(await sign(claims, encode(`${secret}!`), { alg: 'HS256' }))],
    [
      'another key pair under our key id',
      async () => bearer(await sign(claims, otherPair.privateKey, { alg: 'ES256', kid: 'k1' })),
    ],
    [
      'an unknown key id',
      async () => bearer(await sign(claims, pair.privateKey, { alg: 'ES256', kid: 'k2' })),
    ],
    [
      'the public key as a shared secret',
      async () => bearer(await sign(claims, encode(publicPem), { alg: 'HS256', kid: 'k1' })),
    ],
    ['an algorithm nobody uses', async () => bearer(await sign(claims, encode(secret), { alg: 'HS512' }))],
    ['an expired token', async () => bearer(await sign(claims, encode(secret), { alg: 'HS256' }, '-1m'))],
    [
      'a token that never expires',
      async () => bearer(await new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).sign(encode(secret))),
    ],
    ['a token that is not valid yet', async () =>
      bearer(
        await new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).setNotBefore('5m').setExpirationTime(
          '1h',
        )
          .sign(encode(secret)),
      )],
    [
      'a token of the role anon',
      async () => bearer(await sign({ role: 'anon' }, encode(secret), { alg: 'HS256' })),
    ],
    [
      'a token of the role service_role',
      async () => bearer(await sign({ ...claims, role: 'service_role' }, encode(secret), { alg: 'HS256' })),
    ],
    [
      'a token of the role postgres',
      async () => bearer(await sign({ ...claims, role: 'postgres' }, encode(secret), { alg: 'HS256' })),
    ],
    [
      'a token without a subject',
      async () => bearer(await sign({ role: 'authenticated' }, encode(secret), { alg: 'HS256' })),
    ],
    ['a tampered payload', async () => {
      const [header, , signature] = (await sign(claims, encode(secret), { alg: 'HS256' })).split('.')
      const payload = btoa(JSON.stringify({ ...claims, sub: 'another', exp: 4_000_000_000 })).replace(
        /=+$/,
        '',
      )
      return bearer(`${header}.${payload}.${signature}`)
    }],
    [
      'a good token beside a wrong key',
      async () =>
        bearer(await sign(claims, encode(secret), { alg: 'HS256' }), { apikey: 'sb_publishable_other' }),
    ],
  ]

  test.each(attacks)('is refused with 401 for %s', async (_, headers) => {
    await expect(verify(await headers(), 'user')).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
      status: 401,
      headers: { 'www-authenticate': 'Bearer' },
    })
  })
})

describe('a key', () => {
  test.each(
    [
      ['publishable', new Headers({ apikey: keys.publishable }), { kind: 'publishable', role: 'anon' }],
      ['publishable', new Headers({ apikey: keys.secret }), { kind: 'secret', role: 'service_role' }],
      ['publishable', bearer(keys.publishable), { kind: 'publishable', role: 'anon' }],
      ['secret', new Headers({ apikey: keys.secret }), { kind: 'secret', role: 'service_role' }],
      ['secret', bearer(keys.secret), { kind: 'secret', role: 'service_role' }],
    ] as const,
  )('opens a %s route', async (mode, headers, caller) => {
    expect(await verify(headers, mode)).toMatchObject(caller)
  })

  test('of the older kind, a JWT, stands for its role', async () => {
    const apikey = await sign({ role: 'service_role' }, encode(secret), { alg: 'HS256' })
    expect(await verify(new Headers({ apikey }), 'secret')).toMatchObject({ role: 'service_role' })
  })

  test('that is publishable does not open a secret route: 403', async () => {
    await expect(verify(new Headers({ apikey: keys.publishable }), 'secret')).rejects.toMatchObject({
      code: 'FORBIDDEN',
      status: 403,
    })
  })

  test.each(['', 'sb_secret_onE', `${keys.secret} `.repeat(2), 'sb_secret_', 'undefined', 'a.b.c'])(
    'that is not ours is refused: %j',
    async (apikey) => {
      for (const mode of ['publishable', 'secret'] as const) {
        await expect(verify(new Headers({ apikey }), mode)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
      }
    },
  )

  test("a user's token opens neither a publishable nor a secret route", async () => {
    const token = await sign(claims, encode(secret), { alg: 'HS256' })
    for (const mode of ['publishable', 'secret'] as const) {
      await expect(verify(bearer(token), mode)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
    }
  })
})

test('a route for nobody in particular asks for nothing and believes nothing', async () => {
  expect(await verify(bearer(keys.secret), 'none')).toMatchObject({ kind: 'none', role: 'anon' })
})

test('a project without keys lets nobody in', async () => {
  const closed = createCredentialVerifier({
    keys: { publishableKeys: {}, secretKeys: {}, jwks: { keys: [] } },
  })
  const token = await sign(claims, encode(secret), { alg: 'HS256' })
  await expect(closed(bearer(token), 'user')).rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
  await expect(closed(new Headers({ apikey: '' }), 'secret')).rejects.toMatchObject({
    code: 'UNAUTHENTICATED',
  })
})

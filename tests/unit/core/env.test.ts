import { expect, test } from 'vitest'
import { readEnv } from '../../../supabase/functions/_shared/core/env.ts'

const read = (variables: Record<string, string>) => readEnv((name) => variables[name])

test('readEnv() needs nothing: every variable has a meaning when absent', () => {
  expect(read({})).toMatchObject({
    databaseUrl: undefined,
    publishableKeys: {},
    secretKeys: {},
    jwks: { keys: [] },
    functionName: 'function',
    corsOrigins: ['*'],
    logLevel: 'info',
    trustedProxyHops: 1,
    rateLimitStore: 'memory',
    databasePrepare: false,
  })
})

test('readEnv() has limits counted in the database where there is one', () => {
  expect(read({ SUPABASE_DB_URL: 'postgresql://db/x' }).rateLimitStore).toBe('postgres')
})

test('readEnv() reads what a hosted project gives, the older keys beside the new ones', () => {
  const env = read({
    SUPABASE_URL: 'https://abc.supabase.co',
    SUPABASE_DB_URL: 'postgresql://postgres:secret@db:5432/postgres',
    SUPABASE_PUBLISHABLE_KEYS: '{"default":"sb_publishable_1"}',
    SUPABASE_SECRET_KEYS: '{"default":"sb_secret_1","jobs":"sb_secret_2"}',
    SUPABASE_ANON_KEY: 'a.b.c',
    SUPABASE_JWKS: '{"keys":[{"kty":"EC"}]}',
    SUPABASE_FUNCTION_SLUG: 'orders',
    CORS_ORIGINS: 'https://a.example, https://b.example',
  })
  expect(env).toMatchObject({
    supabaseUrl: 'https://abc.supabase.co',
    publishableKeys: { default: 'sb_publishable_1', legacy: 'a.b.c' },
    secretKeys: { default: 'sb_secret_1', jobs: 'sb_secret_2' },
    jwks: { keys: [{ kty: 'EC' }] },
    functionName: 'orders',
    corsOrigins: ['https://a.example', 'https://b.example'],
  })
})

test('readEnv() prefers HOLDFAST_DB_URL, the way to the pooler', () => {
  const env = read({
    SUPABASE_DB_URL: 'postgresql://direct/x',
    HOLDFAST_DB_URL: 'postgresql://pooler:6543/x',
  })
  expect(env.databaseUrl).toBe('postgresql://pooler:6543/x')
})

test.each([
  ['SUPABASE_URL', 'abc.supabase.co'],
  ['SUPABASE_URL', 'ftp://abc'],
  ['SUPABASE_DB_URL', 'mysql://db/x'],
  ['SUPABASE_PUBLISHABLE_KEYS', '{"default":'],
  ['SUPABASE_PUBLISHABLE_KEYS', '["sb_publishable_1"]'],
  ['SUPABASE_SECRET_KEYS', '{"default":"sb_publishable_1"}'],
  ['SUPABASE_JWKS', '{"keys":"none"}'],
  ['LOG_LEVEL', 'loud'],
  ['TRUSTED_PROXY_HOPS', '-1'],
  ['TRUSTED_PROXY_HOPS', 'two'],
  ['IDEMPOTENCY_STORE', 'disk'],
  ['IDEMPOTENCY_STORE', 'redis'],
  ['RATE_LIMIT_STORE', 'disk'],
  ['RATE_LIMIT_STORE', 'redis'],
  ['HOLDFAST_DB_PREPARE', 'yes'],
  ['REDIS_URL', 'http://127.0.0.1:6379'],
])('readEnv() refuses %s=%s by name instead of taking it for absent', (name, value) => {
  expect(() => read({ [name]: value })).toThrow(name)
})

test('readEnv() names every problem at once and shows no value of a key', () => {
  const attempt = () => read({ SUPABASE_SECRET_KEYS: '{"default":"hunter2"}', LOG_LEVEL: 'loud' })
  expect(attempt).toThrow(/SUPABASE_SECRET_KEYS.*LOG_LEVEL/)
  expect(attempt).not.toThrow(/hunter2/)
})

/** Behind the real `withSupabase` of `@supabase/server`: who is the caller, and how the entries stand together. */
import { type FetchHandler, pipeline } from '@supabase/middleware'
import { withSupabase, type WithSupabaseConfig } from '@supabase/server'
import { withClaims } from '@supabase/server/middleware/claims'
import { type CryptoKey, exportJWK, generateKeyPair, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  callerOf,
  withIdempotency,
  withTransaction,
} from '../../supabase/functions/_shared/adapters/supabase.ts'
import { type Db, sql } from '../../supabase/functions/_shared/db/client.ts'
import { adaId, note, type NotesDatabase, notesDatabase, post, serve } from '../support/adapters.ts'

const keys = { publishable: 'sb_publishable_one', secret: 'sb_secret_one' }

let base: NotesDatabase
let db: Db
let env: NonNullable<WithSupabaseConfig['env']>
let sign: (claims: Record<string, unknown>) => Promise<string>
let forge: typeof sign

beforeAll(async () => {
  base = await notesDatabase()
  db = base.open()
  const [ours, theirs] = await Promise.all([generateKeyPair('ES256'), generateKeyPair('ES256')])
  const signWith = (key: CryptoKey) => (claims: Record<string, unknown>) =>
    new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid: 'k1' }).setExpirationTime('1h').sign(key)
  sign = signWith(ours.privateKey)
  forge = signWith(theirs.privateKey)
  env = {
    url: 'http://127.0.0.1:1',
    publishableKeys: { default: keys.publishable },
    secretKeys: { default: keys.secret },
    jwks: { keys: [{ ...await exportJWK(ours.publicKey), kid: 'k1', alg: 'ES256' }] },
  }
})

afterAll(() => base.close())

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const who =
  sql`select current_user as role, auth.uid() as id, current_setting('request.jwt.claims')::jsonb ->> 'tenant' as tenant`
const everyone: WithSupabaseConfig['auth'] = ['user', 'publishable', 'secret', 'none']

describe('the caller that withSupabase has verified', () => {
  const url = (auth: WithSupabaseConfig['auth']) =>
    serve(
      pipeline(
        [withSupabase({ auth, env }), withTransaction({ db, log: base.log })],
        async (_request, ctx) => {
          return Response.json(await ctx.tx.query(who))
        },
      ),
    )

  test('is the user of a token, with all of its claims', async () => {
    const token = await sign({ sub: adaId, role: 'authenticated', tenant: 'acme' })
    const response = await post(url('user'), undefined, { headers: bearer(token) })
    expect(await response.json()).toEqual([{ role: 'authenticated', id: adaId, tenant: 'acme' }])
  })

  test.each([
    ['anon for a publishable key', { apikey: keys.publishable }, 'anon'],
    ['service_role for a secret key', { apikey: keys.secret }, 'service_role'],
    ['anon for nobody', {}, 'anon'],
  ])('is %s', async (_case, headers, role) => {
    const response = await post(url(everyone), undefined, { headers })
    expect(await response.json()).toEqual([{ role, id: null, tenant: null }])
  })

  test('is nobody’s to forge: a token of another key gets no further than withSupabase', async () => {
    const token = await forge({ sub: adaId, role: 'authenticated' })
    const response = await post(url(everyone), undefined, { headers: bearer(token) })
    expect(response.status).toBe(401)
    await response.text()
  })

  test.each([['service_role'], ['anon'], ['supabase_admin']])(
    'is refused with the role %s in a user’s token',
    async (role) => {
      const token = await sign({ sub: adaId, role })
      const response = await post(url('user'), undefined, { headers: bearer(token) })
      expect([response.status, (await response.json()).error.code]).toEqual([403, 'FORBIDDEN'])
    },
  )

  test('comes from withClaims as well', async () => {
    const url = serve(
      pipeline(
        [withClaims({ jwks: env.jwks! }), withTransaction({ db, log: base.log })],
        async (_request, ctx) => {
          return Response.json(await ctx.tx.query(who))
        },
      ),
    )
    const token = await sign({ sub: adaId, role: 'authenticated' })
    const known = await post(url, undefined, { headers: bearer(token) })
    expect(await known.json()).toMatchObject([{ role: 'authenticated', id: adaId }])
    expect(await (await post(url)).json()).toMatchObject([{ role: 'anon' }])
  })
})

test('without anybody who verified, a pipeline does not run its handler', async () => {
  let runs = 0
  const handler = () => {
    runs++
    return Promise.resolve(new Response())
  }
  // @ts-expect-error the types say so first: 'jwtClaims' is not yet on the context
  const app = pipeline([withTransaction({ db })], handler)
  await expect(app(new Request('http://localhost/shop'))).rejects.toThrow(
    'Cannot tell who is calling: put withSupabase in front in the pipeline, or give the option as',
  )
  expect(runs).toBe(0)
})

test('types: one transaction in a pipeline, and the keys of each mode', () => {
  const as = () => ({ caller: callerOf({ jwtClaims: null }) })
  const answer = () => Promise.resolve(new Response())
  // @ts-expect-error middleware-conflict: key 'tx'
  pipeline([withTransaction({ as }), withIdempotency({ mode: 'atomic', as })], answer)
  pipeline([withIdempotency({ mode: 'leased', as })], (_request, ctx) => {
    // @ts-expect-error a leased handler has no tx
    void ctx.tx
    return answer()
  })
  // @ts-expect-error isolation is for atomic
  withIdempotency({ mode: 'leased', isolation: 'serializable', as })
  const nested = withIdempotency({ mode: 'leased', as }, (_request, { idempotency }) => {
    return Promise.resolve(new Response(idempotency.effectId))
  }) satisfies FetchHandler
  expect(nested).toBeTypeOf('function')
})

test('a leased key with a transaction behind it: complete() lets both commit together', async () => {
  let runs = 0
  const url = serve(pipeline(
    [
      withSupabase({ auth: 'none', env }),
      withIdempotency({ mode: 'leased', db, log: base.log }),
      withTransaction({ db, log: base.log }),
    ],
    async (request, { tx, idempotency }) => {
      runs++
      const { text } = await request.json()
      await tx.query(note(text))
      return await idempotency.complete(tx, Response.json({ text }, { status: 201 }))
    },
  ))
  const send = () =>
    post(url, 'leased-1', { body: '{"text":"leased"}', headers: { 'content-type': 'application/json' } })
  const first = await send()
  const again = await send()
  expect([first.status, await first.json()]).toEqual([201, { text: 'leased' }])
  expect([again.status, await again.json(), again.headers.get('idempotency-replayed')])
    .toEqual([201, { text: 'leased' }, 'true'])
  expect(runs).toBe(1)
  expect(await base.notes('leased')).toEqual(['leased'])
})

test('what the handler throws reaches the entry in front as it was thrown', async () => {
  const thrown = new TypeError('of the handler')
  const as = () => ({ caller: callerOf({ jwtClaims: null }) })
  const app = pipeline(
    [withIdempotency({ mode: 'atomic', db, log: base.log, as })],
    () => Promise.reject(thrown),
  )
  const request = new Request('http://localhost/shop', {
    method: 'POST',
    headers: { 'idempotency-key': '"thrown"' },
  })
  await expect(app(request)).rejects.toBe(thrown)
})

test('a refusal by `as` is answered before a transaction or a key is touched', async () => {
  const { HoldfastError } = await import('../../supabase/functions/_shared/core/errors.ts')
  const as = () => {
    throw new HoldfastError('UNAUTHENTICATED', 'Nobody known')
  }
  const url = serve(pipeline([withIdempotency({ mode: 'atomic', db, log: base.log, as })], () => {
    throw new Error('never runs')
  }))
  const response = await post(url, 'refused')
  expect([response.status, (await response.json()).error.code]).toEqual([401, 'UNAUTHENTICATED'])
})

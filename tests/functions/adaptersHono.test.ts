/** What only Hono has: errors that became responses, headers set in front, and bodies that are read once. */
import type { SupabaseContext } from '@supabase/server'
import { withSupabase } from '@supabase/server/adapters/hono'
import { Hono } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { requestId } from 'hono/request-id'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  callerOf,
  errorResponse,
  withIdempotency,
  withTransaction,
} from '../../supabase/functions/_shared/adapters/hono.ts'
import { type Db, sql } from '../../supabase/functions/_shared/db/client.ts'
import { note, type NotesDatabase, notesDatabase, post, serve } from '../support/adapters.ts'

let base: NotesDatabase
let db: Db

beforeAll(async () => {
  base = await notesDatabase()
  db = base.open()
})

afterAll(() => base.close())

const as = () => ({ caller: callerOf({ jwtClaims: null, authMode: 'secret' }) })
const atomic = () => withIdempotency({ mode: 'atomic', db, log: base.log, as })
const transaction = () => withTransaction({ db, log: base.log, as })

describe('an error that onError made a response of', () => {
  test('rolls back, also where that response looks like success', async () => {
    const app = new Hono()
      .onError((_error, c) => c.text('never mind'))
      .post('*', transaction(), async (c) => {
        await c.var.tx.query(note('calm'))
        throw new Error('of the handler')
      })
    const response = await post(serve(app.fetch))
    expect([response.status, await response.text()]).toEqual([200, 'never mind'])
    expect(await base.notes('calm')).toEqual([])
  })

  test('is not stored as a success', async () => {
    let fail = true
    const app = new Hono()
      .onError((_error, c) => c.text('never mind'))
      .post('*', atomic(), async (c) => {
        await c.var.tx.query(note('kept-calm'))
        if (fail) throw new Error('of the handler')
        return c.text('fine')
      })
    const url = serve(app.fetch)
    expect(await (await post(url, 'calm')).text()).toBe('never mind')
    expect(await base.notes('kept-calm')).toEqual([])
    fail = false
    expect(await (await post(url, 'calm')).text()).toBe('fine')
  })

  test('is replayed where it is a refusal of the handler, and not where it may pass next time', async () => {
    const errors = [new HTTPException(409, { message: 'sold out' })]
    const app = new Hono()
      .onError((error, c) =>
        error instanceof HTTPException ? error.getResponse() : errorResponse(error, c.req.raw, base.log)
      )
      .post('/shop/notes', atomic(), async (c) => {
        await c.var.tx.query(note('sold'))
        throw errors.pop() ?? new Error('ran again')
      })
      .post('/shop/notes/deadlock', atomic(), async (c) => {
        await c.var.tx.query(sql`do $$ begin raise exception 'in the way' using errcode = '40P01'; end $$`)
        return c.text('never')
      })
    const url = serve(app.fetch)
    for (const replayed of [null, 'true']) {
      const response = await post(url, 'sold')
      expect([response.status, await response.text()]).toEqual([409, 'sold out'])
      expect(response.headers.get('idempotency-replayed')).toBe(replayed)
    }
    for (let i = 0; i < 2; i++) {
      const response = await post(`${url}/deadlock`, 'dead')
      expect([response.status, (await response.json()).error.code]).toEqual([409, 'CONFLICT'])
      expect(response.headers.get('idempotency-replayed')).toBeNull()
    }
  })
})

test('headers set in front are this request’s own: sent with every answer, never stored', async () => {
  let visits = 0
  const app = new Hono()
    .use(requestId(), async (c, next) => {
      c.header('set-cookie', `visit=${++visits}`)
      await next()
    })
    .post('*', atomic(), async (c) => {
      await c.var.tx.query(note('headers'))
      c.header('set-cookie', 'cart=7', { append: true })
      return c.json({ fine: true }, 201, { location: '/notes/1' })
    })
  const url = serve(app.fetch)
  for (const visit of [1, 2]) {
    const { status, headers, ...response } = await post(url, 'headers', {
      headers: { 'x-request-id': `req-${visit}` },
    })
    void response
    expect([status, headers.get('location'), headers.get('x-request-id')]).toEqual([
      201,
      '/notes/1',
      `req-${visit}`,
    ])
    expect(headers.getSetCookie()).toEqual([`visit=${visit}`, 'cart=7'])
  }
})

test('a refused commit keeps the headers of the request and none of the handler', async () => {
  const app = new Hono()
    .use(async (c, next) => {
      c.header('access-control-allow-origin', '*')
      await next()
    })
    .post('*', transaction(), async (c) => {
      await Promise.all([c.var.tx.query(note('twice')), c.var.tx.query(note('twice'))])
      return c.json({ fine: true }, 201, { location: '/notes/1' })
    })
  const response = await post(serve(app.fetch))
  expect([response.status, (await response.json()).error.code]).toEqual([409, 'CONFLICT'])
  expect(response.headers.get('access-control-allow-origin')).toBe('*')
  expect(response.headers.get('location')).toBeNull()
  expect(response.headers.get('content-type')).toMatch(/^application\/json/)
})

test('the handler reads the body that the fingerprint was made of', async () => {
  const app = new Hono().post('*', atomic(), async (c) => {
    const { text } = await c.req.json<{ text: string }>()
    await c.var.tx.query(note(text))
    return c.text(text)
  })
  const json = { 'content-type': 'application/json' }
  const response = await post(serve(app.fetch), 'body', { headers: json, body: '{"text":"body-1"}' })
  expect(await response.text()).toBe('body-1')
  expect(await base.notes('body-')).toEqual(['body-1'])
})

test('a leased key with a transaction behind it: complete() lets both commit together', async () => {
  let runs = 0
  const leased = withIdempotency({ mode: 'leased', db, log: base.log, as })
  const app = new Hono().post('*', leased, transaction(), async (c) => {
    await c.var.tx.query(note(`leased-${++runs}`))
    return await c.var.idempotency.complete(c.var.tx, c.json({ run: runs }, 201))
  })
  const url = serve(app.fetch)
  for (const replayed of [null, 'true']) {
    const response = await post(url, 'leased')
    expect([response.status, await response.json(), response.headers.get('idempotency-replayed')])
      .toEqual([201, { run: 1 }, replayed])
  }
  expect(await base.notes('leased-')).toEqual(['leased-1'])
})

test('the caller is whom withSupabase of @supabase/server has verified', async () => {
  const env = {
    url: 'http://127.0.0.1:1',
    publishableKeys: { default: 'sb_publishable_1' },
    secretKeys: { default: 'sb_secret_1' },
  }
  const app = new Hono<{ Variables: { supabaseContext: SupabaseContext } }>()
    .use(withSupabase({ auth: ['publishable', 'secret'], env }))
    .post(
      '*',
      withTransaction({ db, as: (c) => ({ caller: callerOf(c.var.supabaseContext) }) }),
      async (c) => {
        const [row] = await c.var.tx.query<{ role: string }>(sql`select current_user as role`)
        return c.text(row!.role)
      },
    )
  const url = serve(app.fetch)
  const ask = async (apikey: string) => {
    const response = await post(url, undefined, { headers: { apikey } })
    return response.ok ? await response.text() : (await response.text(), response.status)
  }
  expect(await ask('sb_publishable_1')).toBe('anon')
  expect(await ask('sb_secret_1')).toBe('service_role')
  expect(await ask('sb_secret_2')).toBe(401)
})

test('says who acts, or is not set up', () => {
  expect(() => withTransaction({ db } as never)).toThrow('give it as, which says who acts')
  // @ts-expect-error the types say so first
  expect(() => withIdempotency({ mode: 'atomic', db })).toThrow(TypeError)
})

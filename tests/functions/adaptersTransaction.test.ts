/** withTransaction in a real pipeline and in a real Hono app, over HTTP, on a real server. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Db } from '../../supabase/functions/_shared/db/client.ts'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import { adaId, adapters, note, type NotesDatabase, notesDatabase, post, serve } from '../support/adapters.ts'

let base: NotesDatabase
let db: Db

beforeAll(async () => {
  base = await notesDatabase()
  db = base.open()
})

afterAll(() => base.close())

/** What one test writes and asks begins with a name of its own. */
let tests = 0
const fresh = () => `n${++tests}`
const notes = (prefix: string) => base.notes(prefix)

describe.each(adapters)('$name: withTransaction', ({ transaction }) => {
  test('commits before the answer leaves, as the caller', async () => {
    const name = fresh()
    const url = serve(transaction({ db, log: base.log }, async (_request, { tx }) => {
      await tx.query(note(name))
      const [row] = await tx.query<{ who: string; role: string }>(
        sql`select auth.uid() as who, current_user as role`,
      )
      return Response.json(row, { status: 201, headers: { 'x-kept': 'yes' } })
    }))
    const response = await post(url)
    expect(await notes(name)).toEqual([name])
    expect(response.status).toBe(201)
    expect(response.headers.get('x-kept')).toBe('yes')
    expect(await response.json()).toEqual({ who: adaId, role: 'authenticated' })
  })

  test('rolls back when the handler throws, and leaves its error to whoever is in front', async () => {
    const name = fresh()
    const url = serve(transaction({ db, log: base.log }, async (_request, { tx }) => {
      await tx.query(note(name))
      throw new TypeError('of the handler')
    }))
    const response = await post(url)
    expect(response.status).toBe(500)
    expect(await response.text()).not.toContain('success')
    expect(await notes(name)).toEqual([])
  })

  test.each([400, 409, 500])(
    'rolls back when the handler answers %i, and sends that answer',
    async (status) => {
      const name = fresh()
      const url = serve(transaction({ db, log: base.log }, async (_request, { tx }) => {
        await tx.query(note(name))
        return new Response('refused by the handler', { status })
      }))
      const response = await post(url)
      expect([response.status, await response.text()]).toEqual([status, 'refused by the handler'])
      expect(await notes(name)).toEqual([])
    },
  )

  test('opens nothing before the first statement', async () => {
    const behind = base.openBehindProxy()
    const url = serve(
      transaction({ db: behind, log: base.log }, () => Promise.resolve(new Response('nothing'))),
    )
    const { counts, value } = await base.proxy.measure(() => post(url))
    expect(await value.text()).toBe('nothing')
    expect(counts).toMatchObject({ connections: 0, roundTrips: 0 })
  })

  test('answers a commit that is refused with the envelope, never with the success of the handler', async () => {
    const name = fresh()
    const url = serve(transaction({ db, log: base.log }, async (_request, { tx }) => {
      await tx.query(note(name))
      await tx.query(note(name))
      return Response.json({ fine: true }, { status: 201, headers: { location: '/notes/1' } })
    }))
    const response = await post(url, undefined, { headers: { 'x-request-id': `req-${name}` } })
    expect(response.status).toBe(409)
    expect(response.headers.get('location')).toBeNull()
    expect(response.headers.get('x-request-id')).toBe(`req-${name}`)
    expect(await response.json()).toMatchObject({
      success: false,
      error: { code: 'CONFLICT' },
      meta: { requestId: `req-${name}` },
    })
    expect(await notes(name)).toEqual([])
  })

  test('answers 503 when the connection is lost before the commit', async () => {
    const name = fresh()
    const url = serve(transaction({ db: base.openBehindProxy(), log: base.log }, async (_request, { tx }) => {
      await tx.query(note(name))
      base.proxy.cut()
      return new Response('fine')
    }))
    const response = await post(url)
    expect(response.status).toBe(503)
    expect(await response.json()).toMatchObject({ error: { code: 'SERVICE_UNAVAILABLE' } })
    expect(await notes(name)).toEqual([])
  })

  test('ends with its time, and answers 504 whatever the handler says then', async () => {
    const name = fresh()
    const url = serve(transaction({ db, log: base.log, timeoutMs: 150 }, async (_request, { tx }) => {
      await tx.query(note(name))
      await new Promise((resolve) => tx.signal.addEventListener('abort', resolve))
      return new Response('too late')
    }))
    const response = await post(url)
    expect(response.status).toBe(504)
    expect(await response.json()).toMatchObject({ error: { code: 'TRANSACTION_TIMED_OUT' } })
    expect(await notes(name)).toEqual([])
  })

  test('runs the handler once: of two that are in each other’s way, one is told to try again', async () => {
    const name = fresh()
    let runs = 0
    const meet = [meeting(2), meeting(2)]
    const url = serve(
      transaction({ db, log: base.log, isolation: 'serializable' }, async (_request, { tx }) => {
        const text = `${name}-${++runs}`
        await tx.query(sql`select count(*) from public.notes where text like ${`${name}%`}`)
        await meet[0]!()
        await tx.query(note(text))
        await meet[1]!()
        return new Response('fine')
      }),
    )
    const responses = await Promise.all([post(url), post(url)])
    const [, refused] = responses.toSorted((a, b) => a.status - b.status)
    expect(responses.map(({ status }) => status).toSorted()).toEqual([200, 409])
    expect(refused!.headers.get('retry-after')).toBe('0')
    await Promise.all(responses.map((response) => response.text()))
    expect(runs).toBe(2)
    expect(await notes(name)).toHaveLength(1)
  })
})

/** Everybody goes on once that many have come. */
function meeting(count: number): () => Promise<void> {
  const all = Promise.withResolvers<void>()
  return () => {
    if (--count === 0) all.resolve()
    return all.promise
  }
}

test.each([
  ['a timeout of 0', { timeoutMs: 0 }, RangeError],
  ['a timeout of NaN', { timeoutMs: NaN }, RangeError],
  ['an infinite timeout', { timeoutMs: Infinity }, RangeError],
  ['db and manager', { db: {}, manager: {} }, TypeError],
])('withTransaction refuses %s when it is set up', (_case, options, type) => {
  for (const { transaction } of adapters) {
    expect(() => serve(transaction(options as never, () => Promise.resolve(new Response())))).toThrow(type)
  }
})

/** withIdempotency in mode atomic in a real pipeline and in a real Hono app, over HTTP, on a real server. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Db, Tx } from '../../supabase/functions/_shared/db/client.ts'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import {
  adapters,
  graceId,
  note,
  type NotesDatabase,
  notesDatabase,
  post,
  serve,
} from '../support/adapters.ts'

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

describe.each(adapters)('$name: withIdempotency in mode atomic', ({ atomic, transaction }) => {
  test('commits the writes with the answer, and replays that byte for byte', async () => {
    const name = fresh()
    const text = '{ "kept" :\t"as it is", "☃": "\u2028" }\n'
    const url = serve(atomic({ db, log: base.log }, async (_request, { tx }) => {
      await tx.query(note(name))
      const headers = new Headers({ 'content-type': 'application/vnd.notes+json', etag: '"1"' })
      headers.append('set-cookie', 'a=1; Path=/')
      headers.append('set-cookie', 'b=2; Path=/')
      return new Response(text, { status: 201, headers })
    }))
    const answers = []
    for (let i = 0; i < 3; i++) {
      const response = await post(url, name)
      answers.push({ response, body: await response.text() })
    }
    for (const { response: { status, headers }, body } of answers) {
      expect([status, body]).toEqual([201, text])
      expect(headers.get('content-type')).toBe('application/vnd.notes+json')
      expect(headers.get('etag')).toBe('"1"')
      expect(headers.getSetCookie()).toEqual(['a=1; Path=/', 'b=2; Path=/'])
    }
    expect(answers.map(({ response }) => response.headers.get('idempotency-replayed'))).toEqual([
      null,
      'true',
      'true',
    ])
    expect(await notes(name)).toEqual([name])
  })

  test('costs one round trip more than a transaction, and a replay one in all', async () => {
    const name = fresh()
    const behind = { db: base.openBehindProxy(), log: base.log }
    const handler = async (_request: Request, { tx }: { tx: Tx }) => {
      await tx.query(note(`${name}-${crypto.randomUUID()}`))
      return new Response('fine')
    }
    const trips = async (url: string, key: string) => {
      const { counts } = await base.proxy.measure(async () => await (await post(url, key)).text())
      return counts.roundTrips
    }
    const [plain, keyed] = [serve(transaction(behind, handler)), serve(atomic(behind, handler))]
    await trips(plain, 'opens the connection')
    expect(await trips(keyed, name)).toBeLessThanOrEqual(await trips(plain, name) + 1)
    expect(await trips(keyed, name)).toBe(1)
  })

  test('replays an answer without a body', async () => {
    const name = fresh()
    const url = serve(atomic({ db, log: base.log }, async (_request, { tx }) => {
      await tx.query(note(name))
      return new Response(null, { status: 204 })
    }))
    expect((await post(url, name)).status).toBe(204)
    const again = await post(url, name)
    expect([again.status, again.headers.get('idempotency-replayed')]).toEqual([204, 'true'])
  })

  test('runs once for one key sent twenty times at once to two isolates', async () => {
    const name = fresh()
    let runs = 0
    const isolate = () =>
      serve(atomic({ db: base.open(), log: base.log }, async (_request, { tx }) => {
        runs++
        await tx.query(sql`select pg_sleep(0.05)`)
        await tx.query(note(name))
        return Response.json({ run: runs }, { status: 201 })
      }))
    const urls = [isolate(), isolate()]
    const responses = await Promise.all(Array.from({ length: 20 }, (_, i) => post(urls[i % 2]!, name)))
    const bodies = await Promise.all(responses.map((response) => response.text()))
    expect(new Set(responses.map(({ status }) => status))).toEqual(new Set([201]))
    expect(new Set(bodies).size).toBe(1)
    expect(responses.filter(({ headers }) => headers.has('idempotency-replayed'))).toHaveLength(19)
    expect(runs).toBe(1)
    expect(await notes(name)).toEqual([name])
  })

  test('refuses with 409 and Retry-After while another isolate runs it for longer than waitMs', async () => {
    const name = fresh()
    const running = Promise.withResolvers<void>()
    const finish = Promise.withResolvers<void>()
    const first = serve(atomic({ db, log: base.log }, async (_request, { tx }) => {
      await tx.query(note(name))
      running.resolve()
      await finish.promise
      return new Response('first')
    }))
    const second = serve(atomic({ db: base.open(), log: base.log, waitMs: 0 }, () => {
      throw new Error('never runs')
    }))
    const pending = post(first, name)
    await running.promise
    const refused = await post(second, name)
    finish.resolve()
    expect(refused.status).toBe(409)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(0)
    expect(refused.headers.has('retry-after')).toBe(true)
    expect(await refused.json()).toMatchObject({ error: { code: 'IDEMPOTENCY_KEY_IN_USE' } })
    expect(await (await pending).text()).toBe('first')
    expect(await (await post(second, name)).text()).toBe('first')
  })

  test('tells a request from another by its values, its path and its caller', async () => {
    const name = fresh()
    let runs = 0
    const url = serve(atomic({ db, log: base.log }, async (_request, { tx }) => {
      await tx.query(note(`${name}-${++runs}`))
      return new Response(`run ${runs}`)
    }))
    const json = { 'content-type': 'application/json' }
    const ask = async (body: string, options: { path?: string; headers?: Record<string, string> } = {}) => {
      const response = await post(url + (options.path ?? ''), name, {
        body,
        headers: { ...json, ...options.headers },
      })
      const text = await response.text()
      return response.status === 200 ? text : JSON.parse(text).error.code
    }
    expect(await ask('{"a":1,"b":[2]}')).toBe('run 1')
    expect(await ask('{ "b": [2.0], "a": 1 }')).toBe('run 1')
    expect(await ask('{"a":1,"b":[3]}')).toBe('IDEMPOTENCY_KEY_REUSED')
    expect(await ask('{"a":1,"b":[2]} ', { headers: { 'content-type': 'text/plain' } })).toBe(
      'IDEMPOTENCY_KEY_REUSED',
    )
    expect(await ask('{"a":1,"b":[2]}', { path: '?page=2' })).toBe('IDEMPOTENCY_KEY_REUSED')
    expect(await ask('{"a":1,"b":[2]}', { path: '/other' })).toBe('run 2')
    expect(await ask('{"a":1,"b":[2]}', { headers: { 'x-test-user': graceId } })).toBe('run 3')
  })

  test.each([
    ['none', {}, 'IDEMPOTENCY_KEY_REQUIRED'],
    ['one of 256 characters', { 'idempotency-key': 'k'.repeat(256) }, 'IDEMPOTENCY_KEY_INVALID'],
    ['two', { 'idempotency-key': '"a", "b"' }, 'IDEMPOTENCY_KEY_INVALID'],
  ])('refuses a request with the key: %s', async (_case, headers, code) => {
    const url = serve(atomic({ db, log: base.log, docsUrl: 'https://example.com/keys' }, () => {
      throw new Error('never runs')
    }))
    const response = await post(url, undefined, { headers })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ error: { code } })
    const link = code === 'IDEMPOTENCY_KEY_REQUIRED' ? '<https://example.com/keys>; rel="describedby"' : null
    expect(response.headers.get('link')).toBe(link)
  })

  test('refuses a body above maxBodyBytes', async () => {
    const url = serve(atomic({ db, log: base.log, maxBodyBytes: 10 }, () => {
      throw new Error('never runs')
    }))
    const response = await post(url, fresh(), { body: 'x'.repeat(11) })
    expect([response.status, (await response.json()).error.code]).toEqual([413, 'PAYLOAD_TOO_LARGE'])
  })

  test('is a plain transaction for a GET, and without a key where none is required', async () => {
    const name = fresh()
    let runs = 0
    const url = serve(atomic({ db, log: base.log, required: false }, async ({ method }, { tx }) => {
      await tx.query(note(`${name}-${method}-${++runs}`))
      return new Response('fine', { status: runs === 3 ? 400 : 200 })
    }))
    for (const response of [await fetch(url), await post(url), await post(url)]) await response.text()
    expect(await notes(name)).toEqual([`${name}-GET-1`, `${name}-POST-2`])
  })

  test('takes the writes of a refusal back and replays the refusal; what may pass next time runs again', async () => {
    const name = fresh()
    const statuses = [503, 429, 409, 201]
    const url = serve(atomic({ db, log: base.log }, async (_request, { tx }) => {
      const status = statuses.shift()!
      await tx.query(note(`${name}-${status}`))
      return new Response(`answer ${status}`, { status })
    }))
    const seen = []
    for (let i = 0; i < 4; i++) {
      const response = await post(url, name)
      seen.push([response.status, await response.text(), response.headers.get('idempotency-replayed')])
    }
    expect(seen).toEqual([
      [503, 'answer 503', null],
      [429, 'answer 429', null],
      [409, 'answer 409', null],
      [409, 'answer 409', 'true'],
    ])
    expect(await notes(name)).toEqual([])
  })

  test('keeps no refusal that the handler made of a deadlock or a lost connection', async () => {
    const name = fresh()
    let fail = true
    const url = serve(atomic({ db: base.openBehindProxy(), log: base.log }, async (_request, { tx }) => {
      try {
        await tx.query(note(name))
        if (fail) base.proxy.cut()
        await tx.query(sql`select 1`)
        return new Response('fine')
      } catch {
        return new Response('busy', { status: 409 })
      }
    }))
    expect(await (await post(url, name)).text()).toBe('busy')
    fail = false
    const again = await post(url, name)
    expect([again.status, await again.text(), again.headers.has('idempotency-replayed')]).toEqual([
      200,
      'fine',
      false,
    ])
    expect(await notes(name)).toEqual([name])
  })

  test('leaves nothing when the handler throws, and the retry runs afresh', async () => {
    const name = fresh()
    let fail = true
    const url = serve(atomic({ db, log: base.log }, async (_request, { tx }) => {
      await tx.query(note(name))
      if (fail) throw new Error('of the handler')
      return new Response('fine')
    }))
    const failed = await post(url, name)
    expect(failed.status).toBe(500)
    await failed.text()
    expect(await notes(name)).toEqual([])
    fail = false
    expect(await (await post(url, name)).text()).toBe('fine')
    expect(await notes(name)).toEqual([name])
  })

  test('leaves nothing when the connection is lost between a write and the commit', async () => {
    const name = fresh()
    let fail = true
    const url = serve(atomic({ db: base.openBehindProxy(), log: base.log }, async (_request, { tx }) => {
      await tx.query(note(name))
      if (fail) base.proxy.cut()
      return new Response('fine')
    }))
    const lost = await post(url, name)
    expect([lost.status, (await lost.json()).success]).toEqual([503, false])
    expect(await notes(name)).toEqual([])
    fail = false
    expect(await (await post(url, name)).text()).toBe('fine')
    expect(await notes(name)).toEqual([name])
  })

  test('does not act twice when the answer to the commit is lost', async () => {
    const name = fresh()
    let runs = 0
    const url = serve(atomic({ db: base.openBehindProxy(), log: base.log }, async (_request, { tx }) => {
      runs++
      await tx.query(note(name))
      void base.proxy.loseAnswer('commit')
      return new Response('fine')
    }))
    const first = await post(url, name)
    await first.text()
    const again = await post(url, name)
    expect([again.status, await again.text(), again.headers.get('idempotency-replayed')]).toEqual([
      200,
      'fine',
      'true',
    ])
    expect(runs).toBe(1)
    expect(await notes(name)).toEqual([name])
  })

  test('answers a commit that is refused with the envelope and stores nothing', async () => {
    const name = fresh()
    let twice = true
    const url = serve(atomic({ db, log: base.log }, async (_request, { tx }) => {
      await tx.query(note(name))
      if (twice) await tx.query(note(name))
      return new Response('fine')
    }))
    const refused = await post(url, name)
    expect([refused.status, (await refused.json()).error.code]).toEqual([409, 'CONFLICT'])
    twice = false
    expect(await (await post(url, name)).text()).toBe('fine')
  })

  test.each([
    ['a binary body', () => new Response(new Uint8Array([0xff, 0xfe])), 'its body is not text'],
    ['a null character', () => new Response('a\0b'), 'its body is not text'],
    [
      'events',
      () => new Response(':\n\n', { headers: { 'content-type': 'text/event-stream' } }),
      'it is a stream of events',
    ],
    ['an endless stream', () => new Response(endless()), 'it has more than 100 bytes'],
    ['too many bytes', () => new Response('☃'.repeat(34)), 'it has more than 100 bytes'],
  ])('refuses to store %s, and commits nothing', async (_case, answer, found) => {
    const name = fresh()
    const url = serve(atomic({ db, log: base.log, maxStoredBytes: 100 }, async (_request, { tx }) => {
      await tx.query(note(name))
      return answer()
    }))
    const response = await post(url, name)
    expect([response.status, (await response.json()).error.code]).toEqual([500, 'INTERNAL_ERROR'])
    expect(base.logged.at(-1)).toContain(`Cannot store the answer of POST /shop/notes: ${found}`)
    expect(await notes(name)).toEqual([])
  })
})

function endless(): ReadableStream<Uint8Array> {
  return new ReadableStream({ pull: (controller) => controller.enqueue(new TextEncoder().encode('more ')) })
}

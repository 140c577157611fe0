/**
 * Idempotency keys over real HTTP, on three isolates and real PostgreSQL: rules IK3 to IK7 of CONFORMANCE.md, in both
 * modes. The function is tests/fixtures/idempotency; idempotencyKeys.test.ts has IK1 and IK2, idempotencyFailures.test.ts IK8.
 */
import { beforeAll, describe, expect, test } from 'vitest'
import { anotherUser, startThings, type ThingAnswer } from '../fixtures/idempotencyProject.ts'

let things: Awaited<ReturnType<typeof startThings>>

beforeAll(async () => {
  things = await startThings({ isolates: 3 })
})

const modes = ['atomic', 'leased'] as const

let named = 0

/** A name for one test's things. */
const newName = () => `thing ${++named}`
const newKey = () => crypto.randomUUID()

const once = { runs: 1, things: 1 }

function expectError({ status, json }: ThingAnswer, code: string, expected: number): void {
  expect([status, json.error?.code]).toEqual([expected, code])
}

describe.each(modes)('a key (%s)', (mode) => {
  const path = `/${mode}`

  test('IK5: a repeated request is answered as the first was, byte for byte, and marked', async () => {
    const name = newName()
    const key = newKey()
    const first = await things.post(path, { name }, { key })
    const second = await things.post(path, { name }, { key })
    expect([first.status, first.replayed]).toEqual([201, false])
    expect([second.status, second.replayed]).toEqual([201, true])
    expect(second.text).toBe(first.text)
    for (const answer of [first, second]) {
      expect(answer.headers.getSetCookie()).toEqual(['a=1; Path=/', 'b=2; HttpOnly'])
      expect(answer.headers.get('location')).toBe('/things/1')
      expect(answer.headers.get('content-type')).toBe('application/json; charset=utf-8')
    }
    expect(await things.made(name)).toMatchObject(once)
  })

  test('IK5: what stands around a replay is its own: request id, CORS and security headers', async () => {
    const name = newName()
    const key = newKey()
    await things.post(path, { name }, { key, headers: { 'x-request-id': 'first' } })
    const { headers, json } = await things.post(path, { name }, {
      key,
      headers: { 'x-request-id': 'second' },
    })
    expect(json.meta.requestId).toBe('first')
    expect(Object.fromEntries(headers)).toMatchObject({
      'x-request-id': 'second',
      'access-control-allow-origin': '*',
      'x-frame-options': 'DENY',
    })
  })

  test('IK5: a refusal that the handler chose is replayed, with its headers', async () => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'refuse')
    const first = await things.post(path, { name }, { key })
    const second = await things.post(path, { name }, { key })
    expectError(first, 'NO_ROOM', 409)
    expect([second.status, second.text, second.replayed]).toEqual([409, first.text, true])
    expect([first.headers.get('x-room'), second.headers.get('x-room')]).toEqual(['none', 'none'])
    expect(await things.made(name)).toMatchObject({ runs: 1, things: 0 })
  })

  test('IK5: a stored refusal stays the problem document that the first caller asked for', async () => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'refuse')
    const first = await things.post(path, { name }, { key, headers: { accept: 'application/problem+json' } })
    const second = await things.post(path, { name }, { key })
    expect(first.json).toMatchObject({ status: 409, title: 'Conflict', code: 'NO_ROOM' })
    expect([second.text, second.headers.get('content-type')]).toEqual([
      first.text,
      'application/problem+json',
    ])
  })

  test.each([
    ['fail', 500, 'INTERNAL_ERROR'],
    ['busy', 429, 'RATE_LIMITED'],
  ])('IK5: an answer that may be another next time is not stored: %s', async (mishap, status, code) => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, mishap)
    expectError(await things.post(path, { name }, { key }), code, status)
    expect((await things.made(name)).things).toBe(0)
    const second = await things.post(path, { name }, { key })
    expect([second.status, second.replayed]).toEqual([201, false])
    expect(await things.made(name)).toMatchObject({ runs: 2, things: 1 })
  })

  test('IK3: a body that differs in one byte is refused with 422, and nothing is written', async () => {
    const name = newName()
    const key = newKey()
    const first = await things.post(path, { name, note: 'a' }, { key })
    const before = [await things.made(name), await things.keys()]
    expectError(await things.post(path, { name, note: 'b' }, { key }), 'IDEMPOTENCY_KEY_REUSED', 422)
    expect([await things.made(name), await things.keys()]).toEqual(before)
    expect((await things.post(path, { name, note: 'a' }, { key })).text).toBe(first.text)
  })

  test('IK3: white space and the order of members make no other request', async () => {
    const name = newName()
    const key = newKey()
    const first = await things.post(path, `{"name":"${name}","note":{"a":1,"b":[2]}}`, { key })
    const second = await things.post(path, `{ "note": {"b": [2.0], "a": 1},\n "name": "${name}" }`, { key })
    expect([second.text, second.replayed]).toEqual([first.text, true])
  })

  test('IK3: a different body is refused at once while the first is still running', async () => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'wait')
    await things.gate(async (gate) => {
      const first = things.post(path, { name, note: 'a' }, { key })
      await gate.arrived()
      // To each isolate: in memory, and through the database.
      const others = [1, 2, 3].map(() => things.post(path, { name, note: 'b' }, { key }))
      for (const other of await Promise.all(others)) expectError(other, 'IDEMPOTENCY_KEY_REUSED', 422)
      await gate.open()
      expect((await first).status).toBe(201)
    })
    expect(await things.made(name)).toMatchObject(once)
  })

  test('IK4: the same request that is still running is 409 after the wait of the route, with Retry-After', async () => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'wait')
    await things.gate(async (gate) => {
      const first = things.post(`${path}/brief`, { name }, { key })
      await gate.arrived()
      const others = [1, 2, 3].map(() => things.post(`${path}/brief`, { name }, { key }))
      for (const other of await Promise.all(others)) {
        expectError(other, 'IDEMPOTENCY_KEY_IN_USE', 409)
        expect(Number(other.headers.get('retry-after'))).toBeGreaterThan(0)
      }
      await gate.open()
      expect((await first).status).toBe(201)
    })
    expect(await things.made(name)).toMatchObject(once)
  })

  test('IK4: whoever waits long enough gets the answer of the first', async () => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'wait')
    await things.gate(async (gate) => {
      const first = things.post(path, { name }, { key })
      await gate.arrived()
      const others = [1, 2, 3].map(() => things.post(path, { name }, { key }))
      await gate.open()
      const { text } = await first
      expect((await Promise.all(others)).map((answer) => [answer.status, answer.text, answer.replayed]))
        .toEqual(Array(3).fill([201, text, true]))
    })
    expect(await things.made(name)).toMatchObject(once)
  })

  test('100 concurrent requests over three isolates run once and all get the one answer', async () => {
    const name = newName()
    const key = newKey()
    const answers = await Promise.all(Array.from({ length: 100 }, () => things.post(path, { name }, { key })))
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1)
    expect(answers.filter(({ replayed }) => !replayed)).toHaveLength(1)
    expect(answers.every(({ status }) => status === 201)).toBe(true)
    expect(await things.made(name)).toMatchObject(once)
    expect(things.stack.host.isolates().length).toBe(3)
  })

  test('IK6: an expired one is a new request', async () => {
    const name = newName()
    const key = newKey()
    const first = await things.post(path, { name }, { key })
    await things.admin`
      update holdfast.idempotency_keys set expires_at = clock_timestamp()
      where request_id = ${first.json.meta.requestId}`
    const second = await things.post(path, { name }, { key })
    expect([second.status, second.replayed]).toEqual([201, false])
    expect(await things.made(name)).toMatchObject({ runs: 2, things: 2 })
    expect((await things.post(path, { name }, { key })).text).toBe(second.text)
  })

  test('IK6: is kept for a day', async () => {
    const { json } = await things.post(path, { name: newName() })
    const [row] = await things.admin`
      select extract(epoch from expires_at - now()) as seconds from holdfast.idempotency_keys
      where request_id = ${json.meta.requestId}`
    expect(Math.abs(Number(row!.seconds) - 86_400)).toBeLessThan(60)
  })

  test("IK6: is the caller's own: another caller with the same one is another request", async () => {
    const name = newName()
    const key = newKey()
    const mine = await things.post(path, { name }, { key })
    const theirs = await things.post(path, { name }, { key, userId: anotherUser })
    expect([theirs.status, theirs.replayed]).toEqual([201, false])
    expect(theirs.json.data.id).not.toBe(mine.json.data.id)
    // Nor does another body of theirs tell them that the key was used.
    const other = await things.post(path, { name: newName() }, { key: newKey(), userId: anotherUser })
    expect(other.status).toBe(201)
  })

  test('IK6: is for one route: on another one it is another request', async () => {
    const name = newName()
    const key = newKey()
    await things.post(path, { name }, { key })
    const other = await things.post(`${path}/brief`, { name }, { key })
    expect([other.status, other.replayed]).toEqual([201, false])
  })

  test.each([
    ['a body that is not valid', 400, { name: '' }, {}],
    ['a body that is no JSON', 400, '{', {}],
    ['another type of content', 415, { name: 'x' }, { 'content-type': 'text/plain' }],
    ['a body that is too large', 413, { name: 'x', note: 'x'.repeat(100_000) }, {}],
    ['a token that is not valid', 401, { name: 'x' }, { authorization: 'Bearer a.b.c' }],
    ['no token', 401, { name: 'x' }, { authorization: '' }],
  ])('IK7: with %s nothing is stored, and the key stays free', async (_, status, body, headers) => {
    const name = newName()
    const key = newKey()
    const before = await things.keys()
    const refused = await things.post(path, body, { key, headers: headers as Record<string, string> })
    expect([refused.status, await things.keys()]).toEqual([status, before])
    const valid = await things.post(path, { name }, { key })
    expect([valid.status, valid.replayed]).toEqual([201, false])
  })

  test('IK7: a request that conflicts stores nothing', async () => {
    const name = newName()
    const key = newKey()
    await things.post(path, { name }, { key })
    const stored = () => things.admin`select * from holdfast.idempotency_keys order by id`
    const before = [...await stored()]
    expectError(await things.post(path, { name, note: 1 }, { key }), 'IDEMPOTENCY_KEY_REUSED', 422)
    expect([...await stored()]).toEqual(before)
  })

  test('an answer above maxStoredBytes fails, and commits nothing in the transaction of its key', async () => {
    const name = newName().padEnd(100, '.')
    const answer = await things.post(`${path}/small`, { name })
    expectError(answer, 'INTERNAL_ERROR', 500)
    if (mode === 'atomic') expect((await things.made(name)).things).toBe(0)
  })
})

describe('a route without a body', () => {
  test('tells requests apart by path and query', async () => {
    const made = await Promise.all([1, 2].map(() => things.post('/atomic', { name: newName() })))
    const [first, second] = made.map(({ json }) => json.data.id)
    const key = newKey()
    const remove = (path: string) => things.post(path, undefined, { key, method: 'DELETE' })
    const answer = await remove(`/${first}?why=a`)
    expect([answer.status, answer.json.data]).toEqual([200, { deleted: 1 }])
    expect(await remove(`/${first}?why=a`)).toMatchObject({ text: answer.text, replayed: true })
    expectError(await remove(`/${second}?why=a`), 'IDEMPOTENCY_KEY_REUSED', 422)
    expectError(await remove(`/${first}?why=b`), 'IDEMPOTENCY_KEY_REUSED', 422)
    expectError(await remove(`/${first}`), 'IDEMPOTENCY_KEY_REUSED', 422)
  })

  test('replays what was not found', async () => {
    const key = newKey()
    const remove = () => things.post('/999999999', undefined, { key, method: 'DELETE' })
    const first = await remove()
    expectError(first, 'NOT_FOUND', 404)
    expect(await remove()).toMatchObject({ text: first.text, replayed: true })
  })
})

describe.each([
  '/statement',
  '/statement/optional',
  '/completed',
  '/completed/statement',
])('an answer that commits with its transaction: %s', (path) => {
  test('is sent as it is stored', async () => {
    const name = newName()
    const key = newKey()
    const first = await things.post(path, { name }, { key })
    expect([first.status, first.replayed, first.json]).toEqual([201, false, {
      success: true,
      data: { id: expect.any(Number), name },
      meta: { requestId: first.headers.get('x-request-id'), timestamp: expect.any(String) },
    }])
    const second = await things.post(path, { name }, { key })
    expect([second.status, second.text, second.replayed]).toEqual([201, first.text, true])
    expect(second.headers.getSetCookie()).toEqual(['a=1; Path=/', 'b=2; HttpOnly'])
    expect((await things.made(name)).things).toBe(1)
  })

  test('is not stored where the transaction fails', async () => {
    const key = newKey()
    // The table refuses this name: a mistake of ours.
    for (const _ of [1, 2]) {
      expectError(await things.post(path, { name: 'forbidden' }, { key }), 'INTERNAL_ERROR', 500)
    }
    expect((await things.made('forbidden')).things).toBe(0)
    const stored = await things.admin`select 1 from holdfast.idempotency_keys where status >= 500`
    expect([...stored]).toEqual([])
  })

  test('IK5: is the refusal of its statement, and that is replayed', async () => {
    const name = `only one ${newName()}`
    const key = newKey()
    await things.post(path, { name })
    const first = await things.post(path, { name }, { key })
    expectError(first, 'CONFLICT', 409)
    await things.admin`delete from public.things where name = ${name}`
    const second = await things.post(path, { name }, { key })
    expect([second.status, second.text, second.replayed]).toEqual([409, first.text, true])
    expect((await things.made(name)).things).toBe(0)
  })
})

test('a statement without a key answers the same way, and is not stored', async () => {
  const name = newName()
  const before = await things.keys()
  const answer = await things.post('/statement/optional', { name }, { key: undefined })
  expect([answer.status, answer.json.data]).toEqual([201, { id: expect.any(Number), name }])
  expect(await things.keys()).toBe(before)
})

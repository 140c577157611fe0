/** What is a key and what is none, over real HTTP: rules IK1 and IK2 of CONFORMANCE.md, in both modes. */
import { beforeAll, describe, expect, test } from 'vitest'
import { aUser, startThings, type ThingAnswer } from '../fixtures/idempotencyProject.ts'

let things: Awaited<ReturnType<typeof startThings>>

beforeAll(async () => {
  things = await startThings({ isolates: 1 })
})

const modes = ['atomic', 'leased'] as const

let named = 0

/** A name for one test's things. */
const newName = () => `thing ${++named}`
const newKey = () => crypto.randomUUID()

const once = { runs: 1, things: 1 }
const never = { runs: 0, things: 0, effects: 0 }

function expectError({ status, json }: ThingAnswer, code: string, expected: number): void {
  expect([status, json.error?.code]).toEqual([expected, code])
}

/** Sends header lines exactly as they are given, which no HTTP client does. */
async function sendRaw(
  path: string,
  body: string,
  lines: string[],
): Promise<{ status: number; text: string }> {
  const connection = await Deno.connect({ hostname: '127.0.0.1', port: things.stack.port })
  try {
    const head = [
      `POST /functions/v1/things${path} HTTP/1.1`,
      'host: 127.0.0.1',
      'connection: close',
      'content-type: application/json',
      `content-length: ${body.length}`,
      `authorization: Bearer ${await things.token(aUser)}`,
      ...lines,
    ]
    await connection.write(Uint8Array.from(`${head.join('\r\n')}\r\n\r\n${body}`, (c) => c.charCodeAt(0)))
    const text = await new Response(connection.readable).text()
    return { status: Number(text.split(' ')[1]), text }
  } finally {
    try {
      connection.close()
    } catch {
      // Reading to the end has closed it.
    }
  }
}

describe.each(modes)('a key (%s)', (mode) => {
  const path = `/${mode}`

  test('IK1: quoted, bare, with parameters or in the body, it is the same key', async () => {
    const name = newName()
    const key = newKey()
    const first = await things.post(path, { name }, { key })
    const others = [
      await things.post(path, { name }, { key: `"${key}"` }),
      await things.post(path, { name }, { key: `"${key}";v=1` }),
      await things.post(path, { name, idempotencyKey: key }, { key: undefined }),
      await things.post(path, { idempotencyKey: key, name }, { key: `"${key}"` }),
    ]
    expect(others.map(({ text, replayed }) => [text, replayed])).toEqual(Array(4).fill([first.text, true]))
    expect(await things.made(name)).toMatchObject(once)
  })

  test.each([
    ['256 characters', 'k'.repeat(256)],
    ['256 characters in quotes', `"${'k'.repeat(256)}"`],
    ['no characters', '""'],
    ['nothing', ''],
    ['unicode', '"schl\u00fcssel"'],
    ['a list', '"a", "b"'],
    ['an open quote', '"a'],
  ])('IK1: of %s is refused and nothing runs', async (_, key) => {
    const name = newName()
    const before = await things.keys()
    expectError(await things.post(path, { name }, { key }), 'IDEMPOTENCY_KEY_INVALID', 400)
    expect([await things.made(name), await things.keys()]).toEqual([never, before])
  })

  test.each([
    ['a control character', 'a\nb'],
    ['256 characters', 'k'.repeat(256)],
    ['unicode', 'schlüssel'],
    ['no characters', ''],
    ['another type', 7],
    ['null', null],
  ])('IK1: in the body, of %s, is refused and nothing runs', async (_, idempotencyKey) => {
    const name = newName()
    const before = await things.keys()
    const answer = await things.post(path, { name, idempotencyKey }, { key: undefined })
    expectError(answer, 'IDEMPOTENCY_KEY_INVALID', 400)
    expect([await things.made(name), await things.keys()]).toEqual([never, before])
  })

  test('IK1: of 255 characters is a key', async () => {
    const name = newName()
    const key = `${newKey()}${'k'.repeat(219)}`
    expect(key).toHaveLength(255)
    await things.post(path, { name }, { key })
    expect((await things.post(path, { name }, { key })).replayed).toBe(true)
  })

  test('IK1: two headers are refused, also with the same key, and nothing runs', async () => {
    const name = newName()
    for (const other of ['b', 'a']) {
      const lines = ['idempotency-key: "a"', `idempotency-key: "${other}"`]
      const { status, text } = await sendRaw(path, JSON.stringify({ name }), lines)
      expect([status, text]).toEqual([400, expect.stringContaining('IDEMPOTENCY_KEY_INVALID')])
    }
    expect(await things.made(name)).toEqual(never)
  })

  test('IK1: a control character or a byte above ASCII in the header is refused, and nothing runs', async () => {
    const name = newName()
    for (const byte of ['\x01', '\x7f', '\xfc']) {
      const { status } = await sendRaw(path, JSON.stringify({ name }), [`idempotency-key: "a${byte}b"`])
      expect(status).toBe(400)
    }
    expect(await things.made(name)).toEqual(never)
  })

  test('IK1: another one in the header than in the body is refused', async () => {
    const name = newName()
    const answer = await things.post(path, { name, idempotencyKey: 'a' }, { key: 'b' })
    expectError(answer, 'IDEMPOTENCY_KEY_INVALID', 400)
    expect(await things.made(name)).toEqual(never)
  })

  test('IK2: that is missing is asked for, with a link to the page about it, and nothing runs', async () => {
    const name = newName()
    const answer = await things.post(path, { name }, { key: undefined })
    expectError(answer, 'IDEMPOTENCY_KEY_REQUIRED', 400)
    const { documentation } = answer.json.error.details
    expect(documentation).toMatch(/^https:/)
    expect(answer.headers.get('link')).toBe(`<${documentation}>; rel="describedby"`)
    expect(await things.made(name)).toEqual(never)
  })

  test('IK2: that may be left out is used where it is there', async () => {
    const name = newName()
    const without = [1, 2].map(() => things.post(`${path}/optional`, { name }, { key: undefined }))
    expect((await Promise.all(without)).map(({ status, replayed }) => [status, replayed]))
      .toEqual([[201, false], [201, false]])
    expect(await things.made(name)).toMatchObject({ runs: 2, things: 2 })
    const key = newKey()
    await things.post(`${path}/optional`, { name }, { key })
    expect((await things.post(`${path}/optional`, { name }, { key })).replayed).toBe(true)
    expect(await things.made(name)).toMatchObject({ runs: 3, things: 3 })
  })
})

describe('GET and HEAD', () => {
  test('take no notice of a key', async () => {
    const key = newKey()
    const get = async (method: string) => {
      const response = await fetch(`${things.stack.functionsUrl}/things`, {
        method,
        headers: { 'idempotency-key': key },
      })
      return [response.status, response.headers.has('idempotency-replayed'), await response.text()] as const
    }
    const [status, replayed, text] = await get('GET')
    expect([status, replayed]).toEqual([200, false])
    expect((await get('GET'))[2]).not.toBe(text)
    expect(await get('HEAD')).toEqual([200, false, ''])
  })
})

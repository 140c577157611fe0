import { describe, expect, test } from 'vitest'
import { readJson } from '../../../supabase/functions/_shared/http/body.ts'

function post(
  body: BodyInit | null,
  headers: Record<string, string> = { 'content-type': 'application/json' },
) {
  return new Request('http://x/', { method: 'POST', body, headers })
}

describe('readJson()', () => {
  test.each([
    'application/json',
    'application/json; charset=utf-8',
    'APPLICATION/JSON',
    'application/vnd.api+json',
  ])(
    'takes %s',
    async (type) => {
      expect(await readJson(post('{"a":[1]}', { 'content-type': type }), 100)).toEqual({ a: [1] })
    },
  )

  test.each([
    'text/plain',
    'application/jsonp',
    'multipart/form-data',
    'application/x-www-form-urlencoded',
    '',
  ])(
    'refuses %j with UNSUPPORTED_MEDIA_TYPE',
    async (type) => {
      await expect(readJson(post('{}', { 'content-type': type }), 100)).rejects.toMatchObject({
        code: 'UNSUPPORTED_MEDIA_TYPE',
        status: 415,
      })
    },
  )

  test.each(['', '{', '{"a":}', 'undefined', '\ufeff\ufeff{}', "{'a':1}"])(
    'refuses %j with VALIDATION_ERROR',
    async (text) => {
      await expect(readJson(post(text), 100)).rejects.toMatchObject({ code: 'VALIDATION_ERROR', status: 400 })
    },
  )

  test('refuses what is not UTF-8', async () => {
    await expect(readJson(post(new Uint8Array([0x22, 0xff, 0x22])), 100)).rejects.toMatchObject({
      code: 'VALIDATION_ERROR',
    })
  })

  test('joins chunks, also where a character is cut in two', async () => {
    const bytes = new TextEncoder().encode('{"snow":"\u2603"}')
    const stream = new ReadableStream({
      start(controller) {
        for (const byte of bytes) controller.enqueue(Uint8Array.of(byte))
        controller.close()
      },
    })
    expect(await readJson(post(stream), 100)).toEqual({ snow: '\u2603' })
  })

  test('stops reading a body without a length as soon as it is too large', async () => {
    let pulled = 0
    let cancelled = false
    const endless = new ReadableStream({
      pull(controller) {
        pulled++
        controller.enqueue(new Uint8Array(1_000))
      },
      cancel() {
        cancelled = true
      },
    })
    await expect(readJson(post(endless), 10_000)).rejects.toMatchObject({
      code: 'PAYLOAD_TOO_LARGE',
      status: 413,
    })
    expect(cancelled).toBe(true)
    expect(pulled).toBeLessThan(20)
  })

  test('takes exactly the limit and refuses one byte more', async () => {
    const text = `"${'x'.repeat(98)}"`
    expect(await readJson(post(text), 100)).toHaveLength(98)
    await expect(readJson(post(text), 99)).rejects.toMatchObject({ code: 'PAYLOAD_TOO_LARGE' })
  })
})

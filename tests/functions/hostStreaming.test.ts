import { describe, expect, test } from 'vitest'
import { platformAnswer, testHost } from '../fixtures/hostProject.ts'
import { waitFor } from '../support/wait.ts'

const host = await testHost()

describe('a response', () => {
  test('arrives piece by piece: the first before the last is sent', async () => {
    const response = await host.ask('/stream?down')
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
    expect((await reader?.read())?.value).toContain('line 0')
    expect((await reader?.read())?.value).toContain('line')
    await reader?.cancel()
  })

  test('that the caller gives up ends in the function, too', async () => {
    const response = await host.ask('/stream?down&name=given-up')
    await response.body?.cancel()
    await heardOf('given-up')
  })

  test('that the function has encoded itself arrives encoded, byte for byte', async () => {
    const response = await host.ask('/stream?encoded')
    expect(response.headers.get('content-encoding')).toBe('gzip')
    const text = response.body?.pipeThrough(new DecompressionStream('gzip'))
    expect(await new Response(text).text()).toBe('compressed by the function')
  })

  test('keeps its status, each Set-Cookie and redirects as they are', async () => {
    const response = await host.ask('/trouble?do=headers')
    expect(response.status).toBe(307)
    expect(response.headers.get('location')).toBe('/elsewhere')
    expect(response.headers.getSetCookie()).toEqual(['a=1; Path=/', 'b=2; HttpOnly'])
  })

  test('without a body has none: 204, 304 and HEAD', async () => {
    for (const status of [204, 304]) {
      const response = await host.ask(`/trouble?do=empty&status=${status}`)
      expect([response.status, response.body]).toEqual([status, null])
    }
    const head = await host.ask('/trouble', { method: 'HEAD' })
    expect([head.status, await head.text()]).toEqual([200, ''])
  })
})

describe('a request', () => {
  test('arrives piece by piece: the function answers the first before the last is sent', async () => {
    const { readable, writable } = new TransformStream<string, string>()
    const writer = writable.getWriter()
    const first = writer.write('one')
    const response = await host.ask('/stream?up', {
      method: 'POST',
      body: readable.pipeThrough(new TextEncoderStream()),
    })
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
    expect(await reader?.read()).toEqual({ done: false, value: 'one' })
    await first
    const second = writer.write('two')
    expect(await reader?.read()).toEqual({ done: false, value: 'two' })
    await second
    await writer.close()
    expect(await reader?.read()).toEqual({ done: true, value: undefined })
  })

  test('of many megabytes passes whole in both directions', async () => {
    const chunk = crypto.getRandomValues(new Uint8Array(64 * 1024))
    let left = 320
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull: (controller) => left-- > 0 ? controller.enqueue(chunk) : controller.close(),
    })
    const response = await host.ask('/stream?up', { method: 'POST', body })
    let bytes = 0
    for await (const part of response.body ?? []) bytes += part.length
    expect(bytes).toBe(320 * 64 * 1024)
  })

  test('that the client abandons aborts request.signal in the function', async () => {
    const client = new AbortController()
    const answer = host.ask('/stream?never&name=left', { signal: client.signal })
    await waitFor(async () => (await names('begun')).includes('left'), { what: 'the request to begin' })
    client.abort()
    expect((await answer).status).toBe(499)
    await heardOf('left')
  })

  test('that is answered does not abort its signal', async () => {
    await (await host.ask('/stream?name=answered')).text()
    expect(await names('begun')).toContain('answered')
    expect(await names('aborted')).not.toContain('answered')
  })
})

describe('work that waitUntil was given', () => {
  test('goes on after the response, and its isolate with it', async () => {
    const file = await Deno.makeTempFile({ dir: '/tmp' })
    await host.ask(`/background?file=${file}&after=150`)
    expect(await Deno.readTextFile(file)).toBe('')
    await waitFor(async () => await Deno.readTextFile(file) === 'done\n', { what: 'the background work' })
    await Deno.remove(file)
  })

  test('ends with the wall clock at the latest, and no request waits for it', async () => {
    const own = await testHost({ limits: { wallClockMs: 1_000 } })
    const file = await Deno.makeTempFile({ dir: '/tmp' })
    await (await own.ask(`/background?file=${file}&after=60000`)).text()
    const [first] = own.isolates()
    await waitFor(() => !own.isolates().some((one) => one.pid === first?.pid), { what: 'the wall clock' })
    expect(await Deno.readTextFile(file)).toBe('beforeunload wall_clock\n')
    expect((await own.ask('/background')).status).toBe(200)
    expect(own.isolates()[0]?.pid).not.toBe(first?.pid)
    await Deno.remove(file)
  })
})

describe('the wall clock', () => {
  test('retires an isolate in time: requests near its end go to a new one', async () => {
    const own = await testHost({ limits: { wallClockMs: 1_000 } })
    const isolates = new Set<string>()
    const started = performance.now()
    while (performance.now() - started < 2_500) {
      const response = await own.ask('/echo')
      expect(response.status).toBe(200)
      isolates.add((await response.json()).isolate)
    }
    expect(isolates.size).toBeGreaterThanOrEqual(3)
    expect(own.texts('echo').join('\n')).not.toContain('wall clock limit')
  })

  test('ends what is still under way with 546', async () => {
    const own = await testHost({ limits: { wallClockMs: 700 } })
    const answer = await platformAnswer(await own.ask('/trouble?do=hang'))
    expect(answer).toMatchObject({ status: 546, header: 'WORKER_LIMIT', code: 'WORKER_LIMIT' })
    expect(answer.message).toContain('wall clock limit of 0.7 s')
  })
})

/** The names of the requests that the function has begun with, or has seen aborted. */
async function names(kind: 'begun' | 'aborted'): Promise<string[]> {
  return (await (await host.ask('/stream?names')).json())[kind]
}

async function heardOf(name: string): Promise<void> {
  await waitFor(async () => (await names('aborted')).includes(name), { what: `the abort of "${name}"` })
}

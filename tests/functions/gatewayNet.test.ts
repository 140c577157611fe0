import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { startNetWorker } from '../../local/gateway/netWorker.ts'
import { freshDatabase } from '../support/database.ts'
import { closeAfterFile } from '../support/leftovers.ts'
import { waitFor } from '../support/wait.ts'

interface Received {
  method: string
  url: string
  headers: Record<string, string>
  body: string
}

const received: Received[] = []
const server = Deno.serve({ hostname: '127.0.0.1', port: 0, onListen() {} }, async (request) => {
  const { pathname } = new URL(request.url)
  const body = await request.text()
  received.push({
    method: request.method,
    url: request.url,
    headers: Object.fromEntries(request.headers),
    body,
  })
  if (pathname === '/slow') await new Promise((resolve) => request.signal.addEventListener('abort', resolve))
  if (pathname === '/redirect') {
    return new Response(null, { status: 302, headers: { location: '/elsewhere' } })
  }
  if (pathname === '/nul') return new Response('a\0b')
  return new Response(`hello ${body}`, {
    status: pathname === '/teapot' ? 418 : 200,
    headers: { 'x-own': 'yes' },
  })
})
const url = `http://127.0.0.1:${server.addr.port}`

const db = await freshDatabase()
const sql = postgres(db.url, { max: 4, onnotice() {} })
const workers = await Promise.all([startNetWorker(db), startNetWorker(db)])
closeAfterFile({ name: 'the server that is called', close: () => server.shutdown() })
afterAll(async () => {
  await Promise.all(workers.map((worker) => worker.close()))
  await sql.end()
})

async function answerTo(id: string) {
  return await waitFor(async () => (await sql`select * from net._http_response where id = ${id}`)[0], {
    what: `the answer to request ${id}`,
  })
}

async function queue(call: postgres.PendingQuery<postgres.Row[]>): Promise<string> {
  const [row] = await call
  return row?.id
}

describe('what net queued', () => {
  test('http_post sends after commit with its body, headers and parameters, and stores the answer', async () => {
    const id = await queue(sql`
      select net.http_post(
        url := ${`${url}/hook`},
        body := '{"order": 7}',
        params := '{"a": "b c"}',
        headers := '{"Content-Type": "application/json", "x-custom": "1"}'
      ) as id`)
    expect(await answerTo(id)).toMatchObject({
      status_code: 200,
      content: 'hello {"order": 7}',
      headers: expect.objectContaining({ 'x-own': 'yes' }),
      content_type: 'text/plain;charset=UTF-8',
      timed_out: false,
      error_msg: null,
      created: expect.any(Date),
    })
    expect(received.at(-1)).toMatchObject({
      method: 'POST',
      url: `${url}/hook?a=b%20c`,
      body: '{"order": 7}',
      headers: expect.objectContaining({ 'x-custom': '1', 'content-type': 'application/json' }),
    })
    expect(await sql`select 1 from net.http_request_queue`).toHaveLength(0)
  })

  test('http_get and http_delete send without a body', async () => {
    const get = await queue(sql`select net.http_get(${`${url}/get`}) as id`)
    const remove = await queue(sql`select net.http_delete(${`${url}/delete`}) as id`)
    expect(await answerTo(get)).toMatchObject({ status_code: 200, content: 'hello ' })
    expect(await answerTo(remove)).toMatchObject({ status_code: 200, content: 'hello ' })
    expect(received.slice(-2).map(({ method }) => method).sort()).toEqual(['DELETE', 'GET'])
  })

  test('is not sent when the transaction is rolled back, nor before it is committed', async () => {
    await sql.begin(async (transaction) => {
      await transaction`select net.http_get(${`${url}/rolled-back`})`
      throw new Error('changed my mind')
    }).catch(() => {})
    let seenBeforeCommit: boolean | undefined
    await sql.begin(async (transaction) => {
      await transaction`select net.http_get(${`${url}/committed`})`
      // Another round trip through both workers gives them every chance to be early.
      await answerTo(await queue(sql`select net.http_get(${`${url}/between`}) as id`))
      seenBeforeCommit = received.some((one) => one.url.endsWith('/committed'))
    })
    expect(seenBeforeCommit).toBe(false)
    await waitFor(() => received.some((one) => one.url.endsWith('/committed')), {
      what: 'the committed request',
    })
    expect(received.some((one) => one.url.endsWith('/rolled-back'))).toBe(false)
  })

  test('stores statuses as they are, follows no redirect, and survives what text cannot hold', async () => {
    const ids = await Promise.all(
      ['teapot', 'redirect', 'nul'].map((path) => queue(sql`select net.http_get(${`${url}/${path}`}) as id`)),
    )
    const answers = await Promise.all(ids.map(answerTo))
    expect(answers).toMatchObject([{ status_code: 418 }, { status_code: 302 }, {
      status_code: 200,
      content: 'ab',
    }])
  })

  test('is given up after its timeout, and says so', async () => {
    const id = await queue(sql`select net.http_get(${`${url}/slow`}, timeout_milliseconds := 150) as id`)
    expect(await answerTo(id)).toMatchObject({
      status_code: null,
      timed_out: true,
      error_msg: expect.stringMatching(/^Timeout of 150 ms reached/),
    })
  })

  test('tells why it could not be sent', async () => {
    const refused = await queue(sql`select net.http_get('http://127.0.0.1:9/') as id`)
    const malformed = await queue(sql`select net.http_get('no url at all') as id`)
    for (const id of [refused, malformed]) {
      const answer = await answerTo(id)
      expect(answer).toMatchObject({ status_code: null, timed_out: false })
      expect(answer.error_msg).not.toBe('')
    }
  })

  test('is sent exactly once by several workers, however many there are', async () => {
    const before = received.length
    await sql`select net.http_post(${`${url}/many`}, jsonb_build_object('n', n)) from generate_series(1, 500) as n`
    await waitFor(() => received.length >= before + 500, { what: '500 requests', timeoutMs: 10_000 })
    await waitFor(async () => (await sql`select 1 from net.http_request_queue`).length === 0, {
      what: 'an empty queue',
    })
    const bodies = received.slice(before).map(({ body }) => body)
    expect(new Set(bodies).size).toBe(500)
    expect(bodies).toHaveLength(500)
  })
})

test('answers are removed after six hours', async () => {
  const id = await queue(sql`select net.http_get(${`${url}/old`}) as id`)
  await answerTo(id)
  await sql`update net._http_response set created = now() - interval '6 hours 1 minute' where id = ${id}`
  const own = await startNetWorker(db)
  await waitFor(async () => (await sql`select 1 from net._http_response where id = ${id}`).length === 0, {
    what: 'the old answer to go',
  })
  await own.close()
})

import { afterEach, describe, expect, test } from 'vitest'
import { startPayments } from '../../local/payments/server.ts'
import { closeAfterFile } from '../support/leftovers.ts'

const payments = await startPayments({ port: 0 })
closeAfterFile({ name: 'the payments stand-in', close: () => payments.close() })

const charge = { amountMinor: 1250, currency: 'EUR', token: 'tok_visa', reference: 'order 7' }

function post(path: string, body: unknown, key?: string, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { 'content-type': 'application/json' }
  if (key !== undefined) headers['idempotency-key'] = key
  return fetch(`${payments.url}${path}`, { method: 'POST', headers, body: JSON.stringify(body), signal })
}

async function get(path: string) {
  const response = await fetch(`${payments.url}${path}`)
  return await response.json()
}

const ledger = async () => (await get('/charges')).data
const uniqueKey = () => crypto.randomUUID()

afterEach(async () => {
  await (await post('/_control', { mode: 'ok' })).body?.cancel()
})

describe('POST /charges', () => {
  test('books a charge and answers 201 with it', async () => {
    const response = await post('/charges', charge)
    const booked = await response.json()
    expect(response.status).toBe(201)
    expect(booked).toEqual({
      id: expect.stringMatching(/^ch_/),
      status: 'succeeded',
      ...charge,
      createdAt: expect.stringMatching(/^\d{4}-.*Z$/),
    })
    expect(await ledger()).toContainEqual({ ...booked, refunded: false })
  })

  test('declines tok_declined with 402 and books nothing', async () => {
    const before = await ledger()
    const response = await post('/charges', { ...charge, token: 'tok_declined' })
    expect([response.status, await response.json()]).toEqual([402, {
      error: { code: 'card_declined', message: 'The card was declined' },
    }])
    expect(await ledger()).toEqual(before)
  })

  test('gives the same key and body the same answer, byte for byte, and books once', async () => {
    const key = uniqueKey()
    const before = (await ledger()).length
    const [first, second] = [await post('/charges', charge, key), await post('/charges', charge, key)]
    expect(first.headers.get('idempotency-replayed')).toBeNull()
    expect(second.headers.get('idempotency-replayed')).toBe('true')
    expect([second.status, await second.text()]).toEqual([201, await first.text()])
    expect((await ledger()).length).toBe(before + 1)
  })

  test('books once for calls with one key at the same moment', async () => {
    const key = uniqueKey()
    const before = (await ledger()).length
    const answers = await Promise.all(Array.from({ length: 10 }, () => post('/charges', charge, key)))
    expect(new Set(await Promise.all(answers.map((answer) => answer.text()))).size).toBe(1)
    expect((await ledger()).length).toBe(before + 1)
  })

  test('refuses the same key with another body: 422', async () => {
    const key = uniqueKey()
    await (await post('/charges', charge, key)).body?.cancel()
    const response = await post('/charges', { ...charge, amountMinor: 1 }, key)
    expect([response.status, (await response.json()).error.code]).toEqual([422, 'idempotency_key_reused'])
  })

  test('replays a declined card, too', async () => {
    const key = uniqueKey()
    const declined = { ...charge, token: 'tok_declined' }
    await (await post('/charges', declined, key)).body?.cancel()
    const response = await post('/charges', declined, key)
    expect([response.status, response.headers.get('idempotency-replayed')]).toEqual([402, 'true'])
    await response.body?.cancel()
  })

  test.each([
    {},
    { ...charge, amountMinor: 0 },
    { ...charge, amountMinor: 1.5 },
    { ...charge, amountMinor: '1' },
    { ...charge, currency: 'euro' },
    { ...charge, token: '' },
    { ...charge, extra: 1 },
    'text',
  ])('refuses %j: 400', async (body) => {
    const response = await post('/charges', body)
    expect([response.status, (await response.json()).error.code]).toEqual([400, 'invalid_request'])
  })
})

describe('GET /charges', () => {
  test('with a reference lists what was charged under it', async () => {
    const reference = uniqueKey()
    await (await post('/charges', { ...charge, reference })).body?.cancel()
    const { data } = await get(`/charges?reference=${reference}`)
    expect(data).toEqual([expect.objectContaining({ reference, refunded: false })])
    expect((await get('/charges?reference=none')).data).toEqual([])
  })
})

describe('POST /refunds', () => {
  test('refunds a charge once, whatever the key', async () => {
    const { id } = await (await post('/charges', charge)).json()
    const first = await post('/refunds', { chargeId: id }, uniqueKey())
    const second = await post('/refunds', { chargeId: id }, uniqueKey())
    expect([first.status, second.status]).toEqual([201, 200])
    const refund = await first.json()
    expect(refund).toMatchObject({
      chargeId: id,
      amountMinor: charge.amountMinor,
      currency: 'EUR',
      status: 'succeeded',
    })
    expect(await second.json()).toEqual(refund)
    expect((await ledger()).find((one: { id: string }) => one.id === id).refunded).toBe(true)
  })

  test('of a charge that is not there is 404', async () => {
    const response = await post('/refunds', { chargeId: 'ch_none' })
    expect([response.status, (await response.json()).error.code]).toEqual([404, 'charge_not_found'])
  })
})

describe('POST /_control', () => {
  test('fail answers the status and books nothing; the key stays free', async () => {
    const key = uniqueKey()
    const before = await ledger()
    await (await post('/_control', { mode: 'fail', status: 503, next: 1 })).body?.cancel()
    const failed = await post('/charges', charge, key)
    expect([failed.status, (await failed.json()).error.code]).toEqual([503, 'provider_error'])
    expect(await ledger()).toEqual(before)
    const again = await post('/charges', charge, key)
    expect([again.status, again.headers.get('idempotency-replayed')]).toEqual([201, null])
    await again.body?.cancel()
  })

  test('slow books at once and answers later', async () => {
    await (await post('/_control', { mode: 'slow', delayMs: 200, next: 1 })).body?.cancel()
    const started = performance.now()
    const pending = post('/charges', { ...charge, reference: 'slow' })
    expect((await waitForLogged('slow')).path).toBe('/charges')
    expect(await ledger()).toContainEqual(expect.objectContaining({ reference: 'slow' }))
    expect((await pending).status).toBe(201)
    expect(performance.now() - started).toBeGreaterThanOrEqual(195)
    await (await pending).body?.cancel()
  })

  test('hang books and never answers: the retry with the same key finds the charge', async () => {
    const key = uniqueKey()
    await (await post('/_control', { mode: 'hang', next: 1 })).body?.cancel()
    const client = new AbortController()
    const pending = post('/charges', { ...charge, reference: key }, key, client.signal)
    await waitForLogged('hang')
    client.abort()
    await expect(pending).rejects.toThrow()
    const retry = await post('/charges', { ...charge, reference: key }, key)
    expect([retry.status, retry.headers.get('idempotency-replayed')]).toEqual([201, 'true'])
    await retry.body?.cancel()
    expect((await ledger()).filter((one: { reference: string }) => one.reference === key)).toHaveLength(1)
  })

  test('next counts down, then everything is well again', async () => {
    await (await post('/_control', { mode: 'fail', next: 2 })).body?.cancel()
    const statuses = []
    for (let count = 0; count < 3; count += 1) {
      const response = await post('/charges', charge)
      await response.body?.cancel()
      statuses.push(response.status)
    }
    expect(statuses).toEqual([500, 500, 201])
    expect(await get('/_control')).toEqual({ mode: 'ok' })
  })

  test.each([{}, { mode: 'explode' }, { mode: 'fail', status: 200 }, { mode: 'ok', next: 0 }, {
    mode: 'ok',
    x: 1,
  }])(
    'refuses %j: 400, and changes nothing',
    async (body) => {
      const response = await post('/_control', body)
      await response.body?.cancel()
      expect(response.status).toBe(400)
      expect(await get('/_control')).toEqual({ mode: 'ok' })
    },
  )
})

test('GET /_control/log lists every call with its time, key and mode, and not itself', async () => {
  const key = uniqueKey()
  await (await post('/charges', charge, key)).body?.cancel()
  const { data } = await get('/_control/log')
  expect(data.at(-1)).toEqual({
    method: 'POST',
    path: '/charges',
    at: expect.stringMatching(/Z$/),
    key,
    mode: 'ok',
  })
  expect(data.some(({ path }: { path: string }) => path.startsWith('/_control'))).toBe(false)
})

test('an unknown path is 404', async () => {
  const response = await fetch(`${payments.url}/nothing`)
  expect([response.status, (await response.json()).error.code]).toEqual([404, 'not_found'])
})

test('closing releases calls that hang', async () => {
  const own = await startPayments({ port: 0 })
  await (await fetch(`${own.url}/_control`, { method: 'POST', body: '{"mode":"hang"}' })).body?.cancel()
  const pending = fetch(`${own.url}/charges`).catch((error) => error)
  for (let calls = 0; calls === 0;) {
    calls = (await (await fetch(`${own.url}/_control/log`)).json()).data.length
  }
  await own.close()
  expect(await pending).toBeDefined()
})

test('a taken port is a LocalError that says what to do', async () => {
  const port = Number(new URL(payments.url).port)
  await expect((async () => await startPayments({ port }))()).rejects.toMatchObject({
    name: 'LocalError',
    where: `127.0.0.1:${port}`,
  })
})

/** The newest call of that mode, once it is on the log: by then it is also booked. */
async function waitForLogged(mode: string): Promise<{ path: string }> {
  for (;;) {
    const last = (await get('/_control/log')).data.at(-1)
    if (last?.mode === mode) return last
  }
}

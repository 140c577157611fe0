/** Limits on routes that act once for each key: the question travels with the claim, and is asked once for what runs once. */
import { beforeAll, describe, expect, test } from 'vitest'
import { type LimitedAnswer, startLimits } from '../fixtures/limitsProject.ts'

let limits: Awaited<ReturnType<typeof startLimits>>

// One isolate: callers with one key join in its memory.
beforeAll(async () => {
  limits = await startLimits({ isolates: 1 })
})

const newClient = () => crypto.randomUUID()
const newKey = () => crypto.randomUUID()
const answer = { what: 'answer' }
const replayed = ({ headers }: LimitedAnswer) => headers.get('idempotency-replayed') === 'true'

describe.each(['leased', 'atomic'])('a limited %s route', (mode) => {
  const path = `/limited/${mode}`

  test('admits its quota, then refuses: nothing runs, and no key is stored', async () => {
    const client = newClient()
    for (const left of [2, 1, 0]) {
      const { status, left: is } = await limits.call(path, { client, body: answer })
      expect([status, is]).toEqual([200, [left]])
    }
    const keys = await limits.keys()
    for (let nth = 0; nth < 3; nth++) {
      const { status, json, headers, left } = await limits.call(path, { client, body: answer })
      expect([status, json.error.code, left]).toEqual([429, 'RATE_LIMITED', [0]])
      expect(json.error.details).toEqual({ policies: [mode] })
      expect(Number(headers.get('retry-after'))).toBeGreaterThan(1_000)
    }
    expect([await limits.runs(client), await limits.keys()]).toEqual([3, keys])
  })

  test('a key that was refused by the limit is free: it may be used for another request', async () => {
    const client = newClient()
    const key = newKey()
    for (let nth = 0; nth < 3; nth++) await limits.call(path, { client, body: answer })
    expect((await limits.call(path, { client, key, body: answer })).status).toBe(429)
    // Whoever it is for, the key is the same: callers who are not known are one.
    const other = await limits.call(path, { client: newClient(), key, body: { what: 'refuse' } })
    expect([other.status, replayed(other)]).toEqual([409, false])
  })

  test('a replay is a call like any other', async () => {
    const client = newClient()
    const key = newKey()
    const first = await limits.call(path, { client, key, body: answer })
    const second = await limits.call(path, { client, key, body: answer })
    expect([first.left, second.left]).toEqual([[2], [1]])
    expect([replayed(first), replayed(second)]).toEqual([false, true])
    const reused = await limits.call(path, { client, key, body: { what: 'fail' } })
    expect([reused.status, reused.left]).toEqual([422, [0]])
    expect((await limits.call(path, { client, key, body: answer })).status).toBe(429)
    expect(await limits.runs(client)).toBe(1)
  })

  test.each([['fail', 500], ['refuse', 409]])(
    'a handler that should %s is counted, and its answer says so',
    async (
      what,
      expected,
    ) => {
      const { status, left, policies } = await limits.call(path, { body: { what } })
      expect([status, left]).toEqual([expected, [2]])
      expect(policies).toEqual([{ name: mode, parameters: { q: 3, w: 3_600 } }])
    },
  )
})

describe('a limited leased route', () => {
  test('takes nothing for a request that is refused for its form, and says its policy', async () => {
    const client = newClient()
    const bad = [
      { body: { what: 'nonsense' } },
      { body: { other: 1 } },
      { body: answer, key: undefined },
      { body: answer, key: 'x'.repeat(300) },
      { body: answer, headers: { 'content-type': 'text/plain' } },
    ]
    for (const options of bad) {
      const { status, policies, standings } = await limits.call('/limited/leased', { client, ...options })
      expect([400, 415]).toContain(status)
      expect(policies).toEqual([{ name: 'leased', parameters: { q: 3, w: 3_600 } }])
      expect(standings).toBeUndefined()
    }
    expect((await limits.call('/limited/leased', { client, body: answer })).left).toEqual([2])
  })

  test('refuses whom it has refused before it looks at what they send', async () => {
    const client = newClient()
    for (let nth = 0; nth < 4; nth++) await limits.call('/limited/leased', { client, body: answer })
    const { status, left } = await limits.call('/limited/leased', { client, body: { what: 'nonsense' } })
    expect([status, left]).toEqual([429, [0]])
  })

  test('takes nothing from callers that join a request that is running', async () => {
    const client = newClient()
    const key = newKey()
    await limits.gate(async (gate) => {
      const call = () => limits.call('/limited/leased', { client, key, body: { what: 'wait' } })
      const first = call()
      await gate.arrived()
      const joined = [call(), call(), call(), call(), call()]
      // One that asks for another thing is told so at once: by then the others are there as well.
      const other = await limits.call('/limited/leased', { client, key, body: answer })
      expect([other.status, other.standings]).toEqual([422, undefined])
      await gate.open()
      expect((await first).left).toEqual([2])
      for (const answer of await Promise.all(joined)) {
        expect([answer.status, replayed(answer), answer.standings]).toEqual([200, true, undefined])
        expect(answer.policies).toMatchObject([{ name: 'leased' }])
      }
    })
    expect(await limits.runs(client)).toBe(1)
    expect((await limits.call('/limited/leased', { client, body: answer })).left).toEqual([1])
  })

  test('counts requests without a key, where it may be left out', async () => {
    const client = newClient()
    const answers: LimitedAnswer[] = []
    for (const key of [undefined, newKey(), undefined, undefined]) {
      answers.push(await limits.call('/limited/leased/optional', { client, key, body: answer }))
    }
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 429])
    expect(answers.map(({ left }) => left)).toEqual([[2], [1], [0], [0]])
    expect(await limits.runs(client)).toBe(3)
  })

  test('admits exactly its quota of what arrives at once, and runs only that', async () => {
    const client = newClient()
    const answers = await Promise.all(
      Array.from({ length: 30 }, () => limits.call('/limited/leased', { client, body: answer })),
    )
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(3)
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(27)
    expect(await limits.runs(client)).toBe(3)
  })
})

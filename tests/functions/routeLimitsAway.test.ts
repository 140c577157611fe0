/**
 * Limits whose database is away, behind a proxy that takes it away: what each `onUnavailable` does, and how the answer
 * says so. And what a limit costs: no round trip where a claim is made anyway.
 */
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type LimitedAnswer, startLimitsBehindProxy } from '../fixtures/limitsProject.ts'
import { waitFor } from '../support/wait.ts'

let limits: Awaited<ReturnType<typeof startLimitsBehindProxy>>

beforeAll(async () => {
  limits = await startLimitsBehindProxy()
})

afterEach(async () => {
  limits.proxy.refuse(false)
  await waitFor(async () => storeOf(await limits.call('/limited/many')) === null, {
    what: 'the limits to be shared again',
  })
})

const newClient = () => crypto.randomUUID()
const answer = { what: 'answer' }
const storeOf = ({ headers }: LimitedAnswer) => headers.get('ratelimit-store')

function takeDatabaseAway(): void {
  limits.proxy.refuse(true)
  limits.proxy.cut()
}

async function callTimes(times: number, ...[path, options]: Parameters<typeof limits.call>) {
  const answers: LimitedAnswer[] = []
  for (let nth = 0; nth < times; nth++) answers.push(await limits.call(path, options))
  return answers
}

describe('while the database is away', () => {
  test('local: this isolate admits its share, a quarter, and says so on each answer', async () => {
    takeDatabaseAway()
    const answers = await callTimes(4, '/limited/away/local', { client: newClient() })
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 429, 429])
    expect(answers.map(storeOf)).toEqual(['local', 'local', 'local', 'local'])
    expect(answers.map(({ left }) => left)).toEqual([[1], [0], [0], [0]])
    // The policy is still the whole one.
    expect(answers[0]!.policies).toEqual([{ name: 'away-local', parameters: { q: 8, w: 3_600 } }])
    expect(answers[3]!.json.error).toMatchObject({
      code: 'RATE_LIMITED',
      details: { policies: ['away-local'] },
    })
  })

  test('open: all are admitted, and told so', async () => {
    takeDatabaseAway()
    const answers = await callTimes(5, '/limited/away/open', { client: newClient() })
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
    expect(answers.map(storeOf)).toEqual(Array(5).fill('local'))
  })

  test('RL5: closed: all are refused with 503, Retry-After and a problem type of its own', async () => {
    takeDatabaseAway()
    const client = newClient()
    const { status, json, headers, standings } = await limits.call('/limited/away/closed', { client })
    expect([status, json.error.code]).toEqual([503, 'SERVICE_UNAVAILABLE'])
    expect(json.error.details).toEqual({ policies: ['away-closed'] })
    expect(Number(headers.get('retry-after'))).toBeGreaterThanOrEqual(Number(standings![0]!.parameters.t))
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
    const problem = await limits.call('/limited/away/closed', {
      client,
      headers: { accept: 'application/problem+json' },
    })
    expect(problem.json).toMatchObject({
      type: 'https://iana.org/assignments/http-problem-types#temporary-reduced-capacity',
      status: 503,
      'violated-policies': ['away-closed'],
    })
  })

  test('what was refused before stays refused, and is not asked again', async () => {
    const client = newClient()
    await callTimes(3, '/limited/client', { client })
    expect(storeOf(await limits.call('/limited/client', { client }))).toBeNull()
    takeDatabaseAway()
    const refused = await limits.call('/limited/client', { client })
    expect([refused.status, storeOf(refused)]).toEqual([429, null])
  })

  test('a leased route that goes on in memory counts there too', async () => {
    takeDatabaseAway()
    const client = newClient()
    // What its handler does needs the database: it runs, and fails.
    const answers = await callTimes(3, '/limited/leased/local', { client, body: answer })
    expect(answers.map(({ status }) => status)).toEqual([503, 503, 429])
    expect(answers.map(storeOf)).toEqual(['local', 'local', 'local'])
    expect(answers.map(({ left }) => left)).toEqual([[1], [0], [0]])
  })

  test('a leased route whose keys cannot be checked answers 503, with the headers of its limit', async () => {
    takeDatabaseAway()
    const client = newClient()
    const { status, json, headers, policies } = await limits.call('/limited/leased', { client, body: answer })
    expect([status, json.error.code]).toEqual([503, 'SERVICE_UNAVAILABLE'])
    expect([headers.has('retry-after'), headers.get('ratelimit-store')]).toEqual([true, 'local'])
    expect(policies).toMatchObject([{ name: 'leased' }])
    expect(await limits.runs(client)).toBe(0)
  })

  test('a limit that is closed refuses also where keys go on in memory', async () => {
    takeDatabaseAway()
    const { status, json } = await limits.call('/limited/leased/closed', { body: answer })
    expect([status, json.error.details]).toEqual([503, { policies: ['leased-closed'] }])
  })

  test('all is as before when it is back, in the same isolate', async () => {
    const client = newClient()
    const before = await limits.call('/limited/away/local', { client })
    takeDatabaseAway()
    expect(storeOf(await limits.call('/limited/away/local', { client }))).toBe('local')
    limits.proxy.refuse(false)
    const back = await waitFor(async () => {
      const answer = await limits.call('/limited/away/local', { client })
      return storeOf(answer) === null ? answer : undefined
    }, { what: 'the limit to be shared again', everyMs: 200 })
    expect(back.json.data).toEqual(before.json.data)
    expect(back.policies).toEqual(before.policies)
  })
})

describe('round trips', () => {
  const tripsOf = async (path: string, options: Parameters<typeof limits.call>[1], expected = 200) => {
    const { value, counts } = await limits.proxy.measure(() => limits.call(path, options))
    expect(value.status).toBe(expected)
    return counts.roundTrips
  }

  test('a leased POST takes as many with a limit as without one', async () => {
    const client = newClient()
    for (const path of ['/limited/leased/free', '/limited/leased/busy']) {
      await limits.call(path, { client, body: answer })
    }
    const without = await tripsOf('/limited/leased/free', { client, body: answer })
    expect(await tripsOf('/limited/leased/busy', { client, body: answer })).toBe(without)
  })

  test('its replay takes one, and so does its refusal; a second refusal takes none', async () => {
    const client = newClient()
    const key = crypto.randomUUID()
    await callTimes(2, '/limited/leased', { client, key, body: answer })
    expect(await tripsOf('/limited/leased', { client, key, body: answer })).toBe(1)
    expect(await tripsOf('/limited/leased', { client, key, body: answer }, 429)).toBe(1)
    expect(await tripsOf('/limited/leased', { client, key, body: answer }, 429)).toBe(0)
  })

  test('a route that is only limited takes one, and one with neither takes none', async () => {
    expect(await tripsOf('/limited/many', {})).toBe(1)
    expect(await tripsOf('/limited/free', {})).toBe(0)
  })
})

/** Limits in front of routes over real HTTP, on two isolates and real PostgreSQL: rules RL1 to RL6 of CONFORMANCE.md. */
import { SignJWT } from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { type LimitedAnswer, startLimits, tokenOf } from '../fixtures/limitsProject.ts'

let limits: Awaited<ReturnType<typeof startLimits>>

beforeAll(async () => {
  limits = await startLimits({ isolates: 2 })
})

const newClient = () => crypto.randomUUID()
const statuses = (answers: LimitedAnswer[]) => answers.map(({ status }) => status)

/** One after another. */
async function callTimes(times: number, ...[path, options]: Parameters<typeof limits.call>) {
  const answers: LimitedAnswer[] = []
  for (let nth = 0; nth < times; nth++) answers.push(await limits.call(path, options))
  return answers
}

describe('a limited route', () => {
  test('admits its quota, then refuses with 429, RATE_LIMITED and the name of the limit', async () => {
    const answers = await callTimes(4, '/limited/client', { client: newClient() })
    expect(statuses(answers)).toEqual([200, 200, 200, 429])
    expect(answers[3]!.json).toMatchObject({
      success: false,
      error: {
        code: 'RATE_LIMITED',
        message: expect.stringContaining('the limit is 3 in 3600 s'),
        details: { policies: ['GET:/limited/client'] },
      },
      meta: { requestId: answers[3]!.headers.get('x-request-id') },
    })
  })

  test('RL1, RL2: says its policy and how it stands, on what it admits and what it refuses', async () => {
    const answers = await callTimes(4, '/limited/client', { client: newClient() })
    for (const { policies, standings } of answers) {
      expect(policies).toEqual([{ name: 'GET:/limited/client', parameters: { q: 3, w: 3_600 } }])
      expect(standings).toMatchObject([{ name: 'GET:/limited/client' }])
    }
    expect(answers.map(({ left }) => left)).toEqual([[2], [1], [0], [0]])
    expect(answers.map(({ headers }) => headers.has('retry-after'))).toEqual([false, false, false, true])
  })

  test('RL4: names no moment before the one at which it admits again', async () => {
    const answers = await callTimes(5, '/limited/client', { client: newClient() })
    for (const { headers, standings } of answers.slice(3)) {
      const retryAfter = Number(headers.get('retry-after'))
      expect(retryAfter).toBeGreaterThanOrEqual(Number(standings![0]!.parameters.t))
      // One of three in an hour comes back in a third of it.
      expect(retryAfter).toBeGreaterThan(1_150)
      expect(retryAfter).toBeLessThanOrEqual(1_200)
    }
  })

  test('RL5: refuses as a problem of the registered type where that is asked for', async () => {
    const client = newClient()
    await callTimes(3, '/limited/client', { client })
    const { headers, json } = await limits.call('/limited/client', {
      client,
      headers: { accept: 'application/problem+json' },
    })
    expect(headers.get('content-type')).toBe('application/problem+json')
    expect(json).toMatchObject({
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      title: expect.any(String),
      status: 429,
      'violated-policies': ['GET:/limited/client'],
      code: 'RATE_LIMITED',
    })
  })

  test('lets browsers read all of it', async () => {
    const { headers } = await limits.call('/limited/client', { headers: { origin: 'https://app.example' } })
    expect(headers.get('access-control-expose-headers')!.split(', ')).toEqual(
      expect.arrayContaining(['ratelimit', 'ratelimit-policy', 'ratelimit-store', 'retry-after']),
    )
  })

  test('counts no preflight', async () => {
    const client = newClient()
    for (let nth = 0; nth < 5; nth++) {
      const preflight = await fetch(`${limits.stack.functionsUrl}/limited/client`, {
        method: 'OPTIONS',
        headers: { 'x-client': client, origin: 'https://app.example' },
      })
      expect(preflight.status).toBe(204)
      await preflight.body?.cancel()
    }
    expect((await limits.call('/limited/client', { client })).left).toEqual([2])
  })

  test('without a limit has no such header', async () => {
    const { policies, standings, status } = await limits.call('/limited/free')
    expect([status, policies, standings]).toEqual([200, undefined, undefined])
  })

  test('whose function names nobody is an error of ours, and is not let through', async () => {
    const { status, json } = await limits.call('/limited/senseless')
    expect([status, json.error.code]).toEqual([500, 'INTERNAL_ERROR'])
  })
})

describe('RL6: a limit', () => {
  test('is one for all isolates: forty of a hundred calls at once are admitted', async () => {
    const client = newClient()
    const answers = await Promise.all(
      Array.from({ length: 100 }, () => limits.call('/limited/many', { client })),
    )
    const admitted = answers.filter(({ status }) => status === 200)
    expect(admitted).toHaveLength(40)
    expect(new Set(admitted.map(({ json }) => json.data.isolate)).size).toBe(2)
    expect(new Set(statuses(answers))).toEqual(new Set([200, 429]))
  })

  test('of several windows takes from all of them or from none', async () => {
    const client = newClient()
    const answers = await callTimes(4, '/limited/several', { client })
    expect(statuses(answers)).toEqual([200, 200, 429, 429])
    expect(answers.map(({ left }) => left)).toEqual([[2, 18], [0, 16], [0, 16], [0, 16]])
    expect(answers[0]!.policies).toEqual([
      { name: 'both-4-per-h', parameters: { q: 4, w: 3_600 } },
      { name: 'both-20-per-d', parameters: { q: 20, w: 86_400 } },
    ])
    const { headers, standings, json } = answers[3]!
    expect(json.error.details).toEqual({ policies: ['both-4-per-h'] })
    const retryAfter = Number(headers.get('retry-after'))
    expect(retryAfter).toBeGreaterThanOrEqual(Number(standings![0]!.parameters.t))
    expect(retryAfter).toBeLessThanOrEqual(1_800)
  })

  test('that refuses takes nothing: what is stored stays as it was', async () => {
    const client = newClient()
    await callTimes(3, '/limited/client', { client })
    const stored = () =>
      limits.admin`select key, forget_at, state from holdfast.rate_limits where key like ${`%${client}`}`
    const before = await stored()
    expect(before).toHaveLength(1)
    expect(statuses(await callTimes(6, '/limited/client', { client }))).toEqual(Array(6).fill(429))
    expect(await stored()).toEqual(before)
  })
})

describe('whom a limit counts', () => {
  test('by ip: the address that the gateway saw, whatever the client says of itself', async () => {
    const answers: LimitedAnswer[] = []
    for (const address of ['203.0.113.1', '203.0.113.2', '203.0.113.3, 10.0.0.1', '127.0.0.1']) {
      answers.push(await limits.call('/limited/ip', { headers: { 'x-forwarded-for': address } }))
    }
    expect(statuses(answers)).toEqual([200, 200, 200, 429])
    const rows = await limits.admin`select key from holdfast.rate_limits where key like 'ip-hour|%'`
    expect(rows.map(({ key }) => key)).toEqual([expect.stringMatching(/\|ip:127\.0\.0\.1$/)])
    // RL4: of the address nothing is said.
    expect(JSON.stringify([...answers[3]!.headers])).not.toContain('127.0.0.1')
  })

  test('by user: each by themselves, with whatever token', async () => {
    const [ada, grace] = [crypto.randomUUID(), crypto.randomUUID()]
    const call = async (user: string) =>
      await limits.call('/limited/user', { headers: { authorization: `Bearer ${await tokenOf(user)}` } })
    const answers = [await call(ada), await call(ada), await call(ada), await call(ada), await call(grace)]
    expect(statuses(answers)).toEqual([200, 200, 200, 429, 200])
  })

  test('by user: nobody is counted who is not known, nor told how anybody stands', async () => {
    const { status, policies, standings } = await limits.call('/limited/user')
    expect([status, standings]).toEqual([401, undefined])
    expect(policies).toEqual([{ name: 'user-hour', parameters: { q: 3, w: 3_600 } }])
    const forged = await limits.call('/limited/user', { headers: { authorization: 'Bearer a.b.c' } })
    expect([forged.status, forged.standings]).toEqual([401, undefined])
  })

  test('by key: each of the project, in however many ways it is written, and stored as a digest', async () => {
    const key = localKeys.publishable
    const answers = [
      await limits.call('/limited/key', { headers: { apikey: key } }),
      await limits.call('/limited/key', { headers: { authorization: `Bearer ${key}` } }),
      await limits.call('/limited/key', { headers: { authorization: `bearer  ${key}` } }),
      await limits.call('/limited/key', { headers: { authorization: `BEARER    ${key}` } }),
      await limits.call('/limited/key', { headers: { apikey: await anonKey() } }),
    ]
    expect(statuses(answers)).toEqual([200, 200, 200, 429, 200])
    const rows = await limits.admin`select key from holdfast.rate_limits where key like 'key-hour|%'`
    expect(rows).toHaveLength(2)
    for (const row of rows) expect(row.key).toMatch(/\|key:[\da-f]{32}$/)
  })

  test('by key: one that was made up is refused before it is counted', async () => {
    const { status, standings } = await limits.call('/limited/key', {
      headers: { apikey: 'sb_publishable_x' },
    })
    expect([status, standings]).toEqual([401, undefined])
  })
})

describe('the limit of a function', () => {
  test('counts the calls of all its routes together, under the name of the function', async () => {
    const client = newClient()
    const answers = [
      ...await callTimes(2, '/common/a', { client }),
      ...await callTimes(2, '/common/b', { client }),
    ]
    expect(statuses(answers)).toEqual([200, 200, 200, 429])
    expect(answers[3]!.json.error.details).toEqual({ policies: ['common'] })
    expect((await limits.call('/common/a', { client })).status).toBe(429)
  })

  test('leaves out routes that have their own, or none', async () => {
    const client = newClient()
    await callTimes(4, '/common/a', { client })
    const own = await callTimes(3, '/common/own', { client })
    expect(statuses(own)).toEqual([200, 200, 429])
    expect(own[0]!.policies).toMatchObject([{ name: 'GET:/common/own' }])
    const free = await callTimes(5, '/common/free', { client })
    expect(statuses(free)).toEqual([200, 200, 200, 200, 200])
    expect(free[0]!.policies).toBeUndefined()
  })
})

/** As projects had it before the new keys. */
function anonKey(): Promise<string> {
  return new SignJWT({ role: 'anon' }).setProtectedHeader({ alg: 'HS256' }).setExpirationTime('1h')
    .sign(new TextEncoder().encode(localKeys.jwtSecret))
}

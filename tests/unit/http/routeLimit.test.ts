/** The limit in front of a route: whom it counts, when it is asked, what it says; counted in memory, without a server. */
import { SignJWT } from 'jose'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { z } from 'zod'
import { HoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import {
  type Api,
  defineApi,
  type LimitOptions,
  route,
} from '../../../supabase/functions/_shared/http/api.ts'
import { createLogger } from '../../../supabase/functions/_shared/observability/logger.ts'
import { MemoryIdempotencyStore } from '../../../supabase/functions/_shared/resilience/stores/memory.ts'
import { MemoryRateLimitStore } from '../../../supabase/functions/_shared/resilience/stores/memoryRateLimits.ts'
import type {
  RateLimitQuestion,
  RateLimitStore,
} from '../../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import { parseList } from '../../support/structuredFields.ts'

const secret = 'a-shared-secret-of-at-least-32-characters'
const [key, otherKey] = ['sb_publishable_one', 'sb_publishable_two']

// Read at the first request.
Deno.env.set('JWT_SECRET', secret)
Deno.env.set('TRUSTED_PROXY_HOPS', '2')
Deno.env.set('SUPABASE_PUBLISHABLE_KEYS', JSON.stringify({ one: key, two: otherKey }))

const lines: string[] = []
const log = createLogger({ write: (_, line) => lines.push(line) })
const handler = vi.fn()

/** Another process's store: it has to be asked, and says what it was asked. */
class DistantStore implements RateLimitStore {
  readonly asked: RateLimitQuestion[] = []
  readonly #memory = new MemoryRateLimitStore()
  error: Error | undefined

  async decide(questions: RateLimitQuestion[]) {
    this.asked.push(...questions)
    if (this.error !== undefined) throw this.error
    return await this.#memory.decide(questions)
  }
  penalize = (question: RateLimitQuestion) => this.#memory.penalize(question)
  block = (key: string, ms: number) => this.#memory.block(key, ms)
  reset = (key: string) => this.#memory.reset(key)
  close = () => Promise.resolve()

  /** Whom it was asked about. */
  get whom(): string[] {
    return this.asked.map(({ key }) => key.slice(key.lastIndexOf('|') + 1))
  }
}

let store: DistantStore

beforeEach(() => {
  store = new DistantStore()
  handler.mockReset()
  lines.length = 0
})

type Auth = 'none' | 'user' | 'publishable' | 'secret'

function apiWith(limit: LimitOptions | false | undefined, auth: Auth = 'none', leased = false): Api {
  const options = {
    path: '/',
    auth,
    summary: 'x',
    response: z.object({}).loose(),
    limit: limit && { store, ...limit },
  }
  return defineApi({
    name: 'shop',
    title: 'Shop',
    logger: log,
    idempotency: { store: new MemoryIdempotencyStore() },
    routes: [
      route({ ...options, method: 'GET', handler: (context) => handler(context) ?? { data: {} } }),
      route({
        ...options,
        method: 'POST',
        body: z.strictObject({ count: z.int() }),
        idempotency: leased ? 'leased' : undefined,
        handler: (context) => handler(context) ?? { data: {} },
      }),
    ],
  })
}

async function ask(api: Api, headers?: Record<string, string>, body?: string) {
  const response = await api.fetch(
    new Request('http://localhost/shop', { method: body === undefined ? 'GET' : 'POST', headers, body }),
  )
  const limit = response.headers.get('ratelimit')
  return {
    status: response.status,
    headers: response.headers,
    json: await response.json(),
    left: limit === null ? undefined : parseList(limit).map(({ parameters }) => parameters.r),
  }
}

const via = (chain: string) => ({ 'x-forwarded-for': chain })
const asUser = async (sub: string) => ({
  authorization: `Bearer ${await new SignJWT({ sub, role: 'authenticated', jti: crypto.randomUUID() })
    .setProtectedHeader({ alg: 'HS256' }).setExpirationTime('1h').sign(new TextEncoder().encode(secret))}`,
})

describe('by ip, behind two proxies', () => {
  test('counts what the outer one saw, whatever the client has put before it', async () => {
    const api = apiWith({ policy: '2/h' })
    const chains = [
      '203.0.113.7, 10.0.0.1',
      '6.6.6.1, 203.0.113.7, 10.0.0.1',
      '6.6.6.2, 6.6.6.3, 203.0.113.7, 10.0.0.2',
      '203.0.113.8, 10.0.0.1',
    ]
    const answers = []
    for (const chain of chains) answers.push(await ask(api, via(chain)))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 429, 200])
    expect(store.whom).toEqual(['ip:203.0.113.7', 'ip:203.0.113.7', 'ip:203.0.113.7', 'ip:203.0.113.8'])
  })

  test('counts as one all that have not come through both: nobody gets past it by leaving the header out', async () => {
    const api = apiWith({ policy: '2/h' })
    const answers = [await ask(api), await ask(api, via('6.6.6.6')), await ask(api, via('')), await ask(api)]
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 429, 429])
    expect(new Set(store.whom)).toEqual(new Set(['ip:unknown']))
  })

  test('counts an IPv6 network as one: whoever has an address in it has them all', async () => {
    const api = apiWith({ policy: '2/h' })
    const answers = []
    for (
      const address of ['2001:db8:1:2::1', '2001:db8:1:2:ffff::9', '2001:0db8:1:2::7', '2001:db8:1:3::1']
    ) {
      answers.push(await ask(api, via(`${address}, 10.0.0.1`)))
    }
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 429, 200])
  })

  test('reads no other header', async () => {
    const api = apiWith({})
    for (const name of ['x-real-ip', 'forwarded', 'cf-connecting-ip', 'true-client-ip']) {
      await ask(api, { [name]: crypto.randomUUID() })
    }
    expect(new Set(store.whom)).toEqual(new Set(['ip:unknown']))
  })
})

describe('by user', () => {
  test('counts them whatever their address and token', async () => {
    const api = apiWith({ policy: '2/h', by: 'user' }, 'user')
    const answers = []
    for (const [sub, ip] of [['ada', '1'], ['ada', '2'], ['ada', '3'], ['grace', '3']]) {
      answers.push(await ask(api, { ...await asUser(sub!), ...via(`203.0.113.${ip}, 10.0.0.1`) }))
    }
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 429, 200])
    expect(store.whom).toEqual(['user:ada', 'user:ada', 'user:ada', 'user:grace'])
  })

  test('counts who is nobody by address, and mixes none with another', async () => {
    const api = apiWith({ by: 'user' })
    await ask(api, { ...await asUser('ada'), ...via('203.0.113.7, 10.0.0.1') })
    expect(store.whom).toEqual(['ip:203.0.113.7'])
  })
})

describe('by apiKey', () => {
  test('counts a key as one however it is shown, by its digest alone', async () => {
    const api = apiWith({ by: 'apiKey' }, 'publishable')
    const ways: Record<string, string>[] = [
      { apikey: key },
      { authorization: `Bearer ${key}` },
      { authorization: `bearer ${key}` },
      { authorization: `BEARER    ${key}` },
      { apikey: key, authorization: `Bearer ${otherKey}` },
    ]
    for (const headers of ways) expect((await ask(api, headers)).status).toBe(200)
    await ask(api, { apikey: otherKey })
    const [first, ...others] = store.whom
    expect(first).toMatch(/^key:[\da-f]{32}$/)
    expect(others.slice(0, 4)).toEqual(Array(4).fill(first))
    expect(others[4]).not.toBe(first)
  })

  test('counts a token that is a key as one, however its signature is written', async () => {
    const api = apiWith({ by: 'apiKey', policy: '1/h' }, 'publishable')
    const token = await new SignJWT({ role: 'anon' }).setProtectedHeader({ alg: 'HS256' })
      .setExpirationTime('1h').sign(new TextEncoder().encode(secret))
    expect((await ask(api, { apikey: token })).status).toBe(200)
    // All of them verify, but for what the verifier itself refuses.
    const ways = [
      `${token}=`,
      `${token.slice(0, -3)} ${token.slice(-3)}`,
      `${token.slice(0, -9)}\t${token.slice(-9)}`,
    ]
    for (const way of ways) expect([401, 429]).toContain((await ask(api, { apikey: way })).status)
    expect((await ask(api, { authorization: `Bearer ${token}=` })).status).not.toBe(200)
    expect(new Set(store.whom).size).toBe(1)
  })

  test('believes no key that nobody has verified', async () => {
    const open = apiWith({ by: 'apiKey' })
    for (let nth = 0; nth < 3; nth++) await ask(open, { apikey: `sb_publishable_${nth}` })
    expect(new Set(store.whom)).toEqual(new Set(['ip:unknown']))
    const closed = apiWith({ by: 'apiKey' }, 'publishable')
    expect((await ask(closed, { apikey: 'sb_publishable_made_up' })).status).toBe(401)
    expect(store.asked).toHaveLength(3)
  })

  test('takes the token of a user for no key', async () => {
    const api = apiWith({ by: 'apiKey' }, 'user')
    await ask(api, await asUser('ada'))
    await ask(api, { ...await asUser('ada'), apikey: key })
    expect(store.whom).toEqual(['ip:unknown', expect.stringMatching(/^key:/)])
  })
})

describe('by a function', () => {
  test('counts what it names, of the caller, the headers and the request', async () => {
    const by = vi.fn<Exclude<LimitOptions['by'], string | undefined>>(({ caller, headers, request, raw }) =>
      `${caller.userId} ${headers.get('x-tenant')} ${request.ip} ${raw.method}`
    )
    await ask(apiWith({ by }, 'user'), {
      ...await asUser('ada'),
      'x-tenant': 'acme',
      ...via('203.0.113.7, 10.0.0.1'),
    })
    expect(store.whom).toEqual(['ada acme 203.0.113.7 GET'])
    expect(by).toHaveBeenCalledTimes(1)
  })

  test.each([
    ['nothing', () => ''],
    ['no text', () => undefined as unknown as string],
    ['a promise', () => Promise.resolve('x') as unknown as string],
    ['an error', () => {
      throw new Error('cannot tell')
    }],
  ])('that names %s is a failure of ours: nobody is let past the limit', async (_, by) => {
    const { status, json } = await ask(apiWith({ by }))
    expect([status, json.error.code]).toEqual([500, 'INTERNAL_ERROR'])
    expect(handler).not.toHaveBeenCalled()
  })
})

describe('the order', () => {
  const bad = { 'content-type': 'application/json' }

  test('by ip: before credentials are looked at, so that guessing them is limited', async () => {
    const api = apiWith({ policy: '2/h' }, 'user')
    const statuses = []
    for (let nth = 0; nth < 3; nth++) {
      statuses.push((await ask(api, { authorization: 'Bearer a.b.c' })).status)
    }
    expect(statuses).toEqual([401, 401, 429])
  })

  test.each(['user', 'apiKey', () => 'one'] as const)('by %s: after credentials', async (by) => {
    const api = apiWith({ policy: '2/h', by }, 'user')
    const { status, left, headers } = await ask(api, { authorization: 'Bearer a.b.c' })
    expect([status, left, store.asked]).toEqual([401, undefined, []])
    expect(headers.get('ratelimit-policy')).toBe('"GET:/shop";q=2;w=3600')
  })

  test('before the body is read: of a refused request nothing is looked at', async () => {
    const api = apiWith({ policy: '1/h' })
    expect((await ask(api, bad, '{')).status).toBe(400)
    expect((await ask(api, bad, '{')).status).toBe(429)
  })

  test('on a leased route whose keys are elsewhere the same: the question has nothing to travel with', async () => {
    const api = apiWith({ policy: '1/h' }, 'none', true)
    const first = await ask(api, bad, '{"count":"x"}')
    expect([first.status, first.left]).toEqual([400, [0]])
    expect((await ask(api, { ...bad, 'idempotency-key': 'k' }, '{"count":1}')).status).toBe(429)
    expect(handler).not.toHaveBeenCalled()
  })

  test('whoever was refused is refused again without asking', async () => {
    const api = apiWith({ policy: '1/h' })
    const statuses = []
    for (let nth = 0; nth < 5; nth++) statuses.push((await ask(api)).status)
    expect(statuses).toEqual([200, 429, 429, 429, 429])
    expect(store.asked).toHaveLength(2)
  })
})

describe('what a handler makes of it', () => {
  test.each([
    ['an error', () => Promise.reject(new Error('failed')), 500],
    ['a refusal', () => Promise.reject(new HoldfastError('CONFLICT', 'taken')), 409],
  ])('%s has the headers too', async (_, outcome, expected) => {
    handler.mockImplementation(outcome)
    const { status, left, headers } = await ask(apiWith({ policy: '9/h' }))
    expect([status, left, headers.has('ratelimit-policy')]).toEqual([expected, [8], true])
  })

  test('a 429 of its own is no quota of ours', async () => {
    handler.mockRejectedValue(
      new HoldfastError('RATE_LIMITED', 'The provider is busy', { retryAfterMs: 1_500 }),
    )
    const { json, headers } = await ask(apiWith({}), { accept: 'application/problem+json' })
    expect([json.type, json.title, headers.get('retry-after')]).toEqual([
      'about:blank',
      'Too Many Requests',
      '2',
    ])
  })
})

describe('a store that fails', () => {
  const away = () => new HoldfastError('SERVICE_UNAVAILABLE', 'away')

  test.each(
    [
      ['local', [200, 200, 429]],
      ['open', [200, 200, 200]],
      ['closed', [503, 503, 503]],
    ] as const,
  )(
    '%s: as declared, announced on each answer, said once, and asked seldom',
    async (onUnavailable, expected) => {
      store.error = away()
      const api = apiWith({ policy: '8/h', onUnavailable })
      const answers = [await ask(api), await ask(api), await ask(api)]
      expect(answers.map(({ status }) => status)).toEqual(expected)
      expect(answers.map(({ headers }) => headers.get('ratelimit-store'))).toEqual([
        'local',
        'local',
        'local',
      ])
      expect(store.asked).toHaveLength(1)
      expect(lines.filter((line) => line.includes('"level":"warn"'))).toHaveLength(1)
    },
  )
})

describe('a lease of tokens', () => {
  test('serves calls without asking, and no more in all than the quota', async () => {
    const api = apiWith({ policy: '10/h', lease: { tokens: 5, maxAgeMs: 60_000 } })
    const statuses = []
    for (let nth = 0; nth < 11; nth++) statuses.push((await ask(api)).status)
    expect(statuses).toEqual([...Array(10).fill(200), 429])
    expect(store.asked.length).toBeLessThanOrEqual(4)
  })
})

describe('a route without a limit', () => {
  test('asks nobody and has no such header', async () => {
    for (const limit of [undefined, false] as const) {
      const { status, headers } = await ask(apiWith(limit))
      expect(status).toBe(200)
      expect([...headers.keys()].filter((name) => name.startsWith('ratelimit'))).toEqual([])
    }
    expect(store.asked).toEqual([])
  })

  test('does not load what limits are made of, nor a client of the database', async () => {
    const loaded = await staticModules(
      new URL('../../../supabase/functions/_shared/http/api.ts', import.meta.url),
    )
    expect(loaded).toContain('http/limitOptions.ts')
    for (
      const module of ['http/limit.ts', 'resilience/rateLimit.ts', 'resilience/guardTrip.ts', 'db/pool.ts']
    ) {
      expect(loaded).not.toContain(module)
    }
  })
})

/** What an import of the module loads at once, below `_shared`. */
async function staticModules(entry: URL): Promise<string[]> {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ['info', '--json', entry.href] })
    .output()
  const graph = JSON.parse(new TextDecoder().decode(stdout)) as {
    modules: {
      specifier: string
      dependencies?: { isDynamic?: boolean; code?: { specifier?: string } }[]
    }[]
  }
  const modules = new Map(graph.modules.map((module) => [module.specifier, module]))
  const found = new Set([entry.href])
  for (const specifier of found) {
    for (const { isDynamic, code } of modules.get(specifier)?.dependencies ?? []) {
      if (!isDynamic && code?.specifier !== undefined) found.add(code.specifier)
    }
  }
  return [...found].map((specifier) => specifier.slice(specifier.indexOf('/_shared/') + '/_shared/'.length))
}

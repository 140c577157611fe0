/**
 * PostgreSQL is away for five seconds while guarded routes are used: each isolate decides for itself and says so, no
 * request fails for it, and all is as before when it is back.
 */
import { beforeAll, describe, expect, test } from 'vitest'
import { startGuardedBehindProxy } from '../fixtures/guardsProject.ts'
import { waitFor } from '../support/wait.ts'
import type { WireProxy } from '../support/wireProxy.ts'
import { blowOver, type Outage, storeOf } from './support/outage.ts'

const isolates = 2

const ways: [string, { leave(proxy: WireProxy): void; return(proxy: WireProxy): void; routes: string[] }][] =
  [
    ['refuses connections', {
      leave(proxy) {
        proxy.refuse(true)
        proxy.cut()
      },
      return: (proxy) => proxy.refuse(false),
      routes: ['GET /limited', 'POST /limited/pay', 'POST /leased'],
    }],
    // A key is claimed once an answer is there, or none can come any more; only limits and breakers give up sooner.
    ['swallows everything', {
      leave: (proxy) => proxy.freeze(),
      return: (proxy) => proxy.thaw(),
      routes: ['GET /limited', 'POST /limited/pay'],
    }],
  ]

describe.each(ways)('a PostgreSQL that %s for five seconds', (_, way) => {
  let guarded: Awaited<ReturnType<typeof startGuardedBehindProxy>>
  let outage: Outage

  beforeAll(async () => {
    guarded = await startGuardedBehindProxy({ isolates })
    outage = await blowOver(guarded, {
      leave: () => way.leave(guarded.proxy),
      return: () => way.return(guarded.proxy),
      routes: way.routes,
    })
  }, 45_000)

  test('costs no request', () => {
    expect(outage.failed()).toEqual([])
    expect(outage.during.length).toBeGreaterThan(100)
  })

  test('is announced in the answers of limited routes', () => {
    expect(new Set(outage.before.map(storeOf))).toEqual(new Set([null]))
    const announced = outage.during.filter((answer) => storeOf(answer) === 'local')
    expect(announced.length).toBeGreaterThan(outage.during.length / 2)
  })

  test('holds up few: whoever comes later does not wait for it again', () => {
    const slow = outage.during.filter(({ ms }) => ms > 1_000)
    expect(slow.length).toBeLessThan(outage.during.length / 10)
  })

  test('is said once by each isolate, and counted', async () => {
    const said = guarded.host.log.filter(({ text }) =>
      /"level":"warn".*store of rate limits is away/.test(text)
    )
    expect(said).toHaveLength(isolates)
    expect(new Set(said.map(({ isolate }) => isolate)).size).toBe(isolates)
    const { json } = await guarded.call('/state')
    const counted = Object.keys(json.data.counters).filter((name) =>
      name.startsWith('rate_limit_local_total')
    )
    expect(counted.length).toBeGreaterThan(0)
  })

  test('is over by itself when it is back, in the isolates that were there before', () => {
    expect(new Set(outage.after.map(storeOf))).toEqual(new Set([null]))
    const isolatesOf = (answers: Outage['during']) =>
      [...new Set(answers.map(({ isolate }) => isolate))].sort()
    expect(isolatesOf(outage.after)).toEqual(isolatesOf(outage.before))
    expect(isolatesOf(outage.after)).toHaveLength(isolates)
  })
})

describe('while PostgreSQL is away', () => {
  let guarded: Awaited<ReturnType<typeof startGuardedBehindProxy>>
  const client = { 'x-client': 'eager' }

  beforeAll(async () => {
    guarded = await startGuardedBehindProxy({ isolates })
    // Every isolate has heard of the store before it goes away.
    for (let each = 0; each < isolates; each++) {
      expect((await guarded.call('/limited', { headers: { 'x-client': 'early' } })).status).toBe(200)
      expect((await guarded.call('/pay/provider', { method: 'POST' })).status).toBe(200)
    }
    guarded.proxy.refuse(true)
    guarded.proxy.cut()
  })

  test('an isolate admits its share of the limit, a quarter, and refuses the rest', async () => {
    const answers = await Promise.all(
      Array.from({ length: 40 }, () => guarded.call('/limited', { headers: client })),
    )
    const byIsolate = Map.groupBy(answers, ({ isolate }) => isolate)
    expect(byIsolate.size).toBe(isolates)
    for (const each of byIsolate.values()) {
      expect(each.filter(({ status }) => status === 200)).toHaveLength(10)
      const refusals = each.filter(({ status }) => status === 429)
      expect(refusals.map(({ code }) => code)).toEqual(Array(each.length - 10).fill('RATE_LIMITED'))
      for (const { headers } of refusals) expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
    }
    expect(new Set(answers.map(storeOf))).toEqual(new Set(['local']))
  })

  test('a breaker opens, refuses and heals in each isolate by what that one has seen', async () => {
    await guarded.payments.behave({ mode: 'fail' })
    const traffic = guarded.traffic({
      lanes: 2,
      call: () => guarded.call('/pay/provider', { method: 'POST' }),
    })
    const isolatesThat = (what: (answer: { status: number; code: string | undefined }) => boolean) =>
      new Set(traffic.answers.filter(what).map(({ isolate }) => isolate)).size
    await waitFor(() => isolatesThat(({ code }) => code === 'CIRCUIT_OPEN') === isolates, {
      what: 'both isolates to refuse',
    })
    const { json } = await guarded.call('/state')
    expect(json.data.health.provider).toMatchObject({ state: 'open', healthy: false, local: true })
    await guarded.payments.behave({ mode: 'ok' })
    const from = traffic.answers.length
    await waitFor(
      () =>
        new Set(
          traffic.answers.slice(from).filter(({ status }) => status === 200).map(({ isolate }) => isolate),
        ).size === isolates,
      { what: 'both isolates to serve again' },
    )
    await traffic.stop()
  })

  test('what the isolates decided alone is left behind when it is back', async () => {
    guarded.proxy.refuse(false)
    await waitFor(async () => {
      const answers = await Promise.all(
        Array.from({ length: isolates }, () => guarded.call('/limited', { headers: { 'x-client': 'late' } })),
      )
      await Promise.all(answers.map(() => guarded.call('/pay/provider', { method: 'POST' })))
      const states = await Promise.all(answers.map(() => guarded.call('/state')))
      return answers.every((answer) => storeOf(answer) === null) &&
        states.every(({ json }) => json.data.health.provider.local === false)
    }, { what: 'limits and breakers to be shared again', timeoutMs: 10_000, everyMs: 100 })
    const [row] = await guarded.admin`select state from holdfast.circuit_breakers where name = 'provider'`
    expect(row).toEqual({ state: 'closed' })
  })
})

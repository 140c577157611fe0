/**
 * Three isolates of one function and a provider that fails: what one of them finds out the others know, the provider is
 * left alone, one of them looks after it once in a while, and all go on when it is back.
 */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  type Guarded,
  type GuardedAnswer,
  medianMs,
  startGuarded,
  type Traffic,
} from '../fixtures/guardsProject.ts'
import type { TestStack } from '../support/stack.ts'
import { waitFor } from '../support/wait.ts'

const isolates = 3
/** As the function's breaker `provider` has it. */
const cooldownMs = 1_000
/** How old what an isolate knows may be while calls come. */
const refreshMs = 1_000
/** One trip, on a machine with other things to do: never less than what an answer takes that asks nobody. */
let tripMs = 1_000

let guarded: Guarded & { stack: TestStack }

beforeAll(async () => {
  guarded = await startGuarded({ isolates })
})

const pay = (breaker: string) => () => guarded.call(`/pay/${breaker}`, { method: 'POST' })
const refused = ({ code }: GuardedAnswer) => code === 'CIRCUIT_OPEN'
const isolatesOf = (answers: readonly { isolate: number }[]) => new Set(answers.map(({ isolate }) => isolate))

async function events(breaker: string): Promise<{ to: string; at: number }[]> {
  const rows = await guarded.admin<{ to: string; at: Date }[]>`
    select to_state as to, occurred_at as at from holdfast.circuit_breaker_events
    where name = ${breaker} order by id`
  return rows.map(({ to, at }) => ({ to, at: at.getTime() }))
}

describe('a provider that fails', () => {
  const breaker = 'provider'
  let traffic: Traffic
  let openedAt: number
  let backAt: number
  let idle: Traffic

  // One outage from its beginning to its end; the tests below look at its parts.
  beforeAll(async () => {
    const healthy = await Promise.all(Array.from({ length: isolates }, pay(breaker)))
    expect(healthy.map(({ status }) => status)).toEqual(Array(isolates).fill(200))
    expect(isolatesOf(healthy).size).toBe(isolates)
    await guarded.payments.behave({ mode: 'fail' })
    traffic = guarded.traffic({ lanes: isolates, call: pay(breaker) })
    idle = guarded.traffic({ lanes: 1, call: () => guarded.call('/state') })
    await waitFor(() => isolatesOf(traffic.answers.filter(refused)).size === isolates, {
      what: 'all isolates to refuse',
      timeoutMs: 10_000,
    })
    openedAt = (await events(breaker)).find(({ to }) => to === 'open')!.at
    await waitFor(async () => (await events(breaker)).filter(({ to }) => to === 'open').length >= 4, {
      what: 'three probes that failed',
      timeoutMs: 15_000,
      everyMs: 50,
    })
    await guarded.payments.behave({ mode: 'ok' })
    backAt = Date.now()
    await waitFor(() => isolatesOf(served()).size === isolates, {
      what: 'all isolates to serve again',
      timeoutMs: 10_000,
    })
    await Promise.all([traffic.stop(), idle.stop()])
    tripMs += 2 * Math.max(...idle.answers.map(({ ms }) => ms))
  }, 45_000)

  const served = () => traffic.answers.filter(({ at, status }) => at > backAt && status === 200)
  const firstRefusals = () =>
    [...isolatesOf(traffic.answers)].map((isolate) =>
      traffic.answers.find((answer) => answer.isolate === isolate && refused(answer))!
    )

  test('is refused by every isolate within the refresh and one trip', () => {
    expect(firstRefusals()).toHaveLength(isolates)
    for (const { at } of firstRefusals()) expect(at - openedAt).toBeLessThan(refreshMs + tripMs)
  })

  test('is found out by all isolates together, not by each for itself', async () => {
    const failures = (await guarded.calls(breaker)).filter(({ mode, at }) =>
      mode === 'fail' && at <= openedAt
    )
    // Six failures open it; each isolate may have had one more under way.
    expect(failures.length).toBeLessThanOrEqual(6 + 2 * isolates)
    const each = [...isolatesOf(failures)].map((isolate) =>
      failures.filter((call) => call.isolate === isolate).length
    )
    expect(Math.min(...each)).toBeLessThan(6)
  })

  test('is called by nobody but the probes, one in each half-open period', async () => {
    const all = await events(breaker)
    const periods = all.flatMap(({ to, at }, index) =>
      to === 'half_open' ? [{ from: at, until: all[index + 1]!.at, endedBy: all[index + 1]!.to }] : []
    )
    const probes = (await guarded.calls(breaker)).filter(({ state }) => state !== 'closed')
    expect(periods.map(({ endedBy }) => endedBy)).toEqual(['open', 'open', 'open', 'closed'])
    // The database's times are cut to milliseconds, as the provider's are.
    expect(
      periods.map(({ from, until }) => probes.filter(({ at }) => at >= from && at <= until).length),
    ).toEqual(periods.map(() => 1))
    expect(probes).toHaveLength(periods.length)
  })

  test('is called as if nothing was by nobody after the bound', async () => {
    const late = (await guarded.calls(breaker)).filter(({ at, mode, state }) =>
      mode === 'fail' && state === 'closed' && at > openedAt + refreshMs + tripMs
    )
    expect(late).toEqual([])
  })

  test('is served again within the cooldown, without a restart', async () => {
    const closedAt = (await events(breaker)).findLast(({ to }) => to === 'closed')!.at
    expect(closedAt - backAt).toBeLessThan(cooldownMs + tripMs)
    const first = [...isolatesOf(served())].map((isolate) =>
      served().find((answer) => answer.isolate === isolate)!.at
    )
    for (const at of first) expect(at - closedAt).toBeLessThan(refreshMs + tripMs)
    expect(isolatesOf(traffic.answers).size).toBe(isolates)
  })

  test('costs those who are refused a moment, and they are told when to come again', () => {
    const refusals = traffic.answers.filter(refused)
    expect(new Set(refusals.map(({ status }) => status))).toEqual(new Set([503]))
    expect(refusals.every(({ headers }) => Number(headers.get('retry-after')) <= 1)).toBe(true)
    // On a machine with other things to do, an answer that asks nobody takes its time as well.
    expect(medianMs(refusals)).toBeLessThan(Math.max(50, 3 * medianMs(idle.answers)))
  })
})

describe('an isolate that dies while it probes', () => {
  const breaker = 'patient'
  const probeLeaseMs = 2_000

  beforeEach(async () => {
    await guarded.payments.behave({ mode: 'ok' })
  })

  test('frees the right to probe when its lease ends, for exactly one other', async () => {
    await guarded.payments.behave({ mode: 'fail' })
    const traffic = guarded.traffic({ lanes: 6, call: pay(breaker) })
    await waitFor(() => isolatesOf(traffic.answers.filter(refused)).size === isolates, {
      what: 'all isolates to refuse',
    })
    await guarded.payments.behave({ mode: 'hang' })
    const hanging = await waitFor(
      async () => (await guarded.calls(breaker)).find(({ mode }) => mode === 'hang'),
      { what: 'a probe that hangs' },
    )
    await guarded.payments.behave({ mode: 'ok' })
    Deno.kill(hanging.isolate, 'SIGKILL')
    await waitFor(() => traffic.answers.some(({ at, status }) => at > hanging.at && status === 200), {
      what: 'calls to go through again',
      timeoutMs: 10_000,
    })
    await traffic.stop()
    const [next] = (await guarded.calls(breaker)).filter(({ mode, at }) => mode === 'ok' && at >= hanging.at)
    expect(next?.isolate).not.toBe(hanging.isolate)
    // The right was given before the call it was given for was made.
    const given = (await events(breaker)).findLast(({ to, at }) => to === 'half_open' && at <= hanging.at)
    expect(next!.at - given!.at).toBeGreaterThanOrEqual(probeLeaseMs)
    expect(next!.at - hanging.at).toBeLessThan(probeLeaseMs + refreshMs + tripMs)
    // The lanes whose calls died with the isolate are the only ones that were not answered by the function.
    const lost = traffic.answers.filter(({ isolate }) => isolate === 0)
    expect(lost.length).toBeLessThanOrEqual(6)
  })
})

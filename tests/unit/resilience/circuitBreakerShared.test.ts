/** resilience/breakerView.ts and breakerExchange.ts: what several isolates know of a service together. */
import { describe, expect, test } from 'vitest'
import type { StateChange } from '../../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { MemoryBreakerStore } from '../../../supabase/functions/_shared/resilience/stores/memoryBreakers.ts'
import { fail, fleet, outcomeOf, refreshMs, up } from '../../support/isolatedBreakers.ts'

describe('isolates with one store', () => {
  test('add their failures up', async () => {
    const { isolates: [a, b, c], timers } = fleet(3, { failureThreshold: 5 })
    for (const { breaker } of [a!, b!, c!]) await breaker.execute(up)
    await fail(a!.breaker, 2)
    await fail(b!.breaker, 2)
    // Those that follow each other closely travel together.
    await timers.advance(100)
    expect(b!.breaker.health().state).toBe('closed')
    await fail(c!.breaker, 1)
    await timers.advance(100)
    expect(c!.breaker.health()).toMatchObject({ state: 'open', local: false })
    expect(await outcomeOf(c!.breaker.execute(up))).toBe('CIRCUIT_OPEN')
  })

  test('see within refreshMs and one trip that one of them has opened', async () => {
    const { isolates: [a, b], timers } = fleet(2, { failureThreshold: 3 })
    await b!.breaker.execute(up)
    b!.line.delayMs = 40
    await fail(a!.breaker, 3)
    const openedAt = timers.now()
    while (b!.breaker.health().state === 'closed') {
      await outcomeOf(b!.breaker.execute(up))
      await timers.advance(10)
    }
    expect(timers.now() - openedAt).toBeLessThanOrEqual(refreshMs + 40 + 10)
    expect(b!.breaker.health().openedAt).toBe(a!.breaker.health().openedAt)
  })

  test('ask first when they are new, so that they do not call a service that others found sick', async () => {
    const { isolates: [a, b, c], timers } = fleet(3, { failureThreshold: 1 })
    await fail(a!.breaker, 1)
    let calls = 0
    const outcomes = await Promise.all([1, 2, 3].map(() => outcomeOf(b!.breaker.execute(() => ++calls))))
    expect(outcomes).toEqual(['CIRCUIT_OPEN', 'CIRCUIT_OPEN', 'CIRCUIT_OPEN'])
    expect(calls).toBe(0)
    expect(b!.line.trips).toHaveLength(1)
    c!.line.delayMs = Infinity
    const asking = outcomeOf(c!.breaker.execute(up))
    await timers.advance(500)
    expect(await asking).toBe('up')
  })

  test('make no trip while calls succeed but one in each refreshMs, with all breakers in it', async () => {
    const { isolates: [a], timers } = fleet(1)
    const mail = a!.breakers.get('mail')
    await Promise.all([a!.breaker.execute(up), mail.execute(up)])
    await timers.advance(0)
    const before = a!.line.trips.length
    for (let ms = 0; ms < 5_000; ms += 10) {
      await a!.breaker.execute(up)
      await mail.execute(up)
      await timers.advance(10)
    }
    const trips = a!.line.trips.slice(before)
    expect(trips).toHaveLength(4)
    for (const trip of trips) expect(trip.map(({ name }) => name)).toEqual(['service', 'mail'])
    const told = trips.flat().reduce((sum, { successes }) => sum + successes, 0)
    expect(told).toBe(2 * (1 + 400))
    await timers.advance(60_000)
    expect(a!.line.trips).toHaveLength(before + 4)
    expect(timers.pending).toBe(0)
  })

  test('let exactly one of them probe, and all go on when it succeeded', async () => {
    const { isolates, timers } = fleet(4, { failureThreshold: 1, cooldownMs: 5_000 })
    for (const { breaker } of isolates) await breaker.execute(up)
    await fail(isolates[0]!.breaker, 1)
    await timers.advance(refreshMs)
    for (const { breaker } of isolates) await outcomeOf(breaker.execute(up))
    await timers.advance(5_000)
    const probe = Promise.withResolvers<string>()
    let calls = 0
    const work = () => {
      calls++
      return probe.promise
    }
    const all = isolates.flatMap(({ breaker }) => [1, 2, 3].map(() => outcomeOf(breaker.execute(work))))
    await timers.advance(400)
    expect(calls).toBe(1)
    probe.resolve('up')
    const outcomes = await Promise.all(all)
    expect(outcomes.filter((outcome) => outcome === 'up')).toHaveLength(1)
    expect(outcomes.filter((outcome) => outcome === 'CIRCUIT_OPEN')).toHaveLength(11)
    await timers.advance(refreshMs)
    for (const { breaker } of isolates) await outcomeOf(breaker.execute(up))
    await timers.advance(0)
    for (const { breaker } of isolates) expect(await breaker.execute(up)).toBe('up')
  })

  test('refuse at once while one of their calls asks for the right to probe', async () => {
    const { isolates: [a], timers } = fleet(1, { failureThreshold: 1, cooldownMs: 1_000 })
    await fail(a!.breaker, 1)
    await timers.advance(1_000)
    a!.line.delayMs = 100
    const asking = outcomeOf(a!.breaker.execute(up))
    expect(await outcomeOf(a!.breaker.execute(up))).toBe('CIRCUIT_OPEN')
    expect(() => a!.breaker.requireAvailable()).toThrow('it is open')
    expect(await timers.settle(asking)).toBe('up')
  })

  test('probe also where hanging calls have taken all places', async () => {
    const options = { failureThreshold: 1, cooldownMs: 1_000, maxConcurrent: 1 }
    const { isolates: [a, b], timers } = fleet(2, options)
    void b!.breaker.execute(() => new Promise(() => {}))
    await timers.advance(refreshMs)
    await fail(a!.breaker, 1)
    expect(await outcomeOf(b!.breaker.execute(up))).toBe('BULKHEAD_FULL')
    await timers.advance(1_000)
    expect(await outcomeOf(b!.breaker.execute(up))).toBe('up')
    expect(b!.breaker.health()).toMatchObject({ state: 'closed', running: 1 })
  })

  test('probe again when the caller of a probe gave it up', async () => {
    const options = { failureThreshold: 1, cooldownMs: 1_000, probeLeaseMs: 60_000 }
    const { isolates: [a], timers } = fleet(1, options)
    await fail(a!.breaker, 1)
    await timers.advance(1_000)
    const controller = new AbortController()
    const probe = outcomeOf(a!.breaker.execute(() => new Promise(() => {}), { signal: controller.signal }))
    await timers.advance(10)
    controller.abort(new Error('gone'))
    expect(await probe).toBe('gone')
    expect(await outcomeOf(a!.breaker.execute(up))).toBe('up')
  })

  test('probe again when the isolate that probed is gone', async () => {
    const options = { failureThreshold: 1, cooldownMs: 1_000, probeLeaseMs: 3_000 }
    const { isolates: [a, b], timers } = fleet(2, options)
    await b!.breaker.execute(up)
    await fail(a!.breaker, 1)
    await timers.advance(1_000)
    void a!.breaker.execute(() => new Promise(() => {}))
    await timers.advance(0)
    a!.line.error = new Error('its isolate is gone')
    for (let ms = 0; ms < 2_900; ms += 100) {
      const outcome = await outcomeOf(b!.breaker.execute(up))
      if (ms >= 200) expect(outcome).toBe('CIRCUIT_OPEN')
      await timers.advance(100)
    }
    await timers.advance(100)
    expect(await b!.breaker.execute(up)).toBe('up')
    expect(b!.breaker.health().state).toBe('closed')
  })

  test('count nothing for calls that began in an epoch that is over', async () => {
    const { isolates: [a, b], timers, store } = fleet(2, { failureThreshold: 2, cooldownMs: 1_000 })
    const slow = Promise.withResolvers<never>()
    const calls = [1, 2, 3].map(() => outcomeOf(b!.breaker.execute(() => slow.promise)))
    await timers.advance(0)
    await fail(a!.breaker, 2)
    await timers.advance(1_000)
    // The others open, are healed, and this one hears of it before its calls fail.
    await a!.breaker.execute(up)
    await outcomeOf(b!.breaker.execute(up))
    await timers.advance(0)
    slow.reject(new Error('late'))
    await Promise.all(calls)
    await timers.advance(200)
    expect(b!.breaker.health()).toMatchObject({ state: 'closed', failures: 0 })
    // Nor where it has not heard of it: the store knows.
    const old = b!.line.trips.flat()[1]!
    expect(await store.exchange([{ ...old, epoch: old.epoch, failures: 9, trailingFailures: 9 }]))
      .toMatchObject([{ state: 'closed', failures: 0 }])
  })

  test('do not report under a new epoch what failed in an old one', async () => {
    const { isolates: [a, b], timers, store } = fleet(2, { failureThreshold: 3, cooldownMs: 1_000 })
    await b!.breaker.execute(up)
    await timers.advance(refreshMs)
    const trip = b!.breakers.outgoing()!
    await fail(b!.breaker, 2)
    await fail(a!.breaker, 3)
    await timers.advance(1_000)
    await a!.breaker.execute(up)
    trip.arrived(await store.exchange(trip.reports))
    await timers.advance(refreshMs)
    await b!.breaker.execute(up)
    await timers.advance(0)
    expect(b!.breaker.health()).toMatchObject({ state: 'closed', successes: 1, failures: 0 })
  })

  test('tell at once that they have opened, when a trip is under way as soon as it is over', async () => {
    const { isolates: [a], timers } = fleet(1, { failureThreshold: 3 })
    await a!.breaker.execute(up)
    await timers.advance(refreshMs)
    a!.line.delayMs = 40
    await a!.breaker.execute(up)
    const before = a!.line.trips.length
    await fail(a!.breaker, 3)
    expect(a!.line.trips).toHaveLength(before)
    await timers.advance(40)
    expect(a!.line.trips[before]).toMatchObject([{ failures: 3 }])
  })

  test('are all held open, and reset, by hand', async () => {
    const { isolates: [a, b], timers } = fleet(2, { cooldownMs: 100 })
    await b!.breaker.execute(up)
    await a!.breaker.forceOpen('maintenance')
    expect(a!.breaker.health()).toMatchObject({ forced: 'open', local: false })
    await timers.advance(refreshMs)
    await b!.breaker.execute(up)
    await timers.advance(10_000)
    expect(await outcomeOf(b!.breaker.execute(up))).toBe('CIRCUIT_OPEN')
    await b!.breaker.reset()
    expect(await outcomeOf(a!.breaker.execute(up))).toBe('CIRCUIT_OPEN')
    await timers.advance(0)
    expect(await a!.breaker.execute(up)).toBe('up')
  })

  test('are closed when the store has lost its memory', async () => {
    const { isolates: [a], timers, other } = fleet(1, { failureThreshold: 1, cooldownMs: 60_000 })
    await fail(a!.breaker, 1)
    await timers.advance(0)
    expect(a!.breaker.health()).toMatchObject({ state: 'open', local: false })
    const fresh = new MemoryBreakerStore({ timers })
    a!.line.exchange = (reports) => fresh.exchange(reports)
    await timers.advance(refreshMs)
    await outcomeOf(a!.breaker.execute(up))
    await timers.advance(0)
    expect(await a!.breaker.execute(up)).toBe('up')
    await fail(a!.breaker, 1)
    await timers.advance(0)
    const newcomer = other(fresh).breakers.get('service', { failureThreshold: 1, cooldownMs: 60_000 })
    expect(await outcomeOf(newcomer.execute(up))).toBe('CIRCUIT_OPEN')
  })

  test('hear of a change once each, and say whom they have it from', async () => {
    const changes: string[][] = [[], []]
    const { isolates, timers } = fleet(2)
    const breakers = isolates.map(({ breakers }, n) =>
      breakers.get('watched', {
        failureThreshold: 1,
        cooldownMs: 1_000,
        onStateChange: ({ from, to, source }: StateChange) => changes[n]!.push(`${from} ${to} ${source}`),
      })
    )
    for (const breaker of breakers) await breaker.execute(up)
    await fail(breakers[0]!, 1)
    await timers.advance(1_000)
    await outcomeOf(breakers[1]!.execute(up))
    await timers.advance(0)
    await breakers[0]!.execute(up)
    await timers.advance(1_000)
    await outcomeOf(breakers[1]!.execute(up))
    await timers.advance(0)
    expect(changes).toEqual([
      ['closed open local', 'open half_open shared', 'half_open closed shared'],
      ['closed open shared', 'open closed shared'],
    ])
  })
})

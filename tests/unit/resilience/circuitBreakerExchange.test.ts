/** resilience/breakerExchange.ts: how an isolate talks to the store, and what it does without. */
import { describe, expect, test } from 'vitest'
import { FakeTimers } from '../../support/fakeTimers.ts'
import { fail, fleet, isolate, outcomeOf, refreshMs, up } from '../../support/isolatedBreakers.ts'

describe('a store that is away', () => {
  test('leaves each isolate to its own rules, probes included, and says so once', async () => {
    const { isolates: [a, b], timers } = fleet(2, { failureThreshold: 3, cooldownMs: 2_000 })
    for (const { line, breaker } of [a!, b!]) {
      line.error = new Error('connection refused')
      await breaker.execute(up)
    }
    await fail(a!.breaker, 3)
    await timers.advance(1_000)
    expect(a!.breaker.health()).toMatchObject({ state: 'open', local: true })
    expect(await b!.breaker.execute(up)).toBe('up')
    await timers.advance(1_000)
    expect(await a!.breaker.execute(up)).toBe('up')
    expect(a!.breaker.health()).toMatchObject({ state: 'closed', local: true })
    for (let call = 0; call < 5; call++) {
      await timers.advance(1_000)
      await a!.breaker.execute(up)
    }
    const warnings = a!.lines.filter(({ message }) => message.includes('store is away'))
    expect(warnings).toMatchObject([{ level: 'warn' }])
  })

  test('is asked again each refreshMs, and hears what it has missed when it is back', async () => {
    const { isolates: [a, b], timers } = fleet(2, { failureThreshold: 4, cooldownMs: 20_000 })
    for (const { breaker } of [a!, b!]) await breaker.execute(up)
    a!.line.error = new Error('connection refused')
    await fail(a!.breaker, 3)
    const before = a!.line.trips.length
    for (let ms = 0; ms < 5_000; ms += 100) {
      await a!.breaker.execute(up)
      await timers.advance(100)
    }
    expect(a!.line.trips.length - before).toBeLessThanOrEqual(6)
    a!.line.error = undefined
    await timers.advance(1_000)
    await a!.breaker.execute(up)
    await timers.advance(0)
    expect(a!.breaker.health()).toMatchObject({ state: 'closed', local: false, failures: 3 })
    await fail(b!.breaker, 1)
    await timers.advance(100)
    expect(b!.breaker.health().state).toBe('open')
    expect(a!.lines.map(({ message }) => message)).toContain('Circuit breakers share their state again')
  })

  test('hears what failed before it was ever reached', async () => {
    const { isolates: [a, b], timers } = fleet(2, { failureThreshold: 4 })
    a!.line.error = new Error('connection refused')
    await fail(a!.breaker, 3)
    a!.line.error = undefined
    await timers.advance(refreshMs)
    await a!.breaker.execute(up)
    await timers.advance(100)
    await b!.breaker.execute(up)
    await fail(b!.breaker, 1)
    await timers.advance(100)
    expect(b!.breaker.health().state).toBe('open')
  })

  test('when a probe is over leaves it to the isolate what follows', async () => {
    const options = { failureThreshold: 1, cooldownMs: 1_000, probeLeaseMs: 60_000 }
    const { isolates: [a], timers } = fleet(1, options)
    await fail(a!.breaker, 1)
    await timers.advance(1_000)
    const probe = Promise.withResolvers<string>()
    const probing = a!.breaker.execute(() => probe.promise)
    await timers.advance(10)
    a!.line.error = new Error('connection refused')
    probe.resolve('up')
    expect(await probing).toBe('up')
    expect(a!.breaker.health()).toMatchObject({ state: 'closed', local: true })
    a!.line.error = undefined
    await timers.advance(refreshMs)
    await a!.breaker.execute(up)
    await timers.advance(0)
    expect(a!.breaker.health()).toMatchObject({ state: 'closed', local: false })
  })

  test('does not hear of failures that are older than the window', async () => {
    const { isolates: [a], timers } = fleet(1, { failureThreshold: 3, windowMs: 10_000 })
    await a!.breaker.execute(up)
    a!.line.error = new Error('connection refused')
    await fail(a!.breaker, 2)
    await timers.advance(11_000)
    a!.line.error = undefined
    await a!.breaker.execute(up)
    await timers.advance(refreshMs)
    await a!.breaker.execute(up)
    await timers.advance(0)
    expect(a!.breaker.health()).toMatchObject({ local: false, failures: 0 })
  })

  test('that never answers is given up after two seconds, and a late answer changes nothing', async () => {
    const { isolates: [a], timers } = fleet(1, { failureThreshold: 2, cooldownMs: 60_000 })
    await a!.breaker.execute(up)
    const late = Promise.withResolvers<void>()
    const { exchange } = a!.line
    a!.line.exchange = async (reports) => {
      const statuses = await exchange.call(a!.line, reports)
      await late.promise
      return statuses
    }
    await timers.advance(refreshMs)
    await a!.breaker.execute(up)
    await timers.advance(1_999)
    expect(await a!.breaker.execute(up)).toBe('up')
    expect(a!.breaker.health().local).toBe(false)
    await timers.advance(1)
    await a!.breaker.execute(up)
    expect(a!.breaker.health().local).toBe(true)
    await fail(a!.breaker, 2)
    late.resolve()
    await timers.advance(0)
    expect(a!.breaker.health().state).toBe('open')
  })

  test('refuses what is forced, and nothing changes', async () => {
    const { isolates: [a] } = fleet(1)
    await a!.breaker.execute(up)
    a!.line.error = new Error('connection refused')
    await expect(a!.breaker.forceOpen('maintenance')).rejects.toThrow('connection refused')
    expect(await a!.breaker.execute(up)).toBe('up')
  })

  test('while a probe is asked for leaves the asker to probe by itself', async () => {
    const { isolates: [a], timers } = fleet(1, { failureThreshold: 1, cooldownMs: 1_000 })
    await fail(a!.breaker, 1)
    await timers.advance(1_000)
    a!.line.error = new Error('connection refused')
    expect(await a!.breaker.execute(up)).toBe('up')
    expect(a!.breaker.health()).toMatchObject({ state: 'closed', local: true })
  })
})

describe('a right to probe that comes late', () => {
  test('is kept for the next call', async () => {
    const { isolates: [a], timers } = fleet(1, { failureThreshold: 1, cooldownMs: 1_000 })
    await fail(a!.breaker, 1)
    await timers.advance(1_000)
    a!.line.delayMs = 700
    const asking = outcomeOf(a!.breaker.execute(up))
    await timers.advance(500)
    expect(await asking).toBe('CIRCUIT_OPEN')
    await timers.advance(200)
    a!.line.delayMs = 0
    expect(await a!.breaker.execute(up)).toBe('up')
  })

  test('is given back when nobody calls for long', async () => {
    const options = { failureThreshold: 1, cooldownMs: 1_000, probeLeaseMs: 10_000 }
    const { isolates: [a, b], timers } = fleet(2, options)
    await fail(a!.breaker, 1)
    await timers.advance(1_000)
    a!.line.delayMs = 300
    const controller = new AbortController()
    const asking = outcomeOf(a!.breaker.execute(up, { signal: controller.signal }))
    controller.abort(new Error('gone'))
    expect(await asking).toBe('gone')
    await timers.advance(6_000)
    a!.line.delayMs = 0
    expect(await outcomeOf(a!.breaker.execute(up))).toBe('CIRCUIT_OPEN')
    await timers.advance(0)
    expect(await b!.breaker.execute(up)).toBe('up')
  })
})

describe('outgoing()', () => {
  test('lets the reports travel with another trip', async () => {
    const { isolates: [a, b], timers, store } = fleet(2, { failureThreshold: 1 })
    await fail(b!.breaker, 1)
    const trip = a!.breakers.outgoing()!
    expect(trip.reports).toMatchObject([{ name: 'service', epoch: 0 }])
    expect(a!.breakers.outgoing()).toBeUndefined()
    trip.arrived(await store.exchange(trip.reports))
    expect(() => a!.breaker.requireAvailable()).toThrow('it is open')
    expect(await outcomeOf(a!.breaker.execute(up))).toBe('CIRCUIT_OPEN')
    expect(a!.line.trips).toHaveLength(0)
    expect(a!.breakers.outgoing()).toBeUndefined()
    await timers.advance(refreshMs)
    expect(a!.breakers.outgoing()).toBeDefined()
  })

  test('takes the failures along, and keeps them when the trip fails', async () => {
    const { isolates: [a], store } = fleet(1)
    const first = a!.breakers.outgoing()!
    first.arrived(await store.exchange(first.reports))
    await fail(a!.breaker, 1)
    await a!.breaker.execute(up)
    await fail(a!.breaker, 1)
    const trip = a!.breakers.outgoing()!
    expect(trip.reports).toMatchObject([{ epoch: 1, successes: 1, failures: 2, trailingFailures: 1 }])
    trip.failed(new Error('connection reset'))
    expect(a!.breaker.health()).toMatchObject({ failures: 2, local: true })
    await fail(a!.breaker, 1)
    const again = a!.breakers.outgoing()!
    expect(again.reports).toMatchObject([{ successes: 1, failures: 3, trailingFailures: 2 }])
    again.arrived(await store.exchange(again.reports))
    again.failed(new Error('too late to fail'))
    expect(a!.breaker.health()).toMatchObject({ failures: 3, local: false })
  })

  test('is nothing where there is no store', () => {
    const { breakers } = isolate({ timers: new FakeTimers() })
    breakers.get('service')
    expect(breakers.outgoing()).toBeUndefined()
  })
})

describe('close()', () => {
  test('leaves no timer, closes the store and lets the breakers go on alone', async () => {
    const { isolates: [a], timers } = fleet(1)
    await fail(a!.breaker, 2)
    await a!.breakers.close()
    expect(timers.pending).toBe(0)
    expect(await a!.breaker.execute(up)).toBe('up')
    expect(a!.breaker.health().local).toBe(true)
  })
})

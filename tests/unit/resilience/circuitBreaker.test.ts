/** resilience/circuitBreaker.ts: one breaker in one isolate. What isolates share: circuitBreakerShared.test.ts. */
import { describe, expect, test } from 'vitest'
import { HoldfastError, isHoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import { counters } from '../../../supabase/functions/_shared/observability/metrics.ts'
import {
  type CallEvent,
  type CircuitBreakerOptions,
  circuitBreakers,
  CircuitOpenError,
  type StateChange,
  withCircuitBreaker,
} from '../../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { down, isolate, outcomeOf, up } from '../../support/isolatedBreakers.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

let names = 0

function breakerWith(options: CircuitBreakerOptions = {}) {
  const timers = new FakeTimers()
  const { breakers, lines } = isolate({ timers })
  return { timers, lines, breakers, breaker: breakers.get(`service-${++names}`, options) }
}

/** Lets that many calls fail. */
async function fail(breaker: ReturnType<typeof breakerWith>['breaker'], calls: number): Promise<void> {
  for (let call = 0; call < calls; call++) await outcomeOf(breaker.execute(down))
}

describe('execute()', () => {
  test('settles as the work does', async () => {
    const { breaker } = breakerWith()
    const error = new Error('no')
    expect(await breaker.execute(() => Promise.resolve(1))).toBe(1)
    expect(await breaker.execute(() => 2)).toBe(2)
    expect(
      await breaker.execute(() => ({ then: (done: (value: number) => void) => done(3) } as Promise<number>)),
    )
      .toBe(3)
    await expect(breaker.execute(() => Promise.reject(error))).rejects.toBe(error)
    await expect(breaker.execute(() => {
      throw error
    })).rejects.toBe(error)
  })

  test('opens at failureThreshold, refuses without calling, probes after cooldownMs and closes', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 3, cooldownMs: 1_000 })
    await fail(breaker, 3)
    let calls = 0
    const work = () => Promise.resolve(++calls)
    await timers.advance(999)
    expect(await outcomeOf(breaker.execute(work))).toBe('CIRCUIT_OPEN')
    expect(calls).toBe(0)
    await timers.advance(1)
    expect(await breaker.execute(work)).toBe(1)
    expect(breaker.health()).toMatchObject({ state: 'closed', healthy: true })
    await fail(breaker, 2)
    expect(await breaker.execute(work)).toBe(2)
  })

  test('opens again for another cooldown when the probe fails', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 1, cooldownMs: 1_000 })
    await fail(breaker, 1)
    await timers.advance(1_000)
    expect(await outcomeOf(breaker.execute(down))).toBe('The service is down')
    await timers.advance(999)
    expect(await outcomeOf(breaker.execute(up))).toBe('CIRCUIT_OPEN')
    await timers.advance(1)
    expect(await outcomeOf(breaker.execute(up))).toBe('up')
  })

  test('lets no more than halfOpenProbes through at once, and closes when all succeeded', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 1, cooldownMs: 1_000, halfOpenProbes: 2 })
    await fail(breaker, 1)
    await timers.advance(1_000)
    const probes = [Promise.withResolvers<string>(), Promise.withResolvers<string>()]
    const running = probes.map(({ promise }) => breaker.execute(() => promise))
    expect(await outcomeOf(breaker.execute(up))).toBe('CIRCUIT_OPEN')
    probes[0]!.resolve('one')
    expect(await running[0]).toBe('one')
    expect(await outcomeOf(breaker.execute(up))).toBe('CIRCUIT_OPEN')
    probes[1]!.resolve('two')
    expect(await running[1]).toBe('two')
    expect(await breaker.execute(up)).toBe('up')
  })

  test('gives the place of a probe that hangs to another after probeLeaseMs, and ignores what comes of it', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 1, cooldownMs: 1_000, probeLeaseMs: 200 })
    await fail(breaker, 1)
    await timers.advance(1_000)
    const hanging = Promise.withResolvers<never>()
    const probe = outcomeOf(breaker.execute(() => hanging.promise))
    await timers.advance(199)
    expect(await outcomeOf(breaker.execute(up))).toBe('CIRCUIT_OPEN')
    await timers.advance(1)
    expect(await breaker.execute(up)).toBe('up')
    hanging.reject(new Error('too late'))
    expect(await probe).toBe('too late')
    expect(breaker.health()).toMatchObject({ state: 'closed', failures: 0 })
  })

  test('does not count calls that began before it opened', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 2, cooldownMs: 1_000 })
    const slow = [1, 2, 3].map(() => Promise.withResolvers<never>())
    const calls = slow.map(({ promise }) => outcomeOf(breaker.execute(() => promise)))
    const good = Promise.withResolvers<string>()
    calls.push(breaker.execute(() => good.promise))
    await fail(breaker, 2)
    await timers.advance(1_000)
    await breaker.execute(up)
    for (const { reject } of slow) reject(new Error('late'))
    good.resolve('good')
    expect(await Promise.all(calls)).toEqual(['late', 'late', 'late', 'good'])
    expect(breaker.health()).toMatchObject({ state: 'closed', successes: 0, failures: 0 })
  })

  test('gives the work a signal if it declares a parameter', async () => {
    const { breaker } = breakerWith()
    let given: unknown[] = []
    await breaker.execute((signal) => void (given = [signal]))
    expect(given).toEqual([expect.any(AbortSignal)])
    await breaker.execute((...args: unknown[]) => void (given = args))
    expect(given).toEqual([])
  })
})

describe('a refusal', () => {
  test('is one error for all calls, and says how long to wait by the time it is asked', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 2, cooldownMs: 10_000 })
    await fail(breaker, 2)
    const refusals = await Promise.all([1, 2].map(() => breaker.execute(up).catch((error) => error)))
    expect(refusals[0]).toBe(refusals[1])
    const [refusal] = refusals
    expect(refusal).toBeInstanceOf(CircuitOpenError)
    expect(isHoldfastError(refusal)).toBe(true)
    expect(refusal).toMatchObject({
      code: 'CIRCUIT_OPEN',
      status: 503,
      retryable: true,
      retryAfterMs: 10_000,
    })
    expect(refusal.message).toBe(
      `Cannot call "${breaker.name}": it is open: 2 failures within 30000 ms`,
    )
    await timers.advance(7_500)
    expect(refusal.retryAfterMs).toBe(2_500)
    await timers.advance(2_500)
    expect(refusal.retryAfterMs).toBeGreaterThan(0)
  })

  test('while a probe is under way says to come back soon', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 1, cooldownMs: 60_000 })
    await fail(breaker, 1)
    await timers.advance(60_000)
    const probe = Promise.withResolvers<void>()
    const probing = breaker.execute(() => probe.promise)
    const refusal = await breaker.execute(up).catch((error) => error)
    expect(refusal).toMatchObject({ code: 'CIRCUIT_OPEN', retryAfterMs: 1_000 })
    probe.resolve()
    await probing
  })

  test('is what requireAvailable() throws, which neither calls nor probes', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 1, cooldownMs: 1_000 })
    breaker.requireAvailable()
    await fail(breaker, 1)
    expect(() => breaker.requireAvailable()).toThrow(CircuitOpenError)
    await timers.advance(1_000)
    breaker.requireAvailable()
    expect(breaker.health().state).toBe('open')
    expect(await breaker.execute(up)).toBe('up')
  })
})

describe('what counts as a failure', () => {
  const refusedWith = (status: number) => Object.assign(new Error(`answered ${status}`), { status })
  const errors: [string, unknown, boolean][] = [
    ['an error', new Error('x'), true],
    ['no error at all', undefined, true],
    ['a text', 'x', true],
    ['a status of 500', refusedWith(500), true],
    ['UPSTREAM_TIMEOUT', new HoldfastError('UPSTREAM_TIMEOUT', 'x'), true],
    ['TimeoutError', new DOMException('x', 'TimeoutError'), true],
    ['a response with 503', new Response(null, { status: 503 }), true],
    ['a status of 404', refusedWith(404), false],
    ['VALIDATION_ERROR', new HoldfastError('VALIDATION_ERROR', 'x'), false],
    ['a response with 409', new Response(null, { status: 409 }), false],
    ['AbortError', new DOMException('x', 'AbortError'), false],
  ]

  test.each(errors)('%s: %#', async (_, error, isFailure) => {
    const { breaker } = breakerWith({ failureThreshold: 1 })
    await breaker.execute(() => Promise.reject(error)).catch(() => {})
    expect(breaker.health().state).toBe(isFailure ? 'open' : 'closed')
  })

  test('is what isFailure says; what it throws is no excuse', async () => {
    const isFailure = (error: unknown) => {
      if (error === 'mine') return false
      throw new Error('I do not know')
    }
    const { breaker } = breakerWith({ failureThreshold: 1, isFailure })
    await breaker.execute(() => Promise.reject('mine')).catch(() => {})
    expect(breaker.health()).toMatchObject({ state: 'closed', successes: 1 })
    expect(await breaker.execute(() => Promise.reject('odd')).catch((error) => error)).toBe('odd')
    expect(breaker.health().state).toBe('open')
  })

  test('an excused error begins a row of failures anew, and closes it when it answers a probe', async () => {
    const { breaker, timers } = breakerWith({ consecutiveFailures: 2, cooldownMs: 1_000 })
    const excused = () => Promise.reject(refusedWith(422))
    for (const work of [down, excused, down, excused, down]) await outcomeOf(breaker.execute(work))
    expect(breaker.health().state).toBe('closed')
    await fail(breaker, 1)
    expect(breaker.health().state).toBe('open')
    await timers.advance(1_000)
    expect(await outcomeOf(breaker.execute(excused))).toBe('answered 422')
    expect(breaker.health().state).toBe('closed')
  })
})

describe('a fallback', () => {
  test('takes the place of failures and refusals, and is told the error', async () => {
    const { breaker } = breakerWith({ failureThreshold: 1 })
    const errors: unknown[] = []
    const fallback = (error: unknown) => Promise.resolve(`instead ${errors.push(error)}`)
    expect(await breaker.execute(up, { fallback })).toBe('up')
    expect(await breaker.execute(down, { fallback })).toBe('instead 1')
    expect(await breaker.execute(up, { fallback })).toBe('instead 2')
    expect(errors).toEqual([new Error('The service is down'), expect.any(CircuitOpenError)])
  })

  test('is not for what the caller itself did wrong', async () => {
    const { breaker } = breakerWith()
    const wrong = new HoldfastError('VALIDATION_ERROR', 'No such thing')
    await expect(breaker.execute(() => Promise.reject(wrong), { fallback: () => 1 })).rejects.toBe(wrong)
  })

  test('that fails is the outcome', async () => {
    const { breaker } = breakerWith()
    const fallback = () => {
      throw new Error('nor this')
    }
    await expect(breaker.execute(down, { fallback })).rejects.toThrow('nor this')
  })
})

describe('observers', () => {
  test('hear of each change of state and each call, in their order', async () => {
    const changes: StateChange[] = []
    const calls: CallEvent[] = []
    const { breaker, timers } = breakerWith({
      failureThreshold: 2,
      cooldownMs: 1_000,
      onStateChange: (change) => changes.push(change),
      onCall: (event) => calls.push(event),
    })
    await fail(breaker, 3)
    await timers.advance(1_000)
    const probing = breaker.execute(() => new Promise((resolve) => timers.set(() => resolve('up'), 30)))
    await timers.advance(30)
    await probing
    const because = '2 failures within 30000 ms'
    expect(changes.map(({ from, to, reason, source }) => [from, to, reason, source])).toEqual([
      ['closed', 'open', because, 'local'],
      ['open', 'half_open', because, 'local'],
      ['half_open', 'closed', null, 'local'],
    ])
    expect(calls.map(({ outcome, probe, durationMs }) => [outcome, probe, durationMs])).toEqual([
      ['failed', false, 0],
      ['failed', false, 0],
      ['refused', false, 0],
      ['succeeded', true, 30],
    ])
  })

  test('cannot break the work, and their failures are logged', async () => {
    const onStateChange = () => {
      throw new Error('observer')
    }
    const onCall = () => Promise.reject(new Error('observer'))
    const { breaker, lines, timers } = breakerWith({
      failureThreshold: 1,
      cooldownMs: 50,
      onStateChange,
      onCall,
    })
    expect(await outcomeOf(breaker.execute(down))).toBe('The service is down')
    await timers.advance(50)
    expect(await breaker.execute(up)).toBe('up')
    const failures = lines.filter(({ message }) =>
      message === `An observer of the circuit breaker "${breaker.name}" failed`
    )
    expect(failures).toHaveLength(5)
  })

  test('are joined by the log and the metrics', async () => {
    const { breaker, lines, timers } = breakerWith({ failureThreshold: 1, cooldownMs: 50 })
    await fail(breaker, 2)
    await timers.advance(50)
    await breaker.execute(up)
    expect(lines.map(({ level, message }) => [level, message])).toEqual([
      ['warn', `Circuit breaker "${breaker.name}" is open`],
      ['info', `Circuit breaker "${breaker.name}" is half_open`],
      ['info', `Circuit breaker "${breaker.name}" is closed`],
    ])
    const counted = Object.entries(counters()).filter(([series]) => series.includes(`"${breaker.name}"`))
    expect(Object.fromEntries(counted)).toEqual({
      [`circuit_breaker_calls_total{breaker="${breaker.name}",outcome="failed"}`]: 1,
      [`circuit_breaker_calls_total{breaker="${breaker.name}",outcome="refused"}`]: 1,
      [`circuit_breaker_calls_total{breaker="${breaker.name}",outcome="succeeded"}`]: 1,
      [`circuit_breaker_changes_total{breaker="${breaker.name}",to="closed"}`]: 1,
      [`circuit_breaker_changes_total{breaker="${breaker.name}",to="half_open"}`]: 1,
      [`circuit_breaker_changes_total{breaker="${breaker.name}",to="open"}`]: 1,
    })
  })
})

describe('by hand', () => {
  test('forceOpen() refuses until forceClose(), which lets everything through until reset()', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 1, cooldownMs: 1_000 })
    await breaker.forceOpen('maintenance')
    await timers.advance(60_000)
    const refusal = await breaker.execute(up).catch((error) => error)
    expect(refusal.message).toBe(`Cannot call "${breaker.name}": it is held open: maintenance`)
    expect(refusal.retryAfterMs).toBe(1_000)
    expect(breaker.health()).toMatchObject({
      healthy: false,
      forced: 'open',
      message: 'Held open by hand: maintenance',
    })
    await breaker.forceClose('we know')
    await fail(breaker, 5)
    expect(breaker.health()).toMatchObject({
      healthy: true,
      state: 'closed',
      forced: 'closed',
      message: 'Held closed by hand: we know',
    })
    await breaker.reset()
    expect(breaker.health()).toMatchObject({ healthy: true, forced: null, failures: 0 })
    await fail(breaker, 1)
    expect(breaker.health().state).toBe('open')
    await breaker.reset()
    expect(await breaker.execute(up)).toBe('up')
  })
})

describe('health()', () => {
  test('tells the state, the rate of failures and when it is probed, also in words', async () => {
    const { breaker, breakers, timers } = breakerWith({ failureThreshold: 3, cooldownMs: 1_000 })
    expect(breaker.health()).toEqual({
      healthy: true,
      state: 'closed',
      forced: null,
      failureRate: 0,
      successes: 0,
      failures: 0,
      openedAt: null,
      retryInMs: 0,
      message: 'Calls flow',
      local: true,
    })
    await breaker.execute(up)
    await breaker.execute(up)
    await fail(breaker, 2)
    expect(breaker.health()).toMatchObject({
      healthy: true,
      failureRate: 0.5,
      message: 'Calls flow; 2 failed within 30000 ms',
    })
    const before = Date.now()
    await fail(breaker, 1)
    await timers.advance(400)
    const health = breakers.getAllHealth()[breaker.name]!
    expect(health).toMatchObject({ healthy: false, state: 'open', retryInMs: 600 })
    expect(Date.parse(health.openedAt!)).toBeGreaterThanOrEqual(before)
    expect(health.message).toBe(
      `Calls are refused since ${health.openedAt}: 3 failures within 30000 ms; the next probe is due in 600 ms`,
    )
    await timers.advance(600)
    expect(breaker.health().message).toMatch(/; the next call probes$/)
  })
})

describe('withCircuitBreaker()', () => {
  test('gives the outcome as a value', async () => {
    expect(await withCircuitBreaker('unit-value', up, { failureThreshold: 2 })).toEqual({
      success: true,
      data: 'up',
    })
    const failed = await withCircuitBreaker('unit-value', down)
    expect(failed).toEqual({ success: false, error: new Error('The service is down') })
    expect(circuitBreakers.getAllHealth()).toMatchObject({ 'unit-value': { healthy: true, failures: 1 } })
  })

  test('rejects for options out of range', async () => {
    await expect(withCircuitBreaker('unit-bad', up, { windowMs: 0 })).rejects.toThrow(RangeError)
  })
})

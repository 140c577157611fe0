/** resilience/guardedCall.ts, bulkhead.ts and callTimeouts.ts: what bounds a call, and how it is given up. */
import { describe, expect, test } from 'vitest'
import type { CircuitBreakerOptions } from '../../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { Deadline } from '../../../supabase/functions/_shared/resilience/timeout.ts'
import { countListeners, FakeTimers } from '../../support/fakeTimers.ts'
import { down, isolate, outcomeOf, up } from '../../support/isolatedBreakers.ts'

function breakerWith(options: CircuitBreakerOptions) {
  const timers = new FakeTimers()
  return { timers, breaker: isolate({ timers }).breakers.get('service', options) }
}

/** A call that ends when it is told to. */
function pending() {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  let signal: AbortSignal | undefined
  const work = (given: AbortSignal) => {
    signal = given
    return promise
  }
  return { work, resolve, reject, signal: () => signal }
}

describe('timeoutMs', () => {
  test('ends a call that takes longer, aborts its signal, and counts as a failure', async () => {
    const { breaker, timers } = breakerWith({ timeoutMs: 100, failureThreshold: 1 })
    const { work, signal } = pending()
    const call = breaker.execute(work).catch((error) => error)
    await timers.advance(99)
    expect(signal()!.aborted).toBe(false)
    await timers.advance(1)
    const error = await call
    expect(error).toMatchObject({ code: 'UPSTREAM_TIMEOUT', status: 504 })
    expect(error.message).toBe('Cannot finish the call of "service": no answer within 100 ms')
    expect(signal()!.reason).toBe(error)
    expect(breaker.health().state).toBe('open')
  })

  test('takes no notice of what becomes of a call that it has ended', async () => {
    const { breaker, timers } = breakerWith({ timeoutMs: 100, failureThreshold: 2 })
    const late = [pending(), pending()]
    const calls = late.map(({ work }, n) => {
      const call = outcomeOf(breaker.execute(n === 0 ? work : () => work(new AbortController().signal)))
      return call
    })
    await timers.advance(100)
    expect(await Promise.all(calls)).toEqual(['UPSTREAM_TIMEOUT', 'UPSTREAM_TIMEOUT'])
    late[0]!.resolve('late')
    late[1]!.reject(new Error('late'))
    await timers.advance(0)
    expect(breaker.health()).toMatchObject({ state: 'open' })
  })

  test("is each call's own, by one timer for all of them, which ends soon after the last", async () => {
    const { breaker, timers } = breakerWith({ timeoutMs: 1_000, failureThreshold: 1_000 })
    const calls = Array.from({ length: 100 }, () => pending())
    const outcomes: unknown[] = []
    for (const [n, { work }] of calls.entries()) {
      void outcomeOf(breaker.execute(work)).then((outcome) => outcomes[n] = [outcome, timers.now()])
      await timers.advance(2)
      expect(timers.pending).toBe(1)
    }
    const startedAt = timers.now() - 200
    for (const n of [0, 50, 99, 7]) calls[n]!.resolve(`done ${n}`)
    await timers.advance(0)
    const after = outcomeOf(breaker.execute(pending().work))
    await timers.advance(999)
    expect(timers.pending).toBe(1)
    await timers.advance(1)
    expect(await after).toBe('UPSTREAM_TIMEOUT')
    await timers.advance(1_000)
    for (const n of calls.keys()) {
      if ([0, 50, 99, 7].includes(n)) expect(outcomes[n]).toEqual([`done ${n}`, startedAt + 200])
      else expect(outcomes[n]).toEqual(['UPSTREAM_TIMEOUT', startedAt + 2 * n + 1_000])
    }
    expect(timers.pending).toBe(0)
  })

  test('is over when a timer was late', async () => {
    const { breaker, timers } = breakerWith({ timeoutMs: 100 })
    const first = outcomeOf(breaker.execute(pending().work))
    timers.jump(5_000)
    const second = outcomeOf(breaker.execute(pending().work))
    await timers.advance(0)
    expect(await first).toBe('UPSTREAM_TIMEOUT')
    await timers.advance(100)
    expect(await second).toBe('UPSTREAM_TIMEOUT')
  })

  test('is not for a call that is done: nothing is left behind', async () => {
    const { breaker, timers } = breakerWith({ timeoutMs: 60_000, maxConcurrent: 2 })
    const { signal } = new AbortController()
    const listeners = countListeners(signal)
    for (let call = 0; call < 10; call++) await breaker.execute(up, { signal })
    await outcomeOf(breaker.execute(down, { signal }))
    expect(listeners()).toBe(0)
    expect(breaker.health()).toMatchObject({ running: 0, queued: 0 })
    await timers.advance(250)
    expect(timers.pending).toBe(0)
  })
})

describe("the caller's deadline", () => {
  test('ends the call where it is nearer than timeoutMs', async () => {
    const { breaker, timers } = breakerWith({ timeoutMs: 1_000, failureThreshold: 1 })
    const call = outcomeOf(breaker.execute(pending().work, { deadline: Deadline.in(600, timers) }))
    await timers.advance(600)
    expect(await call).toBe('UPSTREAM_TIMEOUT')
    expect(breaker.health().state).toBe('open')
  })

  test('does not blame a service that had less than half of timeoutMs', async () => {
    const { breaker, timers } = breakerWith({ timeoutMs: 1_000, failureThreshold: 1 })
    const fallback = () => 'instead'
    const call = breaker.execute(pending().work, { deadline: Deadline.in(499, timers), fallback })
    await timers.advance(499)
    expect(await call).toBe('instead')
    expect(breaker.health()).toMatchObject({ state: 'closed', failures: 0 })
  })

  test('that has passed calls nothing', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 1 })
    const deadline = Deadline.in(1, timers)
    await timers.advance(1)
    let calls = 0
    const error = await breaker.execute(() => ++calls, { deadline }).catch((error) => error)
    expect(error.message).toBe('Cannot call "service": the deadline has passed')
    expect(calls).toBe(0)
  })

  test('also ends the wait for a place', async () => {
    const { breaker, timers } = breakerWith({ maxConcurrent: 1, maxQueued: 1, failureThreshold: 1 })
    const running = pending()
    const first = breaker.execute(running.work)
    const waiting = outcomeOf(breaker.execute(up, { deadline: Deadline.in(50, timers) }))
    await timers.advance(50)
    expect(await waiting).toBe('UPSTREAM_TIMEOUT')
    expect(breaker.health()).toMatchObject({ state: 'closed', queued: 0, running: 1 })
    running.resolve('done')
    expect(await first).toBe('done')
    expect(timers.pending).toBe(0)
  })
})

describe("the caller's signal", () => {
  test.each([{}, { timeoutMs: 1_000 }, { maxConcurrent: 1 }])(
    'ends the call at once with its reason, and says nothing about the service (%o)',
    async (options) => {
      const { breaker } = breakerWith({ failureThreshold: 1, ...options })
      const controller = new AbortController()
      const { work, signal } = pending()
      const call = breaker.execute(work, { signal: controller.signal, fallback: () => 'instead' })
      const reason = new Error('I have to go')
      controller.abort(reason)
      await expect(call).rejects.toBe(reason)
      expect(signal()!.reason).toBe(reason)
      expect(breaker.health()).toMatchObject({ state: 'closed', successes: 0, failures: 0 })
    },
  )

  test('that is aborted already calls nothing', async () => {
    const { breaker } = breakerWith({})
    let calls = 0
    const signal = AbortSignal.abort(new Error('gone'))
    await expect(breaker.execute(() => ++calls, { signal })).rejects.toThrow('gone')
    expect(calls).toBe(0)
  })

  test('frees the place of the probe', async () => {
    const { breaker, timers } = breakerWith({ failureThreshold: 1, cooldownMs: 100, probeLeaseMs: 60_000 })
    await outcomeOf(breaker.execute(down))
    await timers.advance(100)
    const controller = new AbortController()
    const probe = outcomeOf(breaker.execute(pending().work, { signal: controller.signal }))
    expect(await outcomeOf(breaker.execute(up))).toBe('CIRCUIT_OPEN')
    controller.abort(new Error('gone'))
    expect(await probe).toBe('gone')
    expect(await outcomeOf(breaker.execute(up))).toBe('up')
  })

  test('takes a waiting call out of the queue', async () => {
    const { breaker } = breakerWith({ maxConcurrent: 1, maxQueued: 1 })
    const running = pending()
    const first = breaker.execute(running.work)
    const controller = new AbortController()
    const waiting = outcomeOf(breaker.execute(up, { signal: controller.signal }))
    expect(await outcomeOf(breaker.execute(up))).toBe('BULKHEAD_FULL')
    controller.abort(new Error('gone'))
    expect(await waiting).toBe('gone')
    const next = breaker.execute(up)
    running.resolve('done')
    expect(await Promise.all([first, next])).toEqual(['done', 'up'])
  })
})

describe('maxConcurrent', () => {
  test('refuses what is beyond it and beyond maxQueued, which is no failure', async () => {
    const { breaker } = breakerWith({ maxConcurrent: 2, maxQueued: 1, failureThreshold: 1 })
    const calls = [pending(), pending(), pending()]
    const running = calls.map(({ work }) => breaker.execute(work))
    const refusals = await Promise.all([1, 2].map(() => breaker.execute(up).catch((error) => error)))
    expect(refusals[0]).toBe(refusals[1])
    expect(refusals[0]).toMatchObject({ code: 'BULKHEAD_FULL', status: 503, retryable: true })
    expect(refusals[0].message).toBe('Cannot call "service": 2 calls are running and 1 waiting')
    expect(await breaker.execute(up, { fallback: () => 'instead' })).toBe('instead')
    expect(breaker.health()).toMatchObject({ state: 'closed', running: 2, queued: 1 })
    for (const { resolve } of calls) resolve('done')
    expect(await Promise.all(running)).toEqual(['done', 'done', 'done'])
    expect(breaker.health()).toMatchObject({ running: 0, queued: 0 })
  })

  test('lets those who wait in by their order, never more at once', async () => {
    const { breaker, timers } = breakerWith({ maxConcurrent: 3, maxQueued: 1_000 })
    const began: number[] = []
    let running = 0
    let most = 0
    await timers.settle(Promise.all(Array.from({ length: 200 }, (_, n) =>
      breaker.execute(async () => {
        began.push(n)
        most = Math.max(most, ++running)
        await new Promise<void>((resolve) => timers.set(resolve, n % 7))
        running--
      }))))
    expect(most).toBe(3)
    expect(began).toEqual(Array.from({ length: 200 }, (_, n) => n))
  })

  test('turns all who wait away as soon as the breaker opens', async () => {
    const { breaker } = breakerWith({ maxConcurrent: 2, maxQueued: 20_000, failureThreshold: 1 })
    const running = pending()
    const first = outcomeOf(breaker.execute(running.work))
    void breaker.execute(pending().work)
    let calls = 0
    const waiting = Array.from({ length: 20_000 }, () => outcomeOf(breaker.execute(() => ++calls)))
    running.reject(new Error('down'))
    expect(await first).toBe('down')
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(['CIRCUIT_OPEN']))
    expect(calls).toBe(0)
    expect(breaker.health()).toMatchObject({ running: 1, queued: 0 })
  })

  test('turns them away also when it is opened by hand, while all places stay taken', async () => {
    const { breaker } = breakerWith({ maxConcurrent: 1, maxQueued: 2 })
    void breaker.execute(pending().work)
    const waiting = [1, 2].map(() => outcomeOf(breaker.execute(up)))
    await breaker.forceOpen('maintenance')
    expect(await Promise.all(waiting)).toEqual(['CIRCUIT_OPEN', 'CIRCUIT_OPEN'])
  })

  test('lets many in one after another that are done at once', async () => {
    const { breaker } = breakerWith({ maxConcurrent: 1, maxQueued: 20_000 })
    const running = pending()
    void breaker.execute(running.work)
    let calls = 0
    const waiting = Array.from({ length: 20_000 }, () => breaker.execute(() => ++calls))
    running.resolve('done')
    expect((await Promise.all(waiting)).at(-1)).toBe(20_000)
    expect(breaker.health()).toMatchObject({ running: 0, queued: 0 })
  })

  test('has no place for a call that was given up', async () => {
    const { breaker, timers } = breakerWith({ maxConcurrent: 1, timeoutMs: 100 })
    const call = outcomeOf(breaker.execute(pending().work))
    await timers.advance(100)
    expect(await call).toBe('UPSTREAM_TIMEOUT')
    expect(await breaker.execute(up)).toBe('up')
  })
})

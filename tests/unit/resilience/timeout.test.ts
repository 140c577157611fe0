/** resilience/timeout.ts: time limits and deadlines. Time is the test's. */
import fc from 'fast-check'
import { describe, expect, test, vi } from 'vitest'
import { Deadline, withTimeout } from '../../../supabase/functions/_shared/resilience/timeout.ts'
import { countListeners, FakeTimers } from '../../support/fakeTimers.ts'

const never = () => new Promise<string>(() => {})
const timedOut = expect.objectContaining({ code: 'UPSTREAM_TIMEOUT', status: 504, retryable: true })

describe('withTimeout()', () => {
  test('gives the result, and leaves no timer and no listener', async () => {
    const timers = new FakeTimers()
    const controller = new AbortController()
    const listeners = countListeners(controller.signal)
    let given: AbortSignal | undefined
    const promise = withTimeout((signal) => {
      given = signal
      expect([timers.pending, listeners()]).toEqual([1, 1])
      return Promise.resolve('done')
    }, { timeoutMs: 50, signal: controller.signal, timers })
    expect(await promise).toBe('done')
    expect([timers.pending, listeners()]).toEqual([0, 0])
    // What came with the result, a body for example, is still to be read.
    expect(given!.aborted).toBe(false)
  })

  test.each([
    ['rejects', () => Promise.reject(new Error('no'))],
    ['throws', () => {
      throw new Error('no')
    }],
  ])('gives the error of work that %s, and leaves no timer', async (_, work) => {
    const timers = new FakeTimers()
    await expect(withTimeout(work, { timeoutMs: 50, timers })).rejects.toThrow('no')
    expect(timers.pending).toBe(0)
  })

  test('rejects with UPSTREAM_TIMEOUT when the time is over, and aborts the work', async () => {
    const timers = new FakeTimers()
    const aborted = vi.fn()
    const promise = withTimeout((signal) => {
      signal.addEventListener('abort', aborted)
      return never()
    }, { timeoutMs: 50, timers })
    await timers.advance(49)
    expect(aborted).not.toHaveBeenCalled()
    await expect(timers.settle(promise)).rejects.toEqual(timedOut)
    expect(aborted).toHaveBeenCalledOnce()
  })

  test('rejects so even when the work answers the abortion with an error of its own', async () => {
    const timers = new FakeTimers()
    const work = (signal: AbortSignal) =>
      new Promise<string>((_, reject) => signal.onabort = () => reject(new Error('aborted')))
    await expect(timers.settle(withTimeout(work, { timeoutMs: 50, timers }))).rejects.toEqual(timedOut)
  })

  test('does not look at what becomes of work that was given up', async () => {
    const timers = new FakeTimers()
    const work = Promise.withResolvers<string>()
    await expect(timers.settle(withTimeout(() => work.promise, { timeoutMs: 50, timers }))).rejects.toEqual(
      timedOut,
    )
    // Unhandled, this would end the process.
    work.reject(new Error('too late'))
  })

  test("rejects with the signal's reason as soon as it is aborted, and aborts the work with it", async () => {
    const timers = new FakeTimers()
    const controller = new AbortController()
    let given: AbortSignal | undefined
    const promise = withTimeout((signal) => {
      given = signal
      return never()
    }, { timeoutMs: 50, signal: controller.signal, timers })
    const reason = new Error('the client has left')
    controller.abort(reason)
    await expect(promise).rejects.toBe(reason)
    expect(given!.reason).toBe(reason)
    expect(timers.pending).toBe(0)
  })

  test('starts nothing when the signal is aborted already', async () => {
    const work = vi.fn(never)
    const reason = new Error('the client has left')
    await expect(withTimeout(work, { timeoutMs: 50, signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    expect(work).not.toHaveBeenCalled()
  })

  test.each([[30, 50], [50, 30]])(
    'ends after the nearer of timeoutMs %i and a deadline in %i ms',
    async (own, given) => {
      const timers = new FakeTimers()
      const deadline = Deadline.in(given, timers)
      await expect(timers.settle(withTimeout(never, { timeoutMs: own, deadline, timers }))).rejects.toEqual(
        timedOut,
      )
      expect(timers.waits).toEqual([30])
    },
  )

  test('starts nothing when the deadline has passed', async () => {
    const timers = new FakeTimers()
    const deadline = Deadline.in(30, timers)
    timers.jump(30)
    const work = vi.fn(never)
    await expect(withTimeout(work, { deadline, timers })).rejects.toEqual(timedOut)
    expect(work).not.toHaveBeenCalled()
  })

  test('works with the real clock', async () => {
    await expect(withTimeout(never, { timeoutMs: 1 })).rejects.toEqual(timedOut)
  })

  test.each([NaN, Infinity, -Infinity, -1, 0, 2 ** 31])(
    'refuses timeoutMs %s and starts nothing',
    async (timeoutMs) => {
      const work = vi.fn(never)
      await expect(withTimeout(work, { timeoutMs })).rejects.toThrow(RangeError)
      expect(work).not.toHaveBeenCalled()
    },
  )

  test('refuses to work without any limit', async () => {
    await expect(withTimeout(never, {})).rejects.toThrow(TypeError)
  })
})

describe('Deadline', () => {
  test('counts down to 0', () => {
    const timers = new FakeTimers()
    const deadline = Deadline.in(100, timers)
    expect([deadline.remainingMs(), deadline.timeoutMs()]).toEqual([100, 100])
    timers.jump(99.5)
    expect([deadline.remainingMs(), deadline.timeoutMs()]).toEqual([0.5, 1])
    timers.jump(10)
    expect(deadline.remainingMs()).toBe(0)
    expect(() => deadline.timeoutMs()).toThrow(timedOut)
  })

  test('is not moved by a step of the wall clock', () => {
    vi.spyOn(Date, 'now').mockReturnValue(1_000_000)
    const deadlines = [Deadline.in(60_000), Deadline.of({ deadlineAt: 1_060_000 })]
    vi.spyOn(Date, 'now').mockReturnValue(9_000_000)
    for (const deadline of deadlines) {
      expect(deadline.remainingMs()).toBeGreaterThan(50_000)
      expect(deadline.remainingMs()).toBeLessThanOrEqual(60_000)
    }
  })

  test("of a route's context may have passed already", () => {
    expect(Deadline.of({ deadlineAt: Date.now() - 1 }).remainingMs()).toBe(0)
  })

  test('shrinks by what is kept to answer, and to what the call may take', () => {
    const timers = new FakeTimers()
    const outer = Deadline.in(1_000, timers)
    expect(outer.shrink({ reserveMs: 100 }).remainingMs()).toBe(900)
    expect(outer.shrink({ timeoutMs: 300 }).remainingMs()).toBe(300)
    expect(outer.shrink({ timeoutMs: 300, reserveMs: 800 }).remainingMs()).toBe(200)
    expect(outer.shrink({ reserveMs: 2_000 }).remainingMs()).toBe(0)
    timers.jump(500)
    expect(outer.shrink({ timeoutMs: 700 }).remainingMs()).toBe(500)
  })

  test('never ends later than the one it was shrunk from', () => {
    const ms = fc.double({ min: 0.001, max: 100_000, noNaN: true })
    const shrinking = fc.record({ timeoutMs: ms, reserveMs: ms, passMs: ms }, { requiredKeys: ['passMs'] })
    fc.assert(fc.property(ms, fc.array(shrinking, { maxLength: 5 }), (timeoutMs, steps) => {
      const timers = new FakeTimers()
      let deadline = Deadline.in(timeoutMs, timers)
      for (const { passMs, ...options } of steps) {
        timers.jump(passMs)
        const inner = deadline.shrink(options)
        expect(inner.remainingMs()).toBeLessThanOrEqual(deadline.remainingMs())
        if (options.timeoutMs) expect(inner.remainingMs()).toBeLessThanOrEqual(options.timeoutMs + 1e-6)
        deadline = inner
      }
    }))
  })

  test.each([NaN, Infinity, -Infinity, -1, 0, 2 ** 31])('refuses %s ms', (ms) => {
    expect(() => Deadline.in(ms)).toThrow(RangeError)
    expect(() => Deadline.in(100).shrink({ timeoutMs: ms })).toThrow(RangeError)
    expect(() => Deadline.in(100).shrink({ reserveMs: ms })).toThrow(RangeError)
    if (!Number.isFinite(ms)) expect(() => Deadline.of({ deadlineAt: ms })).toThrow(RangeError)
  })
})

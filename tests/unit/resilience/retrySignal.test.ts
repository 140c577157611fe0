/** resilience/retry.ts: whoever gives up waiting is let go at once, and nothing is left behind. Time is the test's. */
import { describe, expect, test, vi } from 'vitest'
import { HoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import {
  type Attempt,
  retry,
  type RetryCall,
  type RetryOptions,
  type Work,
} from '../../../supabase/functions/_shared/resilience/retry.ts'
import { countListeners, FakeTimers } from '../../support/fakeTimers.ts'

const away = (options = {}) => new HoldfastError('SERVICE_UNAVAILABLE', 'Away', options)

/** Fails as often as it has errors, then gives 'done'. */
function failing(...errors: unknown[]) {
  return vi.fn((_attempt: Attempt): Promise<string> => {
    return errors.length > 0 ? Promise.reject(errors.shift()) : Promise.resolve('done')
  })
}

/** Fails for ever. */
const broken = (error: unknown = away()) => vi.fn((_attempt: Attempt) => Promise.reject<string>(error))

/** Without jitter, so that waits can be read off; runs until there is an outcome. */
async function run<T>(work: Work<T>, options: RetryOptions & RetryCall = {}, timers = new FakeTimers()) {
  const promise = retry(work, { jitter: 'none', ...options, timers })
  const outcome: { value?: T; error?: unknown } = await timers.settle(
    promise.then((value) => ({ value }), (error) => ({ error })),
  )
  return { ...outcome, waits: timers.waits, pending: timers.pending }
}

describe('retry() ends with its signal', () => {
  const reason = new Error('the client has left')

  test('before anything, when it is aborted already', async () => {
    const work = failing()
    expect((await run(work, { signal: AbortSignal.abort(reason) })).error).toBe(reason)
    expect(work).not.toHaveBeenCalled()
  })

  test('in a pause, at once', async () => {
    const timers = new FakeTimers()
    const controller = new AbortController()
    const listeners = countListeners(controller.signal)
    const work = broken()
    const promise = retry(work, { signal: controller.signal, timers })
    promise.catch(() => {})
    await timers.advance(0)
    expect([timers.pending, listeners()]).toEqual([1, 1])
    controller.abort(reason)
    await expect(promise).rejects.toBe(reason)
    expect([timers.pending, listeners()]).toEqual([0, 0])
    expect(work).toHaveBeenCalledOnce()
  })

  test.each([
    ['', {}],
    [' with a time limit', { timeoutMs: 1_000 }],
    [' with a time limit of its own', { attemptTimeoutMs: 1_000 }],
  ])('in an attempt%s that does not look at it, at once', async (_, options) => {
    const timers = new FakeTimers()
    const controller = new AbortController()
    const running = Promise.withResolvers<string>()
    let given: AbortSignal | undefined
    const promise = retry(({ signal }) => {
      given = signal
      return running.promise
    }, { ...options, signal: controller.signal, timers })
    promise.catch(() => {})
    await timers.advance(10)
    controller.abort(reason)
    await expect(promise).rejects.toBe(reason)
    expect(given!.reason).toBe(reason)
    expect(timers.pending).toBe(0)
    // Nobody looks at what becomes of it: this would end the process as an unhandled rejection.
    running.reject(new Error('too late'))
  })

  test('with its reason, whatever the work makes of it', async () => {
    const controller = new AbortController()
    const work = ({ signal }: Attempt) =>
      new Promise<string>((_, reject) => signal!.addEventListener('abort', () => reject(away())))
    const promise = retry(work, { signal: controller.signal })
    controller.abort(reason)
    await expect(promise).rejects.toBe(reason)
  })

  test('with its reason, where the work aborts it and fails', async () => {
    for (const error of [away(), new Error('no')]) {
      const controller = new AbortController()
      const onRetry = vi.fn()
      const work = () => {
        controller.abort(reason)
        throw error
      }
      expect((await run(work, { signal: controller.signal, onRetry })).error).toBe(reason)
      expect(onRetry).not.toHaveBeenCalled()
    }
  })

  test('not when the result was there first', async () => {
    const controller = new AbortController()
    const promise = retry(() => Promise.resolve('done'), { signal: controller.signal })
    controller.abort(reason)
    expect(await promise).toBe('done')
  })

  test.each([
    ['a result', () => failing(away(), away())],
    ['an error', () => broken()],
    ['a result that takes a while', () => async () => {
      for (let step = 0; step < 10; step++) await undefined
      return 'done'
    }],
    ['an error that takes a while', () => async () => {
      for (let step = 0; step < 10; step++) await undefined
      throw away()
    }],
  ])('and leaves no listener and no timer after %s', async (_, work) => {
    for (const limits of [{}, { timeoutMs: 5_000 }, { attemptTimeoutMs: 5_000 }]) {
      const controller = new AbortController()
      const listeners = countListeners(controller.signal)
      const { pending } = await run<string>(work(), { signal: controller.signal, ...limits })
      expect([pending, listeners()]).toEqual([0, 0])
    }
  })
})

/** resilience/retry.ts: when it tries again, and when it gives up. Time and chance are the test's. */
import { describe, expect, test, vi } from 'vitest'
import { HoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import {
  type Attempt,
  createRetry,
  retry,
  type RetryCall,
  type RetryOptions,
  type Work,
} from '../../../supabase/functions/_shared/resilience/retry.ts'
import { RetryBudget } from '../../../supabase/functions/_shared/resilience/retryBudget.ts'
import { Deadline } from '../../../supabase/functions/_shared/resilience/timeout.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

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

describe('retry() tries again', () => {
  test('not at all what succeeds', async () => {
    const work = failing()
    expect(await run(work)).toMatchObject({ value: 'done', waits: [] })
    expect(work).toHaveBeenCalledExactlyOnceWith({ number: 1, signal: undefined, deadline: undefined })
  })

  test('up to three attempts, and rejects with the last error itself', async () => {
    const errors = [away(), away(), away()]
    const work = failing(...errors)
    const { error, waits, pending } = await run(work)
    expect(error).toBe(errors[2])
    expect(work.mock.calls.map(([{ number }]) => number)).toEqual([1, 2, 3])
    expect(waits).toEqual([100, 200])
    expect(pending).toBe(0)
  })

  test('after 100, 200, 400 and 800 ms', async () => {
    expect(await run(broken(), { attempts: 5 })).toMatchObject({ waits: [100, 200, 400, 800] })
  })

  test('until it succeeds', async () => {
    expect(await run(failing(away(), away()))).toMatchObject({ value: 'done', waits: [100, 200] })
  })

  test('with its defaults where no option is given', async () => {
    expect(await retry(failing())).toBe('done')
    await expect(retry(broken(new Error('no')))).rejects.toThrow('no')
  })

  test('what throws instead of rejecting', async () => {
    const work = vi.fn((): Promise<string> => {
      throw away()
    })
    await run(work)
    expect(work).toHaveBeenCalledTimes(3)
  })

  test.each([['at once', 0], ['after a while', 10]])(
    'what is thenable, which is asked once, and answers %s',
    async (_, steps) => {
      const then = vi.fn(async (resolve) => {
        for (let step = 0; step < steps; step++) await undefined
        resolve('done')
      })
      const thenable = { then } as unknown as PromiseLike<string>
      for (const options of [{}, { signal: new AbortController().signal }, { timeoutMs: 50 }]) {
        then.mockClear()
        expect(await run(() => thenable, options)).toMatchObject({ value: 'done' })
        expect(then).toHaveBeenCalledOnce()
      }
    },
  )

  test('nothing that is not transient', async () => {
    const error = new TypeError('x is not a function')
    const work = broken(error)
    expect((await run(work)).error).toBe(error)
    expect(work).toHaveBeenCalledOnce()
  })

  test('what its own predicate says, whose failure is not hidden', async () => {
    const error = new Error('later')
    expect(await run(failing(error), { isTransient: (failure) => failure === error })).toMatchObject({
      value: 'done',
    })
    const bug = new Error('a bug in the predicate')
    const isTransient = () => {
      throw bug
    }
    expect((await run(broken(), { isTransient })).error).toBe(bug)
  })
})

describe('retry() obeys Retry-After', () => {
  const asked = (value: string) => new Response(null, { status: 503, headers: { 'retry-after': value } })

  test.each([
    ['of a HoldfastError', away({ retryAfterMs: 3_000 }), 3_100],
    ['of a HoldfastError that asks for none', away({ retryAfterMs: 0 }), 100],
    ['of an error that carries NaN', Object.assign(away(), { retryAfterMs: NaN }), 100],
    ['of a response', asked('3'), 3_100],
    [
      'of a response behind an error',
      Object.assign(new Error('x'), { name: 'x', context: asked('3') }),
      3_100,
    ],
    ['of a response, which is malformed', asked('-3'), 100],
  ])('%s: it comes before our own pause', async (_, error, waitedMs) => {
    expect((await run(failing(error))).waits).toEqual([waitedMs])
  })

  test('by giving up at once when that is longer than maxRetryAfterMs', async () => {
    expect((await run(broken(asked('61')))).waits).toEqual([])
    expect((await run(failing(asked('61')), { maxRetryAfterMs: 61_000 })).waits).toEqual([61_100])
    expect((await run(broken(asked('9'.repeat(400))))).waits).toEqual([])
  })
})

describe('retry() keeps to its time', () => {
  test('and begins no pause that would end after the deadline', async () => {
    const timers = new FakeTimers()
    const error = away()
    const deadline = Deadline.in(300, timers)
    const work = broken(error)
    const pauses: number[] = []
    const onRetry = ({ delayMs }: { delayMs: number }) => void pauses.push(delayMs)
    const outcome = await run(work, { deadline, onRetry }, timers)
    expect(outcome).toMatchObject({ error, pending: 0 })
    // The second one, of 200 ms, would end at 300.
    expect(pauses).toEqual([100])
    expect(work).toHaveBeenCalledTimes(2)
    expect(deadline.remainingMs()).toBe(200)
  })

  test('and starts nothing when the deadline has passed', async () => {
    const timers = new FakeTimers()
    const deadline = Deadline.in(300, timers)
    timers.jump(300)
    const work = failing()
    const { error } = await run(work, { deadline }, timers)
    expect(error).toMatchObject({ code: 'UPSTREAM_TIMEOUT' })
    expect(work).not.toHaveBeenCalled()
  })

  test('and starts no attempt when a timer was so late that the deadline has passed', async () => {
    const timers = new FakeTimers()
    const error = away()
    const work = broken(error)
    const promise = retry(work, { jitter: 'none', timeoutMs: 300, timers })
    const rejected = expect(promise).rejects.toBe(error)
    await timers.advance(50)
    timers.jump(1_000)
    await timers.advance(0)
    await rejected
    expect(work).toHaveBeenCalledOnce()
  })

  test('and gives up the attempt that is running when the time is over', async () => {
    let signal: AbortSignal | undefined
    const never = (attempt: Attempt) => {
      signal = attempt.signal
      return new Promise<string>(() => {})
    }
    const { error, waits, pending } = await run(never, { timeoutMs: 250 })
    expect(error).toMatchObject({ code: 'UPSTREAM_TIMEOUT', message: expect.stringContaining('250 ms') })
    expect(signal!.reason).toBe(error)
    expect(waits).toEqual([250])
    expect(pending).toBe(0)
  })

  test('and tells each attempt what is left', async () => {
    const left: (number | undefined)[] = []
    await run(({ deadline }) => {
      left.push(deadline?.remainingMs())
      return Promise.reject(away())
    }, { timeoutMs: 1_000 })
    expect(left).toEqual([1_000, 900, 700])
  })

  test.each([[500, 200], [200, 500]])(
    'of timeoutMs %i and a deadline in %i ms the nearer',
    async (own, given) => {
      const timers = new FakeTimers()
      let left: number | undefined
      await run(
        ({ deadline }) => {
          left = deadline?.remainingMs()
          return Promise.resolve('done')
        },
        { timeoutMs: own, deadline: Deadline.in(given, timers) },
        timers,
      )
      expect(left).toBe(200)
    },
  )

  test('of each attempt, which may be followed by another', async () => {
    let attempts = 0
    const slowOnce = ({ signal }: Attempt) => {
      if (++attempts === 1) {
        return new Promise<string>((_, reject) => signal!.onabort = () => reject('aborted'))
      }
      return Promise.resolve('done')
    }
    expect(await run(slowOnce, { attemptTimeoutMs: 70 })).toMatchObject({
      value: 'done',
      waits: [70, 100, 70],
    })
  })
})

describe('retry() spends its budget', () => {
  test('and rejects with the error at once when there is none left, for all calls that share it', async () => {
    const timers = new FakeTimers()
    const budget = new RetryBudget({ ratio: 0.1, perMinute: 0, reserve: 3 }, timers)
    const error = away()
    const attempts: number[] = []
    for (let call = 0; call < 4; call++) {
      const work = broken(error)
      expect((await run(work, { budget }, timers)).error).toBe(error)
      attempts.push(work.mock.calls.length)
    }
    expect(attempts).toEqual([3, 2, 1, 1])
  })

  test('which each call adds to', async () => {
    const timers = new FakeTimers()
    const budget = new RetryBudget({ ratio: 0.25, perMinute: 0, reserve: 1 }, timers)
    const attempts: number[] = []
    for (let call = 0; call < 10; call++) {
      const work = broken()
      await run(work, { budget }, timers)
      attempts.push(work.mock.calls.length)
    }
    expect(attempts).toEqual([2, 1, 1, 1, 2, 1, 1, 1, 2, 1])
  })

  test('for retries only, not for a pause that the deadline forbids', async () => {
    const timers = new FakeTimers()
    const budget = new RetryBudget({ perMinute: 0, reserve: 1 }, timers)
    await run(broken(), { budget, timeoutMs: 50 }, timers)
    await run(broken(new Error('no')), { budget }, timers)
    await run(failing(), { budget }, timers)
    expect(budget.withdraw()).toBe(true)
  })
})

describe('onRetry', () => {
  test('hears of each pause before it begins', async () => {
    const errors = [away(), away()]
    const onRetry = vi.fn()
    await run(failing(...errors), { onRetry })
    expect(onRetry.mock.calls).toEqual([
      [{ error: errors[0], attempt: 1, delayMs: 100 }],
      [{ error: errors[1], attempt: 2, delayMs: 200 }],
    ])
  })

  test('hears of no failure that ends it', async () => {
    const onRetry = vi.fn()
    await run(broken(new Error('no')), { onRetry })
    await run(broken(), { onRetry, attempts: 1 })
    expect(onRetry).not.toHaveBeenCalled()
  })

  test.each([
    ['throws', () => {
      throw new Error('a bug in the observer')
    }],
    ['rejects', () => Promise.reject(new Error('a bug in the observer'))],
    ['never ends', () => new Promise<void>(() => {})],
  ])('changes nothing when it %s', async (_, onRetry) => {
    expect(await run(failing(away()), { onRetry })).toMatchObject({ value: 'done', waits: [100] })
  })
})

describe('createRetry()', () => {
  test('makes a policy that calls share, each with its own signal and deadline', async () => {
    const timers = new FakeTimers()
    const policy = createRetry({ jitter: 'none', attempts: 2, timers })
    const controller = new AbortController()
    const first = policy(broken(), { signal: controller.signal })
    const second = policy(failing(away()))
    first.catch(() => {})
    await timers.advance(50)
    controller.abort()
    await expect(first).rejects.toBe(controller.signal.reason)
    expect(await timers.settle(second)).toBe('done')
  })

  const numbers = [NaN, Infinity, -Infinity, -1, 0]
  const bad: [string, RetryOptions][] = [
    ...[...numbers, 1.5].map((attempts): [string, RetryOptions] => [`attempts ${attempts}`, { attempts }]),
    ...(['initialDelayMs', 'maxDelayMs', 'maxRetryAfterMs', 'timeoutMs', 'attemptTimeoutMs'] as const)
      .flatMap((name) =>
        [...numbers, 2 ** 31].map((ms): [string, RetryOptions] => [`${name} ${ms}`, { [name]: ms }])
      ),
    ['jitter some', { jitter: 'some' as 'full' }],
  ]

  test.each(bad)('refuses %s, as retry() does before it starts anything', async (_, options) => {
    expect(() => createRetry(options)).toThrow(RangeError)
    const work = failing()
    await expect(retry(work, options)).rejects.toThrow(RangeError)
    expect(work).not.toHaveBeenCalled()
  })
})

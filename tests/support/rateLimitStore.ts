/** What every store of rate limits must do: the shared suite. Stores go by their own clock, so windows are hours long. */
import { describe, expect, test } from 'vitest'
import type {
  Algorithm,
  RateLimitAnswer,
  RateLimitQuestion,
  RateLimitStore,
  RateLimitWindow,
} from '../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import { waitFor } from './wait.ts'

export interface RateLimitStoreUnderTest {
  store: RateLimitStore
  /** A second isolate's view of the same keys; absent where there is none. */
  other?: RateLimitStore
}

export const hourMs = 3_600_000

/** How long a test may take before its numbers are off. */
const toleranceMs = 60_000

export const algorithms: readonly Algorithm[] = ['gcra', 'fixed', 'sliding']

export function limitWindow(given: Partial<RateLimitWindow> = {}): RateLimitWindow {
  const { quota = 10, ...others } = given
  return { name: 'calls', algorithm: 'gcra', quota, windowMs: hourMs, burst: quota, ...others }
}

let keys = 0

/** Another key at every call, one call of cost 1. */
export function limitQuestion(given: Partial<RateLimitQuestion> = {}): RateLimitQuestion {
  return { key: `calls|${++keys}`, windows: [limitWindow()], cost: 1, count: 1, blockMs: 0, ...given }
}

/** A time that began as `ms` and has been passing since. */
function about(ms: number): unknown {
  return {
    asymmetricMatch: (left: unknown) => typeof left === 'number' && left <= ms && left > ms - toleranceMs,
    toString: () => `about ${ms}`,
  }
}

/** `open` is called for each test; what it opens is its caller's to close. */
export function describeRateLimitStore(
  open: () => RateLimitStoreUnderTest | Promise<RateLimitStoreUnderTest>,
): void {
  const opened = async () => {
    const { store, other = store } = await open()
    const ask = async (question: RateLimitQuestion, at = store): Promise<RateLimitAnswer> => {
      const [answer] = await at.decide([question])
      return answer!
    }
    const standing = async (question: RateLimitQuestion) => {
      const { admitted, windows, blockedMs } = await ask({ ...question, count: 0 })
      expect(admitted).toBe(0)
      return { remaining: windows.map(({ remaining }) => remaining), blockedMs }
    }
    return { store, other, ask, standing }
  }

  /** When ten of ten that were taken at once are back, and when one is. */
  const returns: Record<Algorithm, { resetMs: number; retryAfterMs: number }> = {
    gcra: { resetMs: hourMs, retryAfterMs: hourMs / 10 },
    fixed: { resetMs: hourMs, retryAfterMs: hourMs },
    // In slices of a tenth, of which the one that is running has begun before.
    sliding: { resetMs: hourMs * 1.1, retryAfterMs: hourMs * 1.1 },
  }

  describe.each(algorithms)('decide() with %s', (algorithm) => {
    const windows = [limitWindow({ algorithm })]

    test('admits the quota and refuses the next call, in every isolate', async () => {
      const { store, other, ask } = await opened()
      const question = limitQuestion({ windows })
      for (let call = 1; call <= 10; call++) {
        const { admitted, windows, blockedMs } = await ask(question, call % 2 ? store : other)
        expect([admitted, windows[0]!.remaining, blockedMs]).toEqual([1, 10 - call, 0])
        expect(windows[0]!.retryAfterMs > 0).toBe(call === 10)
      }
      for (const at of [store, other]) {
        const { admitted, windows: [window] } = await ask(question, at)
        expect([admitted, window!.remaining]).toEqual([0, 0])
        const { resetMs, retryAfterMs } = returns[algorithm]
        const spanMs = algorithm === 'sliding' ? hourMs / 10 + toleranceMs : toleranceMs
        for (const [is, most] of [[window!.resetMs, resetMs], [window!.retryAfterMs, retryAfterMs]]) {
          expect(is).toBeLessThanOrEqual(most!)
          expect(is).toBeGreaterThan(most! - spanMs)
        }
      }
    })

    test('takes nothing for refused calls (RL6)', async () => {
      const { ask, standing } = await opened()
      const question = limitQuestion({ windows })
      await ask({ ...question, count: 7 })
      const before = await ask({ ...question, count: 0 })
      for (let call = 0; call < 20; call++) {
        expect((await ask({ ...question, cost: 4 })).admitted).toBe(0)
      }
      const after = await ask({ ...question, count: 0 })
      expect(await standing(question)).toEqual({ remaining: [3], blockedMs: 0 })
      expect(after.windows[0]!.resetMs).toEqual(about(before.windows[0]!.resetMs))
    })

    test('admits of many calls asked for together as many as there is enough for', async () => {
      const { ask } = await opened()
      const question = limitQuestion({ windows, cost: 3, count: 5 })
      const { admitted, windows: [window] } = await ask(question)
      expect([admitted, window!.remaining]).toEqual([3, 1])
      expect(window!.retryAfterMs).toBeGreaterThan(0)
      expect((await ask({ ...question, cost: 1 })).admitted).toBe(1)
    })

    test('of a hundred at the same time admits ten', async () => {
      const { store, other, ask } = await opened()
      const question = limitQuestion({ windows })
      const answers = await Promise.all(
        Array.from({ length: 100 }, (_, call) => ask(question, call % 2 ? store : other)),
      )
      expect(answers.filter(({ admitted }) => admitted === 1)).toHaveLength(10)
      expect(answers.filter(({ admitted }) => admitted === 0)).toHaveLength(90)
    })

    test('gives back what was taken, in time and not before', async () => {
      const { ask } = await opened()
      const question = limitQuestion({
        windows: [limitWindow({ algorithm, quota: 2, windowMs: 400, burst: 2 })],
      })
      const startedAt = performance.now()
      const { windows: [window] } = await ask({ ...question, count: 2 })
      const passedAfterMs = await waitFor(
        async () => (await ask(question)).admitted === 1 && performance.now() - startedAt,
        { what: 'a token to come back' },
      )
      expect(passedAfterMs).toBeGreaterThanOrEqual(window!.retryAfterMs - 1)
      expect(window!.retryAfterMs).toBeGreaterThan(algorithm === 'gcra' ? 199 - 1 : 399 - 1)
    })
  })

  describe('decide()', () => {
    test('takes from all windows of a key or from none (RL6)', async () => {
      const { ask, standing } = await opened()
      const windows = [
        limitWindow({ name: 'a', algorithm: 'gcra', quota: 5 }),
        limitWindow({ name: 'b', algorithm: 'fixed', quota: 3 }),
        limitWindow({ name: 'c', algorithm: 'sliding', quota: 8 }),
      ]
      const question = limitQuestion({ windows })
      expect((await ask({ ...question, count: 10 })).admitted).toBe(3)
      const { admitted, windows: answers } = await ask(question)
      expect([admitted, ...answers.map(({ remaining }) => remaining)]).toEqual([0, 2, 0, 5])
      expect(answers.map(({ retryAfterMs }) => retryAfterMs > 0)).toEqual([false, true, false])
      expect((await standing(question)).remaining).toEqual([2, 0, 5])
    })

    test('lets a bucket hold more than its quota, or less', async () => {
      const { ask } = await opened()
      for (const burst of [3, 25]) {
        const question = limitQuestion({ windows: [limitWindow({ burst })], count: 100 })
        const { admitted, windows: [window] } = await ask(question)
        expect(admitted).toBe(burst)
        expect(window).toEqual({
          remaining: 0,
          resetMs: about(burst * hourMs / 10),
          retryAfterMs: about(hourMs / 10),
        })
      }
    })

    test('keeps keys apart, and answers in the order of the questions', async () => {
      const { store, ask } = await opened()
      const questions = Array.from({ length: 60 }, (_, index) => limitQuestion({ count: index % 13 }))
      await ask({ ...questions[7]!, count: 4 })
      const answers = await store.decide(questions)
      const admitted = questions.map(({ count }, index) => Math.min(count, index === 7 ? 6 : 10))
      expect(answers.map((answer) => answer.admitted)).toEqual(admitted)
    })

    test('answers the questions of one key one after another', async () => {
      const { store } = await opened()
      const question = limitQuestion()
      const answers = await store.decide([
        question,
        { ...question, cost: 7 },
        { ...question, cost: 3 },
        { ...question, count: 0 },
        question,
        question,
        { ...question, cost: 2, count: 2 },
      ])
      expect(answers.map(({ admitted }) => admitted)).toEqual([1, 1, 0, 0, 1, 1, 0])
    })

    test('answers no question at once', async () => {
      const { store } = await opened()
      expect(await store.decide([])).toEqual([])
    })

    test('says how a key stands without taking anything', async () => {
      const { ask, standing } = await opened()
      const question = limitQuestion({ blockMs: hourMs })
      expect(await standing(question)).toEqual({ remaining: [10], blockedMs: 0 })
      await ask({ ...question, count: 10 })
      for (let look = 0; look < 3; look++) {
        expect(await ask({ ...question, count: 0 })).toEqual({
          admitted: 0,
          windows: [{ remaining: 0, resetMs: about(hourMs), retryAfterMs: about(hourMs / 10) }],
          blockedMs: 0,
        })
      }
    })

    test('takes long keys and those of any script as they are', async () => {
      const { ask } = await opened()
      const long = 'k'.repeat(250)
      for (const key of [`${long}1`, `${long}2`, 'é|☃|\u{1D11E}', "'; drop table x; --", '{"a":1},{}\\']) {
        const question = limitQuestion({ key: `${key}${keys % 10}`, count: 99 })
        expect((await ask(question)).admitted).toBe(10)
      }
    })
  })

  describe('a block', () => {
    test('refuses a key in every isolate, and takes nothing meanwhile', async () => {
      const { store, other, ask, standing } = await opened()
      const question = limitQuestion()
      await ask({ ...question, count: 2 })
      await store.block(question.key, hourMs)
      for (const at of [store, other]) {
        const { admitted, blockedMs } = await ask({ ...question, count: 5 }, at)
        expect([admitted, blockedMs]).toEqual([0, about(hourMs)])
      }
      expect(await standing(question)).toEqual({ remaining: [8], blockedMs: about(hourMs) })
    })

    test('takes the place of an earlier one, and 0 ends it', async () => {
      const { store, ask } = await opened()
      const question = limitQuestion()
      for (const ms of [2 * hourMs, hourMs, 3 * hourMs]) {
        await store.block(question.key, ms)
        expect((await ask(question)).blockedMs).toEqual(about(ms))
      }
      await store.block(question.key, 0)
      expect(await ask(question)).toMatchObject({ admitted: 1, blockedMs: 0 })
    })

    test('begins with the first refused call where that is asked for, and is not made longer by others', async () => {
      const { ask } = await opened()
      const question = limitQuestion({ blockMs: 2 * hourMs })
      expect((await ask({ ...question, count: 10 })).blockedMs).toBe(0)
      expect(await ask(question)).toMatchObject({ admitted: 0, blockedMs: about(2 * hourMs) })
      expect((await ask({ ...question, blockMs: 9 * hourMs })).blockedMs).toEqual(about(2 * hourMs))
    })

    test('begins also where only the last of several calls is refused', async () => {
      const { ask } = await opened()
      const question = limitQuestion({ blockMs: 2 * hourMs })
      expect(await ask({ ...question, count: 11 })).toMatchObject({
        admitted: 10,
        blockedMs: about(2 * hourMs),
      })
      expect((await ask(question)).blockedMs).toEqual(about(2 * hourMs))
    })
  })

  describe('penalize()', () => {
    test.each(algorithms)('takes more than there is with %s, and the key waits for it', async (algorithm) => {
      const { store, ask, standing } = await opened()
      const question = limitQuestion({ windows: [limitWindow({ algorithm })] })
      const answer = await store.penalize({ ...question, count: 15 })
      expect(answer).toMatchObject({ admitted: 15, windows: [{ remaining: 0 }], blockedMs: 0 })
      const after = await ask(question)
      expect(after.admitted).toBe(0)
      if (algorithm === 'gcra') {
        expect(after.windows[0]).toEqual({
          remaining: 0,
          resetMs: about(1.5 * hourMs),
          retryAfterMs: about(0.6 * hourMs),
        })
      }
      expect((await standing(question)).remaining).toEqual([0])
    })

    test('neither minds a block nor begins one', async () => {
      const { store, ask } = await opened()
      const question = limitQuestion({ blockMs: hourMs })
      expect((await store.penalize({ ...question, cost: 11 })).blockedMs).toBe(0)
      expect((await ask({ ...question, count: 0 })).blockedMs).toBe(0)
      const blocked = limitQuestion()
      await store.block(blocked.key, hourMs)
      expect((await store.penalize({ ...blocked, count: 4 })).windows[0]!.remaining).toBe(6)
      expect((await ask(blocked)).blockedMs).toEqual(about(hourMs))
    })
  })

  describe('reset()', () => {
    test('forgets what was counted and ends a block, for every isolate', async () => {
      const { store, other, ask, standing } = await opened()
      const question = limitQuestion()
      await store.penalize({ ...question, count: 30 })
      await store.block(question.key, hourMs)
      await other.reset(question.key)
      expect(await standing(question)).toEqual({ remaining: [10], blockedMs: 0 })
      expect((await ask({ ...question, count: 99 })).admitted).toBe(10)
    })

    test('of an unknown key does nothing', async () => {
      const { store, ask } = await opened()
      const question = limitQuestion()
      await store.reset(question.key)
      expect((await ask(question)).admitted).toBe(1)
    })
  })
}

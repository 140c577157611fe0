/** Calls of one isolate that join, and questions that travel together. */
import { describe, expect, test } from 'vitest'
import { JoinedCalls } from '../../../supabase/functions/_shared/resilience/joinedCalls.ts'
import { batched } from '../../../supabase/functions/_shared/resilience/stores/batch.ts'
import { newRequest } from '../../support/idempotencyStore.ts'
import { waitFor } from '../../support/wait.ts'

interface Outcome {
  by: string
  replayed: boolean
}

describe('JoinedCalls', () => {
  const waitMs = 5_000
  const setUp = () => {
    const calls = new JoinedCalls<Outcome>()
    const request = newRequest()
    const leader = Promise.withResolvers<Outcome>()
    const join = (by: string, signal?: AbortSignal) =>
      calls.run(request, { waitMs, signal }, () => Promise.resolve({ by, replayed: false }))
    return { calls, request, leader, join }
  }

  test('the first leads, the others get its outcome marked replayed; afterwards the key leads anew', async () => {
    const { calls, request, leader, join } = setUp()
    const first = calls.run(request, { waitMs }, () => leader.promise)
    const others = [join('second'), join('third')]
    leader.resolve({ by: 'first', replayed: false })
    expect(await first).toEqual({ by: 'first', replayed: false })
    expect(await Promise.all(others)).toEqual(Array(2).fill({ by: 'first', replayed: true }))
    expect(await join('fourth')).toEqual({ by: 'fourth', replayed: false })
  })

  test('a failure is shared as it is', async () => {
    const { calls, request, leader, join } = setUp()
    const failure = new Error('no')
    const all = [calls.run(request, { waitMs }, () => leader.promise), join('second'), join('third')]
    leader.reject(failure)
    expect(await Promise.allSettled(all)).toEqual(Array(3).fill({ status: 'rejected', reason: failure }))
  })

  test('a leader that was aborted takes nobody with it: one of the others leads', async () => {
    const { calls, request, leader, join } = setUp()
    const abort = new AbortController()
    const first = calls.run(request, { waitMs, signal: abort.signal }, () => leader.promise)
    const others = [join('second'), join('third')]
    abort.abort(new Error('gone'))
    leader.reject(new Error('gone'))
    await expect(first).rejects.toThrow('gone')
    expect(await Promise.all(others)).toEqual([
      { by: 'second', replayed: false },
      { by: 'second', replayed: true },
    ])
  })

  test('one that is aborted stops waiting, the others do not', async () => {
    const { calls, request, leader, join } = setUp()
    const abort = new AbortController()
    const first = calls.run(request, { waitMs }, () => leader.promise)
    const [second, third] = [join('second', abort.signal), join('third')]
    abort.abort(new Error('gone'))
    await expect(second).rejects.toThrow('gone')
    leader.resolve({ by: 'first', replayed: false })
    expect([await first, await third].map(({ by }) => by)).toEqual(['first', 'first'])
    await expect(join('late', abort.signal)).rejects.toThrow('gone')
  })

  test('another fingerprint is REUSED at once, another key is independent', async () => {
    const { calls, request, leader } = setUp()
    const first = calls.run(request, { waitMs }, () => leader.promise)
    const lead = () => Promise.resolve({ by: 'other', replayed: false })
    await expect(calls.run(newRequest({ id: request.id }), { waitMs }, lead)).rejects.toMatchObject({
      code: 'IDEMPOTENCY_KEY_REUSED',
    })
    expect(await calls.run(newRequest(), { waitMs }, lead)).toMatchObject({ by: 'other' })
    leader.resolve({ by: 'first', replayed: false })
    await first
  })

  test('is IN_USE when the wait is over', async () => {
    const { calls, request, leader, join } = setUp()
    const first = calls.run(request, { waitMs }, () => leader.promise)
    const impatient = calls.run(request, { waitMs: 0 }, () => Promise.reject(new Error('ran')))
    await expect(impatient).rejects.toMatchObject({ code: 'IDEMPOTENCY_KEY_IN_USE', retryAfterMs: 1_000 })
    leader.resolve({ by: 'first', replayed: false })
    expect([await first, await join('after')].map(({ by }) => by)).toEqual(['first', 'after'])
  })
})

describe('batched()', () => {
  const setUp = (maxItems = 100) => {
    const sent: { items: number[]; answer(): void; fail(error: unknown): void }[] = []
    const ask = batched<number, string>((items) => {
      const { promise, resolve, reject } = Promise.withResolvers<string[]>()
      sent.push({ items, answer: () => resolve(items.map((item) => `a${item}`)), fail: reject })
      return promise
    }, { maxItems, maxRunning: 1 })
    /** Whoever is answered is given a moment to ask again before the next batch goes. */
    const batchesSent = (count: number) =>
      waitFor(() => Promise.resolve(sent.length === count), { what: `${count} batches`, timeoutMs: 1_000 })
    return { ask, sent, batchesSent }
  }

  test('a lone question goes at once, those that come meanwhile go together, each with its answer', async () => {
    const { ask, sent, batchesSent } = setUp()
    const first = ask(1)
    const others = [2, 3, 4].map(ask)
    expect(sent.map(({ items }) => items)).toEqual([[1]])
    sent[0]!.answer()
    expect(await first).toBe('a1')
    await batchesSent(2)
    expect(sent.map(({ items }) => items)).toEqual([[1], [2, 3, 4]])
    sent[1]!.answer()
    expect(await Promise.all(others)).toEqual(['a2', 'a3', 'a4'])
  })

  test('whoever asks again as soon as they are answered shares the next batch', async () => {
    const { ask, sent, batchesSent } = setUp()
    const lanes = [1, 2, 3].map(async (lane) => {
      await ask(lane)
      await ask(lane + 10)
    })
    sent[0]!.answer()
    await batchesSent(2)
    expect(sent[1]!.items.sort()).toEqual([11, 2, 3])
    sent[1]!.answer()
    await batchesSent(3)
    sent[2]!.answer()
    await Promise.all(lanes)
  })

  test('a failure is that of its batch alone, and the next goes on', async () => {
    const { ask, sent, batchesSent } = setUp(2)
    const all = [1, 2, 3, 4].map(ask)
    const settled = Promise.allSettled(all)
    sent[0]!.fail(new Error('no'))
    await expect(all[0]).rejects.toThrow('no')
    await batchesSent(2)
    expect(sent[1]!.items).toEqual([2, 3])
    sent[1]!.answer()
    await all[1]
    await batchesSent(3)
    sent[2]!.answer()
    expect((await settled).map(({ status }) => status)).toEqual([
      'rejected',
      'fulfilled',
      'fulfilled',
      'fulfilled',
    ])
  })
})

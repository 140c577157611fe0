/** Rate limits in the memory of one isolate. */
import { describe, expect, test } from 'vitest'
import {
  type MemoryRateLimitOptions,
  MemoryRateLimitStore,
} from '../../../supabase/functions/_shared/resilience/stores/memoryRateLimits.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'
import { describeRateLimitStore, limitQuestion, limitWindow } from '../../support/rateLimitStore.ts'

describe('MemoryRateLimitStore', () => {
  describeRateLimitStore(() => ({ store: new MemoryRateLimitStore() }))

  test('forgets what is over while other keys come, without a timer', () => {
    const timers = new FakeTimers()
    const store = new MemoryRateLimitStore({ timers })
    const windows = [limitWindow({ windowMs: 1_000 })]
    for (let key = 0; key < 1_000; key++) store.decideNow(limitQuestion({ windows }))
    expect(store.size).toBe(1_000)
    timers.jump(60_000)
    for (let key = 0; key < 500; key++) store.decideNow(limitQuestion({ windows }))
    expect(store.size).toBeLessThanOrEqual(500)
    expect(timers.pending).toBe(0)
    expect(timers.waits).toEqual([])
  })

  test('stays within its bound, and keeps those that are blocked or far over before the others', () => {
    const store = new MemoryRateLimitStore({ maxKeys: 100, timers: new FakeTimers() })
    const exhausted = limitQuestion({ count: 10 })
    const blocked = limitQuestion()
    store.decideNow(exhausted)
    store.blockNow(blocked.key, 7_200_000)
    for (let key = 0; key < 5_000; key++) {
      store.decideNow(limitQuestion())
      expect(store.size).toBeLessThanOrEqual(100)
    }
    expect(store.decideNow({ ...exhausted, count: 1 }).admitted).toBe(0)
    expect(store.decideNow(blocked).blockedMs).toBe(7_200_000)
  })

  test('remembers nothing of keys that are only looked at', () => {
    const store = new MemoryRateLimitStore()
    for (let key = 0; key < 10; key++) store.decideNow(limitQuestion({ count: 0 }))
    expect(store.size).toBe(0)
  })

  test('remembers a block that outlasts what was counted', () => {
    const timers = new FakeTimers()
    const store = new MemoryRateLimitStore({ timers })
    const question = limitQuestion({ windows: [limitWindow({ windowMs: 1_000 })] })
    store.decideNow(question)
    store.blockNow(question.key, 7_200_000)
    timers.jump(3_600_000)
    for (let key = 0; key < 10; key++) store.decideNow(limitQuestion())
    expect(store.decideNow(question)).toMatchObject({ admitted: 0, blockedMs: 3_600_000 })
  })

  test('counts anew for a key that was forgotten', () => {
    const store = new MemoryRateLimitStore({ maxKeys: 1 })
    const question = limitQuestion({ count: 10 })
    expect(store.decideNow(question).admitted).toBe(10)
    store.decideNow(limitQuestion())
    expect(store.decideNow(question).admitted).toBe(10)
  })

  test('is empty when it was closed', async () => {
    const store = new MemoryRateLimitStore()
    store.decideNow(limitQuestion())
    await store.close()
    expect(store.size).toBe(0)
  })

  test('keeps several windows of several widths apart while they change', () => {
    const timers = new FakeTimers()
    const store = new MemoryRateLimitStore({ timers })
    const windows = (['sliding', 'gcra', 'fixed', 'sliding'] as const).map((algorithm, index) =>
      limitWindow({ name: `${index}`, algorithm, quota: 20 + index, windowMs: 10_000 * (index + 1) })
    )
    const question = limitQuestion({ windows })
    const remaining = () =>
      store.decideNow({ ...question, count: 0 }).windows.map((window) => window.remaining)
    store.blockNow(question.key, 1_000)
    timers.jump(1_000)
    store.decideNow({ ...question, count: 15 })
    expect(remaining()).toEqual([5, 6, 7, 8])
    timers.jump(11_000)
    store.decideNow({ ...question, count: 3 })
    expect(remaining()).toEqual([17, 14, 4, 5])
    timers.jump(20_000)
    expect(remaining()).toEqual([20, 21, 22, 5])
    timers.jump(20_000)
    expect(remaining()).toEqual([20, 21, 22, 20])
    timers.jump(4_000)
    expect(remaining()).toEqual([20, 21, 22, 23])
  })

  const bad: [string, MemoryRateLimitOptions][] = [0, -1, 1.5, NaN, Infinity].map((maxKeys) => [
    `maxKeys ${maxKeys}`,
    { maxKeys },
  ])

  test.each(bad)('refuses %s', (_, options) => {
    expect(() => new MemoryRateLimitStore(options)).toThrow(RangeError)
    expect(() => new MemoryRateLimitStore(options)).toThrow(`received ${options.maxKeys}`)
  })
})

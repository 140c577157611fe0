/** Shared cache entries in the memory of one process. */
import { describe, expect, test } from 'vitest'
import { MemoryCacheStore } from '../../../supabase/functions/_shared/resilience/stores/memoryCache.ts'
import { describeCacheStore, question, tokenOf, writeOf } from '../../support/cacheStore.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

describe('MemoryCacheStore', () => {
  describeCacheStore(() => {
    const timers = new FakeTimers()
    return {
      store: new MemoryCacheStore({ timers }),
      endLease: () => Promise.resolve(timers.jump(60_000)),
      age: (_cache, _key, ms) => Promise.resolve(timers.jump(ms)),
    }
  })

  test('forgets the oldest when there is no room', async () => {
    const store = new MemoryCacheStore({ maxEntries: 2 })
    const asked = [question(), question(), question()]
    for (const each of asked) await store.write(writeOf(each, tokenOf(await store.read(each))))
    const found = await Promise.all(asked.map((each) => store.read({ ...each, leaseMs: 0 })))
    expect(found.map(({ entry }) => entry !== undefined)).toEqual([false, true, true])
  })

  test.each([0, -1, 0.5, NaN, Infinity])('refuses room for %d entries', (maxEntries) => {
    expect(() => new MemoryCacheStore({ maxEntries })).toThrow(RangeError)
  })
})

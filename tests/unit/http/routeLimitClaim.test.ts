/** `LeasedOptions.claim`: the first claim of a request may travel with its limit; those after it are the store's own. */
import { describe, expect, test, vi } from 'vitest'
import { HoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import { createLogger } from '../../../supabase/functions/_shared/observability/logger.ts'
import {
  createIdempotency,
  type LeasedOptions,
} from '../../../supabase/functions/_shared/resilience/idempotency.ts'
import { MemoryIdempotencyStore } from '../../../supabase/functions/_shared/resilience/stores/memory.ts'
import { answer, newRequest } from '../../support/idempotencyStore.ts'

const times = { leaseMs: 60_000, ttlMs: 60_000, maxStoredBytes: 1_000, waitMs: 2_000 }

function setUp(claim: LeasedOptions['claim'], onUnavailable: LeasedOptions['onUnavailable'] = 'closed') {
  const store = new MemoryIdempotencyStore()
  const claimInStore = vi.spyOn(store, 'claim')
  const work = vi.fn(() => Promise.resolve({ answer, store: true }))
  const idempotency = createIdempotency({ store, log: createLogger({ write() {} }) })
  const run = (request = newRequest()) =>
    idempotency.leased(request, { ...times, onUnavailable, claim }, work)
  return { store, claimInStore, work, run }
}

describe('a claim that travels', () => {
  test('is made in the place of the first one, with the times of the route', async () => {
    const travelling = vi.fn<NonNullable<LeasedOptions['claim']>>((request, options) =>
      store.claim(request, options)
    )
    const { store, claimInStore, work, run } = setUp(travelling)
    const request = newRequest()
    expect(await run(request)).toMatchObject({ replayed: false })
    expect(travelling.mock.calls).toEqual([[request, { leaseMs: times.leaseMs, ttlMs: times.ttlMs }]])
    expect([claimInStore.mock.calls.length, work.mock.calls.length]).toEqual([1, 1])
  })

  test('is made once, however often a request looks while another isolate runs it', async () => {
    const travelling = vi.fn(() => Promise.resolve({ outcome: 'in_progress' as const, retryAfterMs: 1_000 }))
    const { claimInStore, work, run } = setUp(travelling)
    claimInStore.mockResolvedValueOnce({ outcome: 'in_progress', retryAfterMs: 1_000 })
      .mockResolvedValueOnce({ outcome: 'replay', answer })
    expect(await run()).toMatchObject({ replayed: true, answer })
    expect([travelling.mock.calls.length, claimInStore.mock.calls.length]).toEqual([1, 2])
    expect(work).not.toHaveBeenCalled()
  })

  test('that is refused is the refusal of the request, of which nothing runs', async () => {
    const refusal = new HoldfastError('RATE_LIMITED', 'Too many', { retryAfterMs: 1_000 })
    const { claimInStore, work, run } = setUp(() => Promise.reject(refusal), 'local')
    await expect(run()).rejects.toBe(refusal)
    expect([claimInStore.mock.calls.length, work.mock.calls.length]).toEqual([0, 0])
  })

  test('is made in memory where the store is away and the route goes on', async () => {
    const { work, run } = setUp(
      () => Promise.reject(new HoldfastError('SERVICE_UNAVAILABLE', 'away')),
      'local',
    )
    expect(await run()).toMatchObject({ replayed: false, local: true })
    expect(work).toHaveBeenCalledTimes(1)
  })

  test('is not made by callers that join', async () => {
    const travelling = vi.fn<NonNullable<LeasedOptions['claim']>>((request, options) =>
      store.claim(request, options)
    )
    const { store, run } = setUp(travelling)
    const request = newRequest()
    const outcomes = await Promise.all([run(request), run(request), run(request)])
    expect(outcomes.map(({ replayed }) => replayed)).toEqual([false, true, true])
    expect(travelling).toHaveBeenCalledTimes(1)
  })
})

/** Questions for a guard trip. */
import type { GuardQuestion } from '../../supabase/functions/_shared/resilience/guardTrip.ts'
import type { IdempotencyRequest } from '../../supabase/functions/_shared/resilience/idempotency.ts'
import type {
  RateLimitQuestion,
  RateLimitWindow,
} from '../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import { newRequest } from './idempotencyStore.ts'

/** For trips that are about other things. */
export const noBreakers = { outgoing: () => undefined }

/** For one call, of so many in an hour; equal keys have equal windows. */
export function limitOf(
  key: string,
  quota: number,
  more: { quota: number; windowMs: number }[] = [],
): RateLimitQuestion {
  const windows = [{ quota, windowMs: 3_600_000 }, ...more].map((window, nth): RateLimitWindow => ({
    name: `window-${nth}`,
    algorithm: 'gcra',
    burst: window.quota,
    ...window,
  }))
  return { key, windows, cost: 1, count: 1, blockMs: 0 }
}

/** Of another key at every call, for a minute. */
export function claimOf(given: Partial<IdempotencyRequest> = {}): NonNullable<GuardQuestion['claim']> {
  return { request: newRequest(given), leaseMs: 60_000 }
}

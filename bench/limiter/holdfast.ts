/** Ours, over each of its stores. With its store away it refuses, so that nothing is measured that memory decided. */
import { createDb } from '../../supabase/functions/_shared/db/client.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import { createRateLimiter } from '../../supabase/functions/_shared/resilience/rateLimit.ts'
import { MemoryRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/memoryRateLimits.ts'
import { PostgresRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/postgresRateLimits.ts'
import type { RateLimitStore } from '../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import { RedisRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/redisRateLimits.ts'
import { quota, type Subject, windowSeconds } from './subject.ts'

export interface HoldfastPostgresOptions {
  /** Named statements, for direct connections; without, it works behind a pooler in transaction mode. */
  prepare: boolean
  /** Tokens that the process takes ahead. @default none */
  lease?: number
}

export function openHoldfastPostgres(url: string, { prepare, lease }: HoldfastPostgresOptions): Subject {
  const db = createDb({ url, prepare })
  const subject = openLimiter(new PostgresRateLimitStore(db), lease)
  return {
    ...subject,
    async close() {
      await subject.close()
      await db.close()
    },
  }
}

export function openHoldfastRedis(url: string): Subject {
  return openLimiter(new RedisRateLimitStore({ url }))
}

export function openHoldfastMemory(): Subject {
  return openLimiter(new MemoryRateLimitStore())
}

function openLimiter(store: RateLimitStore, lease?: number): Subject {
  const limiter = createRateLimiter({
    name: 'bench',
    policy: { quota, windowMs: windowSeconds * 1_000 },
    store,
    onUnavailable: 'closed',
    lease: lease === undefined ? undefined : { tokens: lease },
    log: createLogger({ level: 'error' }),
  })
  return {
    consume: (key) => limiter.consume(key),
    close: () => store.close(),
  }
}

/** Where rate limits are counted unless a limiter is given a store of its own. */
import { env } from '../../core/env.ts'
import { MemoryRateLimitStore } from '../stores/memoryRateLimits.ts'
import type { RateLimitStore } from '../stores/rateLimitStore.ts'

let configured: Promise<RateLimitStore> | undefined

/** As `RATE_LIMIT_STORE` says, one for this isolate. Only what is used is loaded. */
export function configuredRateLimitStore(): Promise<RateLimitStore> {
  return configured ??= open().catch((error) => {
    configured = undefined
    throw error
  })
}

async function open(): Promise<RateLimitStore> {
  const { rateLimitStore, redisUrl } = env()
  if (rateLimitStore === 'memory') return new MemoryRateLimitStore()
  if (rateLimitStore === 'redis') {
    const { RedisRateLimitStore } = await import('../stores/redisRateLimits.ts')
    return new RedisRateLimitStore({ url: redisUrl! })
  }
  const [{ PostgresRateLimitStore }, { db }] = await Promise.all([
    import('../stores/postgresRateLimits.ts'),
    import('../../db/client.ts'),
  ])
  return new PostgresRateLimitStore(db)
}

/** Taking as much of a limit as it gives. Loaded when the clock of the process is as wrong as it is to be. */
import { createDb } from '../../../supabase/functions/_shared/db/client.ts'
import { createLogger } from '../../../supabase/functions/_shared/observability/logger.ts'
import { createRateLimiter } from '../../../supabase/functions/_shared/resilience/rateLimit.ts'
import { PostgresRateLimitStore } from '../../../supabase/functions/_shared/resilience/stores/postgresRateLimits.ts'
import type { LimitTask } from './limitClient.ts'

/** Of all processes together, for a day: nothing comes back while a test runs. */
export const quota = 100

export async function openLimit({ store: kind, url, algorithm, key, lease, workers }: LimitTask) {
  const { store, close } = await openStore(kind, url)
  const limiter = createRateLimiter({
    name: 'hammered',
    policy: `${quota}/d`,
    algorithm,
    store,
    lease,
    // Each call is to reach the store.
    denyCacheMs: 0,
    // A decision that nobody but this process knew of would be found as one too many.
    onUnavailable: 'closed',
    // Eight processes begin at once, on a machine with other things to do.
    storeTimeoutMs: 20_000,
    // Standard output is for the tallies.
    log: createLogger({
      write: (_level, line) => void Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`)),
    }),
  })
  // The connection is open, and the other key's state shows nothing, before anybody begins.
  await limiter.consume(`${key}-warm-${crypto.randomUUID()}`)
  return {
    close,
    async hammer(say: (tally: { calls: number; admitted: number }) => void, signal: AbortSignal) {
      const tally = { calls: 0, admitted: 0 }
      const work = async () => {
        while (!signal.aborted) {
          const { allowed, decidedBy } = await limiter.consume(key)
          if (decidedBy === 'unavailable') throw new Error('The store was away')
          tally.calls++
          if (allowed) tally.admitted++
          if (allowed || tally.calls % 20 === 0) say(tally)
          // With a lease the next answer may be here already, and the end of the input never heard of.
          if (tally.calls % 20 === 0) await new Promise((resolve) => setTimeout(resolve))
        }
      }
      await Promise.all(Array.from({ length: workers }, work))
      say(tally)
    },
  }
}

async function openStore(kind: LimitTask['store'], url: string) {
  if (kind === 'redis') {
    const { RedisRateLimitStore } = await import(
      '../../../supabase/functions/_shared/resilience/stores/redisRateLimits.ts'
    )
    const store = new RedisRateLimitStore({ url })
    return { store, close: () => store.close() }
  }
  const db = createDb({ url, max: 2 })
  return { store: new PostgresRateLimitStore(db), close: () => db.close() }
}

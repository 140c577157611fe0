/** The routes of `health`. Both are open to anybody and say nothing that helps an attacker. */
import { z } from 'zod'
import { HoldfastError } from '../_shared/core/errors.ts'
import { db } from '../_shared/db/client.ts'
import { sql } from '../_shared/db/sql.ts'
import { route } from '../_shared/http/api.ts'
import { type Check, runChecks } from './checks.ts'

const checkResult = z.object({
  state: z.enum(['up', 'down']),
  needed: z.boolean(),
  latencyMs: z.number(),
})

export const routes = [
  route({
    method: 'GET',
    path: '/',
    auth: 'none',
    summary: 'The process lives',
    response: z.object({ status: z.literal('alive') }),
    handler: () => ({ data: { status: 'alive' as const } }),
  }),

  route({
    method: 'GET',
    path: '/ready',
    auth: 'none',
    summary: 'Whether the platform can work, with the state of all it depends on',
    response: z.object({
      status: z.enum(['ready', 'degraded']),
      checks: z.record(z.string(), checkResult),
    }),
    errors: ['SERVICE_UNAVAILABLE'],
    async handler({ log }) {
      const checks = await runChecks(configuredChecks(), {
        timeoutMs: 2_000,
        onDown: (name, error) => log.warn(`${name} is down`, { error }),
      })
      const down = Object.values(checks).filter((check) => check.state === 'down')
      if (down.some((check) => check.needed)) {
        throw new HoldfastError('SERVICE_UNAVAILABLE', 'Something this needs is away', {
          details: { status: 'unavailable', checks },
          retryAfterMs: 5_000,
        })
      }
      return { data: { status: down.length > 0 ? 'degraded' as const : 'ready' as const, checks } }
    },
  }),
]

/**
 * The database and the audit trail always: a trail with gaps that nobody has looked at is down. The payment provider
 * where one is configured: any answer of its is a sign of life.
 */
function configuredChecks(): Record<string, Check> {
  const checks: Record<string, Check> = {
    database: { needed: true, probe: () => db().ping() },
    audit: {
      needed: false,
      probe: async () => {
        const [row] = await db().owner.query<{ gaps: string }>(sql`select audit.open_gaps() as gaps`)
        if (Number(row!.gaps) > 0) {
          throw new Error(`${row!.gaps} changes could not be recorded: see audit.gaps`)
        }
      },
    },
  }
  const paymentsUrl = Deno.env.get('PAYMENTS_URL')
  if (paymentsUrl !== undefined) {
    checks.payments = {
      needed: false,
      probe: async (signal) => {
        const response = await fetch(new URL('/', paymentsUrl), { signal })
        await response.body?.cancel()
        if (response.status >= 500) throw new Error(`status ${response.status}`)
      },
    }
  }
  return checks
}

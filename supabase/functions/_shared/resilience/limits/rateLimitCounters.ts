/** A limiter's metrics: `rate_limit_total` by outcome and by who decided, `rate_limit_local_total` without the store. */
import { type Counter, counter } from '../../observability/metrics.ts'
import type { DecidedBy, RateLimitDecision } from './rateLimitDecision.ts'

type Series = Partial<Record<DecidedBy, Counter>>

export class DecisionCounters {
  readonly #limiter: string
  readonly #allowed: Series = {}
  readonly #refused: Series = {}
  #local: Counter | undefined

  constructor(limiter: string) {
    this.#limiter = limiter
  }

  count({ allowed, decidedBy }: RateLimitDecision): void {
    const limiter = this.#limiter
    const series = allowed ? this.#allowed : this.#refused
    series[decidedBy] ??= counter('rate_limit_total', {
      limiter,
      outcome: allowed ? 'allowed' : 'refused',
      decided_by: decidedBy,
    })
    series[decidedBy].add()
    if (decidedBy !== 'local' && decidedBy !== 'unavailable') return
    this.#local ??= counter('rate_limit_local_total', { limiter })
    this.#local.add()
  }
}

/** What a circuit breaker refuses with. Both are made once and thrown many times: a refusal has to cost nothing. */
import { HoldfastError } from '../../core/errors.ts'

/**
 * The service was not called. One instance is shared by all calls that are refused while the breaker stays in one
 * state; its stack is that of the first.
 */
export class CircuitOpenError extends HoldfastError {
  override name = 'CircuitOpenError'
  /** Time left now until somebody may look whether the service is back. At least 1. */
  declare readonly retryAfterMs: number
  readonly breaker: string

  constructor(breaker: string, found: string, retryInMs: () => number) {
    super('CIRCUIT_OPEN', `Cannot call "${breaker}": ${found}`, { details: { breaker } })
    this.breaker = breaker
    // The base declares a field of this name, which would hide an accessor of the class.
    Object.defineProperty(this, 'retryAfterMs', {
      get: () => Math.max(1, Math.ceil(retryInMs())),
      enumerable: true,
      configurable: true,
    })
  }
}

/** The service was not called: as many calls as it may have are running, and as many as may wait are waiting. */
export class BulkheadFullError extends HoldfastError {
  override name = 'BulkheadFullError'
  readonly breaker: string

  constructor(breaker: string, { maxConcurrent, maxQueued }: { maxConcurrent: number; maxQueued: number }) {
    super(
      'BULKHEAD_FULL',
      `Cannot call "${breaker}": ${maxConcurrent} calls are running and ${maxQueued} waiting`,
      {
        retryAfterMs: 1_000,
        details: { breaker },
      },
    )
    this.breaker = breaker
  }
}

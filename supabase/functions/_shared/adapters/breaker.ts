/** A circuit breaker around what is behind an adapter: a service that fails is left alone, whole. */
import { HoldfastError } from '../core/errors.ts'
import { createLogger, type Logger } from '../observability/logger.ts'
import {
  type CircuitBreaker,
  type CircuitBreakerOptions,
  type CircuitBreakers,
  circuitBreakers,
} from '../resilience/circuitBreaker.ts'
import { type Around, errorResponse } from './exchange.ts'

export interface BreakerOptions extends CircuitBreakerOptions {
  /** Names the breaker; all who use one name share its state. */
  name: string
  /** @default this isolate's `circuitBreakers` */
  breakers?: CircuitBreakers
  /** Where failures of ours are logged. @default JSON lines on standard output */
  log?: Logger
}

/**
 * What the handler throws counts against the breaker, as `isFailure` says, and so does an answer of 500 or above; its
 * 4xx do not. While the breaker is open the handler does not run: 503 `CIRCUIT_OPEN` with `Retry-After`. The handler
 * is given the breaker, for its `signal`-aware calls.
 */
export function createBreakerAround(options: BreakerOptions): Around<CircuitBreaker> {
  const { name, breakers = circuitBreakers, log = createLogger(), ...rules } = options
  const breaker = breakers.get(name, rules)
  return async ({ request }, next) => {
    let answered: Response | undefined
    let thrown: { error: unknown } | undefined
    try {
      return await breaker.execute(async () => {
        const { response, error } = await next(breaker).catch((error) => {
          thrown = { error }
          throw error
        })
        answered = response
        if (error !== undefined) throw error
        if (response.status >= 500) throw failedWith(response.status)
        return response
      })
    } catch (error) {
      // The handler's own answer, or its own error, is what whoever is in front knows best what to make of.
      if (answered !== undefined) return answered
      if (thrown !== undefined && thrown.error === error) throw error
      return errorResponse(error, request, log)
    }
  }
}

/** For the breaker alone: the answer stands. */
function failedWith(status: number): HoldfastError {
  return new HoldfastError(`STATUS_${status}`, `The handler answered ${status}`, { status })
}

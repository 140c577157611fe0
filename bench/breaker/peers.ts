/** opossum and cockatiel, each as its own page has it, with the settings that cost it least. */
import {
  bulkhead,
  circuitBreaker,
  type CircuitBreakerPolicy,
  handleAll,
  SamplingBreaker,
  timeout,
  TimeoutStrategy,
  wrap,
} from 'cockatiel'
// @ts-types="./opossum.d.ts"
import CircuitBreaker from 'opossum'
import type { Bench } from '../support/suite.ts'

/** The same for everybody, in so far as they have it. */
export const cooldownMs = 600_000
export const timeoutMs = 5_000
export const maxConcurrent = 20

type Work = () => Promise<unknown>

/** Trips at half of the calls within 30 s. */
export function cockatielSampling(): CircuitBreakerPolicy {
  return circuitBreaker(handleAll, {
    halfOpenAfter: cooldownMs,
    breaker: new SamplingBreaker({ threshold: 0.5, duration: 30_000 }),
  })
}

/** Ends a call that takes too long, whatever it does, as the others do. */
export function cockatielWrap() {
  return wrap(
    cockatielSampling(),
    bulkhead(maxConcurrent),
    timeout(timeoutMs, TimeoutStrategy.Aggressive),
  )
}

export type OpossumOptions = ConstructorParameters<typeof CircuitBreaker>[1]

/** No percentiles and no snapshots, which its page tells to turn off where nobody reads them. */
export const lean: OpossumOptions = { rollingPercentilesEnabled: false, enableSnapshots: false }

export function opossum({ resources }: Bench, work: Work, options: OpossumOptions): CircuitBreaker<unknown> {
  return resources.adopt(new CircuitBreaker(work, options), (breaker) => breaker.shutdown())
}

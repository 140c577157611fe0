/** What a limiter says of a call, and what the call is refused with. */
import { HoldfastError } from '../../core/errors.ts'
import type { RateLimitAnswer, RateLimitWindow, RateLimitWindowAnswer } from '../stores/rateLimitStore.ts'

/**
 * `store`: the shared store, or `memory` where that is all there is. `lease`: tokens that this isolate took ahead.
 * `deny-cache`: refused before, and not yet over. With the store away, `local`: this isolate's share, and `unavailable`:
 * as `onUnavailable` says, without counting.
 */
export type DecidedBy = 'store' | 'memory' | 'lease' | 'deny-cache' | 'local' | 'unavailable'

export interface WindowStanding {
  name: string
  quota: number
  windowMs: number
  /** Tokens that are left. */
  remaining: number
  /** Until all are back. */
  resetMs: number
  /** Until there are enough for such a call; 0: now. */
  retryAfterMs: number
}

export interface RateLimitDecision {
  allowed: boolean
  /** 0 when allowed. */
  retryAfterMs: number
  windows: WindowStanding[]
  /** Names of the windows that refused; of all while the key is blocked, empty when allowed. */
  violated: readonly string[]
  decidedBy: DecidedBy
}

/** More calls than the limit admits; 429. `details.policies` are the names of the windows that refused. */
export class RateLimitedError extends HoldfastError {
  override name = 'RateLimitedError'
  readonly decision: RateLimitDecision

  constructor(decision: RateLimitDecision) {
    const { violated, retryAfterMs, windows } = decision
    const limits = windows.filter(({ name }) => violated.includes(name)).map(({ name, quota, windowMs }) =>
      `${quota} in ${windowMs / 1_000} s (${name})`
    )
    super('RATE_LIMITED', `Cannot take another call now: the limit is ${limits.join(' and ')}`, {
      details: { policies: [...violated] },
      retryAfterMs,
    })
    this.decision = decision
  }
}

/** The error of a decision that refuses: 429, or 503 where the store is away and `onUnavailable` is `closed`. */
export function refusalOf(decision: RateLimitDecision): HoldfastError {
  if (decision.decidedBy !== 'unavailable') return new RateLimitedError(decision)
  return new HoldfastError('SERVICE_UNAVAILABLE', 'Cannot count the call: the store of rate limits is away', {
    details: { policies: [...decision.violated] },
    retryAfterMs: decision.retryAfterMs,
  })
}

const none: readonly string[] = []

/** The decision on the call number `index`, from 0, of those the answer is about. */
export function decisionFrom(
  windows: readonly RateLimitWindow[],
  answer: RateLimitAnswer,
  index: number,
  decidedBy: DecidedBy,
): RateLimitDecision {
  const standings = standingsOf(windows, answer)
  if (index < answer.admitted) {
    return { allowed: true, retryAfterMs: 0, windows: standings, violated: none, decidedBy }
  }
  return refused(standings, answer.blockedMs, decidedBy)
}

/** Whether one more call would be admitted. */
export function forecastFrom(
  windows: readonly RateLimitWindow[],
  answer: RateLimitAnswer,
  decidedBy: DecidedBy,
): RateLimitDecision {
  const passes = answer.blockedMs === 0 && answer.windows.every(({ retryAfterMs }) => retryAfterMs === 0)
  return decisionFrom(windows, { ...answer, admitted: passes ? 1 : 0 }, 0, decidedBy)
}

/** Without any count: all that there could be is left, or nothing. */
export function uncounted(
  windows: readonly RateLimitWindow[],
  allowed: boolean,
  retryAfterMs: number,
): RateLimitDecision {
  const standings = windows.map(({ name, quota, windowMs, burst }) => ({
    name,
    quota,
    windowMs,
    remaining: allowed ? burst : 0,
    resetMs: allowed ? 0 : retryAfterMs,
    retryAfterMs: allowed ? 0 : retryAfterMs,
  }))
  if (!allowed) return refused(standings, 0, 'unavailable')
  return { allowed, retryAfterMs: 0, windows: standings, violated: none, decidedBy: 'unavailable' }
}

function standingsOf(windows: readonly RateLimitWindow[], answer: RateLimitAnswer): WindowStanding[] {
  if (windows.length === 1) return [standingOf(windows[0]!, answer.windows[0]!)]
  return windows.map((window, index) => standingOf(window, answer.windows[index]!))
}

function standingOf(
  { name, quota, windowMs }: RateLimitWindow,
  { remaining, resetMs, retryAfterMs }: RateLimitWindowAnswer,
): WindowStanding {
  return { name, quota, windowMs, remaining, resetMs, retryAfterMs }
}

function refused(windows: WindowStanding[], blockedMs: number, decidedBy: DecidedBy): RateLimitDecision {
  const violating = windows.filter(({ retryAfterMs }) => retryAfterMs > 0)
  const retryAfterMs = violating.reduce((most, window) => Math.max(most, window.retryAfterMs), blockedMs)
  const violated = (violating.length > 0 ? violating : windows).map(({ name }) => name)
  return { allowed: false, retryAfterMs, windows, violated, decidedBy }
}

/** How a circuit breaker is made: the options, their defaults and their bounds. */
import type { BreakerRules, BreakerState } from '../stores/breakerStore.ts'
import { longestTimerMs } from '../timers.ts'

export interface CircuitBreakerOptions {
  /** Trips at so many failures within `windowMs`. @default 5, or none when another rule is given */
  failureThreshold?: number
  /** Trips at so many failures with no success in between. @default none */
  consecutiveFailures?: number
  /** Trips when this share of the calls within `windowMs` failed, in (0, 1]. @default none */
  failureRate?: number
  /** Calls within `windowMs` below which `failureRate` says nothing. @default 20 */
  minimumVolume?: number
  /** How long a call is counted, with a tenth of it as precision. @default 30_000 */
  windowMs?: number
  /** How long an open breaker refuses before one call may probe. @default 30_000 */
  cooldownMs?: number
  /** Probes, of all isolates together, that must succeed before it closes; one that fails opens it again. @default 1 */
  halfOpenProbes?: number
  /** How long a probe may go unreported before another may take its place. @default timeoutMs + 5_000, else cooldownMs */
  probeLeaseMs?: number
  /** A call that takes longer fails with `UPSTREAM_TIMEOUT`, and its signal is aborted. @default none */
  timeoutMs?: number
  /** Calls of this isolate that run at once. @default any number */
  maxConcurrent?: number
  /** Calls that wait for one of `maxConcurrent` places; the time limit begins when they have one. @default 0 */
  maxQueued?: number
  /**
   * Whether an error speaks against the service; what it throws does. Other errors show that it answered, but for an
   * `AbortError`, which shows nothing. @default all but those, and those with a `status` of 400 to 499
   */
  isFailure?: (error: unknown) => boolean
  /** Called after each change of state that this isolate makes or hears of. Changes nothing, whatever it throws. */
  onStateChange?: (event: StateChange) => void
  /** Called for each call, when it is over. Changes nothing, whatever it throws; makes every call a little slower. */
  onCall?: (event: CallEvent) => void
}

export interface StateChange {
  breaker: string
  from: BreakerState
  to: BreakerState
  /** Why it is open, or forced. */
  reason: string | null
  forced: 'open' | 'closed' | null
  /** `shared`: heard from the store. `local`: by this isolate alone, and the store may yet decide otherwise. */
  source: 'shared' | 'local'
}

/**
 * What became of a call. `excused`: its error does not speak against the service. `aborted`: by its caller.
 * `out_of_time`: by its deadline, before it had half of `timeoutMs`. Neither of the last two is counted.
 */
export type CallOutcome =
  | 'succeeded'
  | 'failed'
  | 'timed_out'
  | 'excused'
  | 'aborted'
  | 'out_of_time'
  | 'refused'
  | 'bulkhead_full'

export interface CallEvent {
  breaker: string
  outcome: CallOutcome
  /** Since `execute`. */
  durationMs: number
  probe: boolean
  /** What it rejected with, before any fallback. */
  error?: unknown
}

export interface BreakerSettings {
  rules: BreakerRules
  timeoutMs: number | undefined
  maxConcurrent: number | undefined
  maxQueued: number
}

/** `RangeError` for a name or a number out of range, `TypeError` for what is no option. */
export function settingsOf(name: string, options: CircuitBreakerOptions): BreakerSettings {
  // What every store can keep, and shows.
  if (typeof name !== 'string' || !/^[^\p{Cc}\p{Cs}]{1,200}$/u.test(name)) {
    throw new RangeError(
      `Cannot make a circuit breaker: its name must have 1 to 200 printable characters, received ${
        JSON.stringify(name)
      }`,
    )
  }
  const cannot = `Cannot make the circuit breaker "${name}"`
  const { windowMs = 30_000, cooldownMs = 30_000, halfOpenProbes = 1, minimumVolume = 20 } = options
  const { failureThreshold, consecutiveFailures, failureRate, timeoutMs, maxConcurrent, maxQueued } = options

  const duration = (option: string, ms: number | undefined) => {
    if (ms !== undefined && !(typeof ms === 'number' && ms > 0 && ms <= longestTimerMs)) {
      throw new RangeError(
        `${cannot}: ${option} must be above 0 and at most ${longestTimerMs}, received ${ms}`,
      )
    }
  }
  const count = (option: string, value: number | undefined, least = 1) => {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= least && value <= mostCounted)) {
      throw new RangeError(
        `${cannot}: ${option} must be a whole number from ${least} to ${mostCounted}, received ${value}`,
      )
    }
  }
  for (const option of Object.keys(options)) {
    if (!known.has(option)) throw new TypeError(`${cannot}: there is no option ${option}`)
  }
  for (const option of ['isFailure', 'onStateChange', 'onCall'] as const) {
    const value: unknown = options[option]
    if (value !== undefined && typeof value !== 'function') {
      throw new TypeError(`${cannot}: ${option} must be a function, received ${String(value)}`)
    }
  }
  count('failureThreshold', failureThreshold)
  count('consecutiveFailures', consecutiveFailures)
  if (
    failureRate !== undefined && !(typeof failureRate === 'number' && failureRate > 0 && failureRate <= 1)
  ) {
    throw new RangeError(`${cannot}: failureRate must be in (0, 1], received ${failureRate}`)
  }
  count('minimumVolume', minimumVolume)
  duration('windowMs', windowMs)
  duration('cooldownMs', cooldownMs)
  count('halfOpenProbes', halfOpenProbes)
  duration('timeoutMs', timeoutMs)
  const probeLeaseMs = options.probeLeaseMs ?? (timeoutMs === undefined ? cooldownMs : timeoutMs + 5_000)
  duration('probeLeaseMs', probeLeaseMs)
  count('maxConcurrent', maxConcurrent)
  count('maxQueued', maxQueued, 0)
  if (maxQueued !== undefined && maxQueued > 0 && maxConcurrent === undefined) {
    throw new TypeError(`${cannot}: maxQueued needs maxConcurrent, received ${maxQueued} alone`)
  }

  const byDefault = consecutiveFailures === undefined && failureRate === undefined ? 5 : null
  return {
    rules: {
      failureThreshold: failureThreshold ?? byDefault,
      consecutiveFailures: consecutiveFailures ?? null,
      failureRate: failureRate ?? null,
      minimumVolume,
      windowMs,
      cooldownMs,
      halfOpenProbes,
      probeLeaseMs,
    },
    timeoutMs,
    maxConcurrent,
    maxQueued: maxQueued ?? 0,
  }
}

/** What a store can keep as an integer. */
const mostCounted = 1_000_000

const known = new Set(
  Object.keys(
    {
      failureThreshold: 0,
      consecutiveFailures: 0,
      failureRate: 0,
      minimumVolume: 0,
      windowMs: 0,
      cooldownMs: 0,
      halfOpenProbes: 0,
      probeLeaseMs: 0,
      timeoutMs: 0,
      maxConcurrent: 0,
      maxQueued: 0,
      isFailure: 0,
      onStateChange: 0,
      onCall: 0,
    } satisfies Record<keyof CircuitBreakerOptions, 0>,
  ),
)

/** The first setting that differs, in words; undefined when there is none. Functions are not compared. */
export function differenceOf(made: BreakerSettings, asked: BreakerSettings): string | undefined {
  // Those that others follow from come first.
  const flat = ({ rules, ...rest }: BreakerSettings): Record<string, unknown> => ({ ...rest, ...rules })
  const before = flat(made)
  const now = flat(asked)
  const name = Object.keys(before).find((name) => before[name] !== now[name])
  return name === undefined
    ? undefined
    : `it was made with ${name} ${before[name] ?? 'none'}, received ${now[name] ?? 'none'}`
}

/** The service is not to blame for what its caller does wrong, or does not want any more. */
export function isFailure(error: unknown): boolean {
  const { status } = (error ?? {}) as { status?: unknown }
  const isCallers = typeof status === 'number' && status >= 400 && status < 500
  return !isCallers && !isAbort(error)
}

export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError'
}

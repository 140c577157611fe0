/** How a limit is written down: `'60/min'`, several of those, or objects; read and checked once. */
import { emissionIntervalUs } from './rateLimitDecide.ts'
import type { Algorithm, RateLimitWindow } from '../stores/rateLimitStore.ts'

/** `'60/min'`, `'10/s'`, `'500/h'`, `'5000/d'`, `'20/15min'`. */
export type PolicyText = string

export interface PolicyWindow {
  quota: number
  windowMs: number
  /** @default made of the limiter's name and the numbers */
  name?: string
  /** @default that of the limiter */
  algorithm?: Algorithm
  /** Calls at once, with `gcra` only. @default that of the limiter, or else the quota */
  burst?: number
}

export type Policy = PolicyText | PolicyWindow | readonly (PolicyText | PolicyWindow)[]

const unitMs = { s: 1_000, min: 60_000, h: 3_600_000, d: 86_400_000 }

export const longestWindowMs = 366 * unitMs.d
const mostWindows = 5
const algorithms: readonly string[] = ['gcra', 'fixed', 'sliding'] satisfies Algorithm[]

/** Goes into headers as a quoted string, and into keys, which are parted by `|`. */
const namePattern = /^[!#-[\]-{}~]{1,80}$/
export const nameRule = 'name must be 1 to 80 printable ASCII characters, no space and none of " \\ |'

export function isLimiterName(name: unknown): name is string {
  return typeof name === 'string' && namePattern.test(name)
}

/** `TypeError` and `RangeError` say what was received. The windows are in the order in which they were given. */
export function windowsOf(
  limiter: string,
  policy: Policy,
  { algorithm = 'gcra', burst }: { algorithm?: Algorithm; burst?: number } = {},
): readonly RateLimitWindow[] {
  const what = `Cannot make the rate limit "${limiter}"`
  const given = Array.isArray(policy) ? policy : [policy]
  if (given.length === 0 || given.length > mostWindows) {
    throw new RangeError(`${what}: policy must have 1 to ${mostWindows} windows, received ${given.length}`)
  }
  const windows = given.map((one: unknown) => {
    const window = typeof one === 'string' ? parsed(what, one) : one as PolicyWindow
    if (typeof window !== 'object' || window === null) {
      throw new TypeError(`${what}: policy must be like '60/min' or { quota, windowMs }, received ${one}`)
    }
    const chosen = window.algorithm ?? algorithm
    if (!algorithms.includes(chosen)) {
      throw new TypeError(`${what}: algorithm must be one of ${algorithms.join(', ')}, received ${chosen}`)
    }
    const { quota, windowMs } = window
    requireWhole(what, 'quota', quota)
    requireWhole(what, 'windowMs', windowMs, longestWindowMs)
    if (quota > windowMs * 1_000) {
      throw new RangeError(
        `${what}: quota must be at most one in a microsecond, received ${quota} in ${windowMs} ms`,
      )
    }
    const atOnce = window.burst ?? (chosen === 'gcra' ? burst : undefined) ?? quota
    requireWhole(what, 'burst', atOnce)
    const name = window.name ?? (given.length === 1 ? limiter : `${limiter}-${quota}-per-${spanOf(windowMs)}`)
    if (!isLimiterName(name)) throw new TypeError(`${what}: ${nameRule}, received ${name}`)
    const whole: RateLimitWindow = { name, algorithm: chosen, quota, windowMs, burst: atOnce }
    if (chosen !== 'gcra' && atOnce !== quota) {
      throw new RangeError(
        `${what}: burst is for the algorithm gcra, received ${atOnce} with ${chosen} and the quota ${quota}`,
      )
    }
    if (atOnce * emissionIntervalUs(whole) > longestWindowMs * 1_000) {
      throw new RangeError(`${what}: burst must come back within 366 days, received ${atOnce}`)
    }
    return Object.freeze(whole)
  })
  const names = new Set(windows.map(({ name }) => name))
  if (names.size < windows.length) {
    throw new TypeError(
      `${what}: its windows must have different names, received ${
        windows.map(({ name }) => name).join(', ')
      }`,
    )
  }
  if (burst !== undefined && !windows.some((window) => window.algorithm === 'gcra')) {
    throw new RangeError(`${what}: burst is for the algorithm gcra, received ${burst} with ${algorithm}`)
  }
  return Object.freeze(windows)
}

/** Tokens that a single call can take of all windows at once. */
export function largestCost(windows: readonly RateLimitWindow[]): number {
  return windows.reduce((least, { burst }) => Math.min(least, burst), Infinity)
}

/** The same limits at a share of their size, at least one token each: what one isolate of many grants by itself. */
export function shareOf(windows: readonly RateLimitWindow[], share: number): readonly RateLimitWindow[] {
  const part = (tokens: number) => Math.max(1, Math.floor(tokens * share))
  return windows.map((window) => ({ ...window, quota: part(window.quota), burst: part(window.burst) }))
}

/** Short and the same for equal windows: part of the key, so that a changed policy begins with nothing counted. */
export function windowsTag(windows: readonly RateLimitWindow[]): string {
  return windows.map(({ algorithm, quota, windowMs, burst }) =>
    `${algorithm}:${quota}/${spanOf(windowMs)}${burst === quota ? '' : `+${burst}`}`
  ).join(',')
}

function parsed(what: string, text: string): PolicyWindow {
  const [, quota, times, unit] = /^(\d{1,15})\/(\d{0,9})(s|min|h|d)$/.exec(text) ?? []
  if (unit === undefined) {
    throw new TypeError(`${what}: policy must be like '60/min', with s, min, h or d, received '${text}'`)
  }
  return {
    quota: Number(quota),
    windowMs: (times === '' ? 1 : Number(times)) * unitMs[unit as keyof typeof unitMs],
  }
}

/** `min`, `15min`, `1500ms`: in the largest unit that is whole. */
function spanOf(windowMs: number): string {
  for (const [unit, ms] of Object.entries(unitMs).reverse()) {
    if (windowMs % ms === 0) return windowMs === ms ? unit : `${windowMs / ms}${unit}`
  }
  return `${windowMs}ms`
}

function requireWhole(what: string, name: string, value: number, most = Number.MAX_SAFE_INTEGER): void {
  if (!Number.isSafeInteger(value) || value < 1 || value > most) {
    const bound = most === Number.MAX_SAFE_INTEGER ? '' : ` of at most ${most}`
    throw new RangeError(`${what}: ${name} must be a positive whole number${bound}, received ${value}`)
  }
}

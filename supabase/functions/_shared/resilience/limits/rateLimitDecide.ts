/**
 * What a limit decides, as functions of plain values. The memory store calls them; `holdfast.decide_rate_limits` and the
 * Redis script do the same with the same whole numbers, so all three agree to the microsecond. Times are microseconds
 * since some moment; every number stays below 2^53, and there are no fractions.
 */
import type { RateLimitAnswer, RateLimitWindow, RateLimitWindowAnswer } from '../stores/rateLimitStore.ts'

/**
 * What is kept of one window; absent or over means that nothing is counted.
 *
 * - `gcra`: `[tat]`, when the bucket is full again (theoretical arrival time).
 * - `fixed`: `[endsAt, taken]`.
 * - `sliding`: `[slice, newest, …, oldest]`, the last slice that is counted and what was taken in it and in the ten before.
 */
export type WindowState = readonly number[]

export interface WindowDecision {
  /** Of the calls that were asked for, the first ones. */
  admitted: number
  /** With the admitted calls taken. */
  state: WindowState
  /** Whole tokens left, at least 0. */
  remaining: number
  /** Until the state may be forgotten. */
  resetUs: number
  /** Until one more call passes. */
  retryAfterUs: number
}

type Decide = (
  window: RateLimitWindow,
  state: WindowState | undefined,
  nowUs: number,
  cost: number,
  count: number,
  /** Takes the cost of all calls, whether there are as many tokens or not. */
  forced?: boolean,
) => WindowDecision

/** Microseconds in which one token comes back: rounded up, so that no window ever gives more than its quota. */
export function emissionIntervalUs({ quota, windowMs }: RateLimitWindow): number {
  return Math.ceil(windowMs * 1_000 / quota)
}

/**
 * With T the emission interval: the bucket lacks `tat - now`, and a call of cost c passes while it lacks at most
 * `(burst - c) * T`. Taking it makes that `c * T` more.
 */
export const gcraDecide: Decide = (window, state, nowUs, cost, count, forced = false) => {
  const intervalUs = emissionIntervalUs(window)
  const capacityUs = window.burst * intervalUs
  const costUs = cost * intervalUs
  let lackingUs = state === undefined ? 0 : Math.max(0, state[0]! - nowUs)
  const admitted = forced ? count : admissible(capacityUs - lackingUs, costUs, count)
  lackingUs += admitted * costUs
  return {
    admitted,
    state: [nowUs + lackingUs],
    remaining: Math.max(0, Math.floor((capacityUs - lackingUs) / intervalUs)),
    resetUs: lackingUs,
    retryAfterUs: Math.max(0, lackingUs + costUs - capacityUs),
  }
}

/** The first call taken begins a window; its end forgets everything, also what was taken beyond the quota. */
export const fixedDecide: Decide = ({ quota, windowMs }, state, nowUs, cost, count, forced = false) => {
  const running = state !== undefined && state[0]! > nowUs
  let taken = running ? state[1]! : 0
  const admitted = forced ? count : admissible(quota - taken, cost, count)
  taken += admitted * cost
  const endsAt = running ? state[0]! : taken > 0 ? nowUs + windowMs * 1_000 : nowUs
  return {
    admitted,
    state: [endsAt, taken],
    remaining: Math.max(0, quota - taken),
    resetUs: endsAt - nowUs,
    retryAfterUs: quota - taken >= cost ? 0 : endsAt - nowUs,
  }
}

/** Slices in a window. What was taken in a slice counts until the slice is out of the window altogether. */
export const slices = 10

export function sliceUs({ windowMs }: RateLimitWindow): number {
  return Math.ceil(windowMs * 1_000 / slices)
}

/**
 * Time is cut into slices of a tenth of the window. The window that ends now touches this slice and the ten before;
 * all that was taken in them counts. That is a little too much, so a call may wait a tenth of a window longer than it
 * had to; in return no window has ever more than the quota, wherever it begins.
 */
export const slidingDecide: Decide = (window, state, nowUs, cost, count, forced = false) => {
  const { quota } = window
  const lengthUs = sliceUs(window)
  // A clock that was set back waits in the slice in which it was.
  const slice = Math.max(Math.floor(nowUs / lengthUs), state?.[0] ?? 0)
  const counts = new Array<number>(slices + 1).fill(0)
  let taken = 0
  if (state !== undefined) {
    for (let age = slice - state[0]!; age <= slices; age++) {
      taken += counts[age] = state[1 + age - (slice - state[0]!)]!
    }
  }
  const admitted = forced ? count : admissible(quota - taken, cost, count)
  taken += admitted * cost
  counts[0]! += admitted * cost

  let resetUs = 0
  let retryAfterUs = 0
  let left = taken
  for (let age = slices; age >= 0; age--) {
    if (counts[age] === 0) continue
    const leavesInUs = (slice + slices + 1 - age) * lengthUs - nowUs
    if (left + cost > quota) retryAfterUs = leavesInUs
    left -= counts[age]!
    resetUs = leavesInUs
  }
  return {
    admitted,
    state: [slice, ...counts],
    remaining: Math.max(0, quota - taken),
    resetUs,
    retryAfterUs,
  }
}

/** Numbers in a window's state. */
export const stateWidth = { gcra: 1, fixed: 2, sliding: slices + 2 }

/** One window by itself. Reads no more of `state` than its width. */
export const decideWindow: Decide = (window, state, nowUs, cost, count, forced) => {
  if (window.algorithm === 'gcra') return gcraDecide(window, state, nowUs, cost, count, forced)
  if (window.algorithm === 'fixed') return fixedDecide(window, state, nowUs, cost, count, forced)
  return slidingDecide(window, state, nowUs, cost, count, forced)
}

/**
 * All windows of a key at once: as many calls as the strictest of them admits, taken from each. One decision for each
 * window, all with the same `admitted`.
 */
export function decide(
  windows: readonly RateLimitWindow[],
  states: readonly WindowState[] | undefined,
  nowUs: number,
  cost: number,
  count: number,
  forced = false,
): WindowDecision[] {
  const decisions = windows.map((window, index) =>
    decideWindow(window, states?.[index], nowUs, cost, count, forced)
  )
  const admitted = Math.min(...decisions.map((decision) => decision.admitted))
  if (decisions.every((decision) => decision.admitted === admitted)) return decisions
  // What one window would have admitted beyond the others is not taken from it.
  return decide(windows, states, nowUs, cost, admitted)
}

/** `blockedUs`: how long the key is still blocked. */
export function answerOf(decisions: readonly WindowDecision[], blockedUs: number): RateLimitAnswer {
  const blockedMs = Math.ceil(blockedUs / 1_000)
  if (decisions.length > 1) {
    return { admitted: decisions[0]!.admitted, windows: decisions.map(windowAnswerOf), blockedMs }
  }
  const [decision] = decisions
  return { admitted: decision!.admitted, windows: [windowAnswerOf(decision!)], blockedMs }
}

function windowAnswerOf({ remaining, resetUs, retryAfterUs }: WindowDecision): RateLimitWindowAnswer {
  return { remaining, resetMs: Math.ceil(resetUs / 1_000), retryAfterMs: Math.ceil(retryAfterUs / 1_000) }
}

/** How many calls of that cost there is enough for. */
function admissible(available: number, cost: number, count: number): number {
  return available < cost ? 0 : Math.min(count, Math.floor(available / cost))
}

/**
 * Questions as whole numbers, for stores that decide elsewhere, and what comes back as answers.
 *
 * Questions on the same terms share them: cost, 1 to take it in any case, microseconds to block for, windows, and for
 * each window its kind (0 gcra, 1 fixed, 2 sliding), the microseconds of a token, of the window or of a slice, and the
 * most tokens. `holdfast.decide_rate_limits` and the Redis script read them so.
 */
import {
  emissionIntervalUs,
  fixedDecide,
  gcraDecide,
  sliceUs,
  slidingDecide,
  type WindowState,
} from '../limits/rateLimitDecide.ts'
import { batched, type BatchOptions } from './batch.ts'
import type {
  RateLimitAnswer,
  RateLimitQuestion,
  RateLimitStore,
  RateLimitWindow,
  RateLimitWindowAnswer,
} from './rateLimitStore.ts'

/** `width`: the numbers that are kept of a window. */
const algorithms = {
  gcra: { kind: 0, width: 1, decide: gcraDecide },
  fixed: { kind: 1, width: 2, decide: fixedDecide },
  sliding: { kind: 2, width: 12, decide: slidingDecide },
}

const longestKey = 255
const most = Math.floor(Number.MAX_SAFE_INTEGER / 4)

export interface Terms {
  windows: readonly RateLimitWindow[]
  cost: number
  blockMs: number
  forced: boolean
  asked: Asked[]
}

/** One key, on its terms. */
export interface Asked {
  key: string
  count: number
  terms: Terms
  answer: RateLimitAnswer
}

export interface BatchSettings {
  /** Takes the cost in any case. @default false */
  forced?: boolean
  /**
   * Identical questions, with no other of their key in between, are asked once for so many calls; those that came first
   * are admitted first. @default true
   */
  merge?: boolean
}

/** Questions that travel together. They have gone through `requireQuestion`. */
export class RateLimitBatch {
  /** In the order given. */
  readonly asked: Asked[] = []
  /** Where a key is asked on several, they are in its order. */
  readonly terms: Terms[] = []
  readonly #questions: readonly RateLimitQuestion[]
  /** Of each question: where it is asked, and the calls that were asked for there before. */
  readonly #places: Asked[] = []
  readonly #before: number[] = []

  constructor(questions: readonly RateLimitQuestion[], { forced = false, merge = true }: BatchSettings = {}) {
    this.#questions = questions
    const latest = new Map<string, Asked>()
    for (const question of questions) {
      const { key, count } = question
      const before = latest.get(key)
      let asked = merge ? before : undefined
      if (asked === undefined || !isSame(asked, question)) {
        const terms = this.#termsOf(question, forced, before?.terms)
        asked = { key, count: 0, terms, answer: unanswered }
        latest.set(key, asked)
        terms.asked.push(asked)
        this.asked.push(asked)
      }
      this.#places.push(asked)
      this.#before.push(asked.count)
      asked.count += count
    }
  }

  /** One for each question, once all that was asked is answered. */
  answers(): RateLimitAnswer[] {
    return this.#questions.map((question, index) =>
      partOf(this.#places[index]!, this.#before[index]!, question.count)
    )
  }

  #termsOf(
    { windows, cost, blockMs }: RateLimitQuestion,
    forced: boolean,
    notBefore: Terms | undefined,
  ): Terms {
    for (let at = notBefore === undefined ? 0 : this.terms.indexOf(notBefore); at < this.terms.length; at++) {
      const terms = this.terms[at]!
      if (terms.windows === windows && terms.cost === cost && terms.blockMs === blockMs) return terms
    }
    const terms: Terms = { windows, cost, blockMs, forced, asked: [] }
    this.terms.push(terms)
    return terms
  }
}

/** `decide` of a store that asks elsewhere: what arrives while it waits shares the next trip, identical calls as one. */
export function decidingTogether(
  send: (batch: RateLimitBatch) => Promise<RateLimitAnswer[]>,
  options: BatchOptions,
): RateLimitStore['decide'] {
  const ask = batched(async (calls: RateLimitQuestion[][]) => {
    const answers = await send(new RateLimitBatch(calls.flat()))
    let at = 0
    return calls.map(({ length }) => answers.slice(at, at += length))
  }, options)
  return (questions) => {
    try {
      questions.forEach(requireQuestion)
      return questions.length === 0 ? Promise.resolve([]) : ask(questions)
    } catch (error) {
      return Promise.reject(error)
    }
  }
}

export function termNumbers({ windows, cost, blockMs, forced }: Terms): number[] {
  return [cost, forced ? 1 : 0, blockMs * 1_000, windows.length, ...windowNumbers(windows)]
}

/** What a store decided on one key: `numbers` has the states of the windows from `at` on. */
export interface Decided {
  nowUs: number
  admitted: number
  blockedUs: number
  numbers: readonly number[]
  at: number
}

/** Gives the place behind the states. */
export function answer(asked: Asked, { nowUs, admitted, blockedUs, numbers, at }: Decided): number {
  const { windows, cost } = asked.terms
  const answers: RateLimitWindowAnswer[] = []
  for (const window of windows) {
    const { width, decide } = algorithms[window.algorithm]
    const state: WindowState = width === 1 ? [numbers[at]!] : numbers.slice(at, at + width)
    at += width
    // Asked for no call, the formulas say how things stand.
    const { remaining, resetUs, retryAfterUs } = decide(window, state, nowUs, cost, 0)
    answers.push({
      remaining,
      resetMs: Math.ceil(resetUs / 1_000),
      retryAfterMs: Math.ceil(retryAfterUs / 1_000),
    })
  }
  asked.answer = { admitted, windows: answers, blockedMs: Math.ceil(blockedUs / 1_000) }
  return at
}

/** By the windows themselves: a limiter asks with the same ones each time. */
const known = new WeakMap<readonly RateLimitWindow[], readonly number[]>()

/** Of each window, its kind, unit and most tokens. `TypeError` or `RangeError` for windows that make no sense. */
export function windowNumbers(windows: readonly RateLimitWindow[]): readonly number[] {
  let numbers = known.get(windows)
  if (numbers === undefined) known.set(windows, numbers = numbersOf(windows))
  return numbers
}

/** `TypeError` or `RangeError` for what the store could not take: it would fail whoever asks at the same time. */
export function requireQuestion({ key, windows, cost, count, blockMs }: RateLimitQuestion): void {
  requireKey(key)
  windowNumbers(windows)
  requireWhole('cost', cost, 1, most)
  requireWhole('count', count, 0, most / cost)
  requireWhole('blockMs', blockMs, 0, most / 1_000)
}

export function requireKey(key: string): void {
  if (
    typeof key === 'string' && key !== '' && key.length <= longestKey && !key.includes('\0') &&
    key.isWellFormed()
  ) return
  throw new TypeError(
    `Cannot ask for a rate limit: key must be a well-formed text of 1 to ${longestKey} characters without NUL, ` +
      `received ${JSON.stringify(key)}`,
  )
}

export function requireBlock(ms: number): void {
  requireWhole('the milliseconds of a block', ms, 0, most / 1_000)
}

function numbersOf(windows: readonly RateLimitWindow[]): number[] {
  if (windows.length === 0) throw new TypeError('Cannot ask for a rate limit: it has no windows')
  return windows.flatMap((window) => {
    const { algorithm, quota, windowMs, burst } = window
    if (!Object.hasOwn(algorithms, algorithm)) {
      throw new TypeError(
        `Cannot ask for a rate limit: algorithm must be gcra, fixed or sliding, received ${algorithm}`,
      )
    }
    requireWhole('quota', quota, 1)
    requireWhole('windowMs', windowMs, 1, most / 1_000)
    if (algorithm === 'fixed') return [algorithms.fixed.kind, windowMs * 1_000, quota]
    if (algorithm === 'sliding') return [algorithms.sliding.kind, sliceUs(window), quota]
    const intervalUs = emissionIntervalUs(window)
    requireWhole('burst', burst, 1, most / intervalUs)
    return [algorithms.gcra.kind, intervalUs, burst]
  })
}

function requireWhole(name: string, value: number, least: number, atMost = Number.MAX_SAFE_INTEGER): void {
  if (Number.isSafeInteger(value) && value >= least && value <= atMost) return
  throw new RangeError(
    `Cannot ask for a rate limit: ${name} must be a whole number from ${least} to ${Math.floor(atMost)}, ` +
      `received ${value}`,
  )
}

/** Whoever asks how things stand is told before or after the others, not among them. */
function isSame({ count, terms }: Asked, question: RateLimitQuestion): boolean {
  return terms.windows === question.windows && terms.cost === question.cost &&
    terms.blockMs === question.blockMs &&
    (count === 0) === (question.count === 0)
}

function partOf({ answer, terms }: Asked, before: number, count: number): RateLimitAnswer {
  const admitted = Math.min(count, Math.max(0, answer.admitted - before))
  const later = count === 0 ? 0 : Math.max(0, answer.admitted - before - admitted) * terms.cost
  if (later === 0) return admitted === answer.admitted ? answer : { ...answer, admitted }
  return {
    admitted,
    windows: answer.windows.map(({ remaining, resetMs, retryAfterMs }) => ({
      remaining: remaining + later,
      resetMs,
      retryAfterMs,
    })),
    // A block began with a later call.
    blockedMs: 0,
  }
}

const unanswered: RateLimitAnswer = { admitted: 0, windows: [], blockedMs: 0 }

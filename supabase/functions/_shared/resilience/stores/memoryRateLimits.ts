/**
 * Rate limits in the memory of one isolate, which no other sees: for tests, for a single process, and for this isolate's
 * share while the store is away. No timer waits for a key: what is over is forgotten while new keys come.
 */
import { coarseClock } from '../coarseClock.ts'
import { answerOf, decide, decideWindow, stateWidth, type WindowDecision } from '../limits/rateLimitDecide.ts'
import { systemTimers, type Timers } from '../timers.ts'
import type {
  InstantRateLimitStore,
  RateLimitAnswer,
  RateLimitQuestion,
  RateLimitWindow,
} from './rateLimitStore.ts'

export interface MemoryRateLimitOptions {
  /** Keys at most. Beyond them one goes that would soon be over, and begins anew if it comes again. @default 100_000 */
  maxKeys?: number
  /** @default the system's, which no change of the wall clock moves */
  timers?: Timers
}

/**
 * The states of all windows, if anything is counted; then until when the key is blocked, and when all of it is over, in
 * microseconds. One array of numbers, written over in place: what lives long is not to be collected at every call.
 */
type Entry = number[]

/** Keys looked at for each new one, so that those that are over leave faster than others come. */
const sample = 4

/** Whoever called a moment ago often calls again. */
const graceUs = 1_000_000

/** `RangeError` for a bound that is no positive whole number. */
export class MemoryRateLimitStore implements InstantRateLimitStore {
  readonly #entries = new Map<string, Entry>()
  readonly #maxKeys: number
  readonly #now: () => number
  #round: Iterator<[string, Entry]> | undefined

  constructor({ maxKeys = 100_000, timers = systemTimers }: MemoryRateLimitOptions = {}) {
    if (!Number.isSafeInteger(maxKeys) || maxKeys < 1) {
      throw new RangeError(
        `Cannot keep rate limits in memory: maxKeys must be a positive whole number, received ${maxKeys}`,
      )
    }
    this.#maxKeys = maxKeys
    this.#now = coarseClock(timers)
  }

  /** Keys that are remembered, some of which may be over. */
  get size(): number {
    return this.#entries.size
  }

  decide(questions: RateLimitQuestion[]): Promise<RateLimitAnswer[]> {
    return settled(() => questions.map((question) => this.decideNow(question)))
  }

  decideNow(question: RateLimitQuestion): RateLimitAnswer {
    return this.#decide(question, false)
  }

  penalize(question: RateLimitQuestion): Promise<RateLimitAnswer> {
    return settled(() => this.penalizeNow(question))
  }

  penalizeNow(question: RateLimitQuestion): RateLimitAnswer {
    return this.#decide(question, true)
  }

  block(key: string, ms: number): Promise<void> {
    return settled(() => this.blockNow(key, ms))
  }

  blockNow(key: string, ms: number): void {
    const now = this.#nowUs()
    const until = now + ms * 1_000
    const entry = this.#entries.get(key)
    if (entry === undefined) return this.#add(key, [until, until], now)
    entry[entry.length - 2] = until
    entry[entry.length - 1] = Math.max(entry.at(-1)!, until)
  }

  reset(key: string): Promise<void> {
    return settled(() => this.resetNow(key))
  }

  resetNow(key: string): void {
    this.#entries.delete(key)
  }

  close(): Promise<void> {
    this.#entries.clear()
    return Promise.resolve()
  }

  #decide(question: RateLimitQuestion, forced: boolean): RateLimitAnswer {
    const { key, windows, cost, count, blockMs } = question
    const now = this.#nowUs()
    const entry = this.#entries.get(key)
    let blockedUs = entry === undefined ? 0 : Math.max(0, entry[entry.length - 2]! - now)
    const asked = blockedUs > 0 && !forced ? 0 : count
    const counted = entry === undefined || entry.length === 2 ? undefined : entry
    const decisions = windows.length === 1
      ? [decideWindow(windows[0]!, counted, now, cost, asked, forced)]
      : decide(windows, counted && statesIn(counted, windows), now, cost, asked, forced)
    const { admitted } = decisions[0]!
    if (admitted > 0) this.#keep(key, entry, decisions, now)
    if (admitted < count && blockMs > 0 && blockedUs === 0) {
      blockedUs = blockMs * 1_000
      this.blockNow(key, blockMs)
    }
    return answerOf(decisions, blockedUs)
  }

  #keep(key: string, entry: Entry | undefined, decisions: readonly WindowDecision[], now: number): void {
    const blockedUntil = entry === undefined ? 0 : entry[entry.length - 2]!
    let expiresAt = blockedUntil
    for (const { resetUs } of decisions) expiresAt = Math.max(expiresAt, now + resetUs)
    if (entry === undefined || entry.length === 2) {
      const made: Entry = []
      for (const { state } of decisions) made.push(...state)
      made.push(blockedUntil, expiresAt)
      if (entry === undefined) this.#add(key, made, now)
      else this.#entries.set(key, made)
      return
    }
    let place = 0
    for (const { state } of decisions) {
      for (let index = 0; index < state.length; index++) entry[place++] = state[index]!
    }
    entry[entry.length - 1] = expiresAt
  }

  #nowUs(): number {
    return Math.floor(this.#now() * 1_000)
  }

  #add(key: string, entry: Entry, now: number): void {
    this.#forget(now)
    this.#entries.set(key, entry)
  }

  /** Goes round the keys, a few at a time; the bound is kept at the cost of the one that is over first among those. */
  #forget(now: number): void {
    let first: string | undefined
    let least = Infinity
    const looks = Math.min(sample, this.#entries.size)
    for (let look = 0; look < looks; look++) {
      let next = (this.#round ??= this.#entries.entries()).next()
      if (next.done) {
        next = (this.#round = this.#entries.entries()).next()
        if (next.done) break
      }
      const [key, entry] = next.value
      const expiresAt = entry.at(-1)!
      if (expiresAt + graceUs <= now) this.#entries.delete(key)
      else if (expiresAt < least) [first, least] = [key, expiresAt]
    }
    if (this.#entries.size >= this.#maxKeys && first !== undefined) this.#entries.delete(first)
  }
}

function statesIn(entry: Entry, windows: readonly RateLimitWindow[]): number[][] {
  let end = 0
  return windows.map(({ algorithm }) => entry.slice(end, end += stateWidth[algorithm]))
}

/** What the work returns or throws, as a promise. */
async function settled<T>(work: () => T): Promise<T> {
  return await work()
}

/**
 * Keys that were refused, remembered in this isolate: until its time is over, such a key is refused again without asking
 * the store. Others can only have taken more meanwhile, so the store would refuse as well; it would not if the key was
 * reset or unblocked elsewhere, which is why nothing stays longer than `maxAgeMs`.
 */
import { coarseClock } from '../coarseClock.ts'
import type { RateLimitAnswer } from '../stores/rateLimitStore.ts'
import type { Timers } from '../timers.ts'

export interface DenyCacheOptions {
  /** Longest a refusal is repeated without asking. 0: never. */
  maxAgeMs: number
  /** Keys at most; beyond them the oldest refusals are asked for again. @default 10_000 */
  maxKeys?: number
  timers: Timers
}

interface Refusal {
  answer: RateLimitAnswer
  /** What the refused call wanted; one that wants less may pass. */
  cost: number
  refusedAt: number
  until: number
}

export class DenyCache {
  readonly #refusals = new Map<string, Refusal>()
  readonly #maxAgeMs: number
  readonly #maxKeys: number
  readonly #now: () => number

  constructor({ maxAgeMs, maxKeys = 10_000, timers }: DenyCacheOptions) {
    this.#maxAgeMs = maxAgeMs
    this.#maxKeys = maxKeys
    this.#now = coarseClock(timers)
  }

  get size(): number {
    return this.#refusals.size
  }

  /** What the store would say of a call that is refused for certain; undefined when it has to be asked. */
  find(key: string, cost: number): RateLimitAnswer | undefined {
    if (this.#refusals.size === 0) return undefined
    const refusal = this.#refusals.get(key)
    if (refusal === undefined) return undefined
    const now = this.#now()
    if (refusal.until <= now) {
      this.#refusals.delete(key)
      return undefined
    }
    return cost < refusal.cost ? undefined : laterBy(now - refusal.refusedAt, refusal.answer)
  }

  /** Remembers the answer to a call of that cost if it refuses the next one as well. */
  note(key: string, cost: number, answer: RateLimitAnswer): void {
    const { blockedMs, windows } = answer
    const refusedMs = windows.reduce((most, { retryAfterMs }) => Math.max(most, retryAfterMs), blockedMs)
    const ageMs = Math.min(refusedMs, this.#maxAgeMs)
    if (ageMs <= 0) return
    const now = this.#now()
    this.#refusals.delete(key)
    if (this.#refusals.size >= this.#maxKeys) {
      const [oldest] = this.#refusals.keys()
      this.#refusals.delete(oldest!)
    }
    this.#refusals.set(key, {
      answer,
      // A block refuses every call, but may be over before the cost has come back.
      cost: blockedMs >= ageMs ? 0 : cost,
      refusedAt: now,
      until: now + ageMs,
    })
  }

  forget(key: string): void {
    this.#refusals.delete(key)
  }
}

/** The answer as it would be so much later, had nobody called; `remaining` stays what it was. */
export function laterBy(ms: number, answer: RateLimitAnswer): RateLimitAnswer {
  const left = (then: number) => Math.max(0, Math.ceil(then - ms))
  return {
    admitted: 0,
    windows: answer.windows.map(({ remaining, resetMs, retryAfterMs }) => ({
      remaining,
      resetMs: left(resetMs),
      retryAfterMs: left(retryAfterMs),
    })),
    blockedMs: left(answer.blockedMs),
  }
}

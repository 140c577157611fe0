/**
 * Limits that hold across isolates: how often a key may call, counted in one store by that store's clock. Refused keys
 * are remembered here and refused again without asking; while the store is away, the limiter goes on as it was told.
 */
import { createLogger, type Logger } from '../observability/logger.ts'
import { DenyCache } from './limits/denyCache.ts'
import { DecisionCounters } from './limits/rateLimitCounters.ts'
import {
  type DecidedBy,
  decisionFrom,
  forecastFrom,
  type RateLimitDecision,
  refusalOf,
  uncounted,
} from './limits/rateLimitDecision.ts'
import { RateLimitKeys } from './limits/rateLimitKey.ts'
import { type LimiterSettings, type RateLimiterOptions, resolveLimiter } from './limits/rateLimitOptions.ts'
import { largestCost, longestWindowMs, shareOf } from './limits/rateLimitPolicy.ts'
import { MemoryRateLimitStore } from './stores/memoryRateLimits.ts'
import type {
  InstantRateLimitStore,
  RateLimitAnswer,
  RateLimitQuestion,
  RateLimitStore,
  RateLimitWindow,
} from './stores/rateLimitStore.ts'
import { StoreWatch } from './storeWatch.ts'
import { TokenLeases } from './limits/tokenLeases.ts'

export {
  type RateLimitDecision,
  RateLimitedError,
  refusalOf,
  type WindowStanding,
} from './limits/rateLimitDecision.ts'
export type { OnUnavailable, RateLimiterOptions } from './limits/rateLimitOptions.ts'
export type { Policy, PolicyWindow } from './limits/rateLimitPolicy.ts'
export type { Algorithm, RateLimitStore } from './stores/rateLimitStore.ts'

export interface RateLimitCall {
  /** Tokens it takes, from 1 to what there is at once. @default 1 */
  cost?: number
  /** Asks the store in the limiter's place, so that a question can travel with others. Only called if it has to be asked. */
  ask?: (question: RateLimitQuestion) => Promise<RateLimitAnswer>
}

/**
 * Keys are whom it counts: any text that is not empty. Long ones and those with control characters are counted by their
 * SHA-256; others stand in the store as they are, so digest secrets. Every method rejects with `RangeError` or `TypeError`
 * for a cost or key that makes no sense.
 */
export interface RateLimiter {
  readonly name: string
  readonly windows: readonly RateLimitWindow[]
  /** Takes the cost from all windows, or refuses and takes nothing. A refusal is a value. */
  consume(key: string, call?: RateLimitCall): Promise<RateLimitDecision>
  /** Rejects with `RateLimitedError`, or with `SERVICE_UNAVAILABLE` where the store is away and `onUnavailable` is `closed`. */
  require(key: string, call?: RateLimitCall): Promise<RateLimitDecision>
  /** What `consume` would say, which takes nothing. Tokens that isolates have leased count as taken. */
  peek(key: string, call?: RateLimitCall): Promise<RateLimitDecision>
  /** Takes so many tokens also where there are fewer: the key then waits until they are back. Says how a next call stands. */
  penalize(key: string, tokens: number): Promise<RateLimitDecision>
  /** Refuses the key from now on, in place of an earlier block; 0 ends a block. Rejects when the store is away. */
  block(key: string, ms: number): Promise<void>
  /** Forgets what was counted, and ends a block. Elsewhere it is seen within `denyCacheMs`. Rejects when the store is away. */
  reset(key: string): Promise<void>

  /** The refusal of a call that needs no question; undefined when it has to be asked. */
  denied(key: string, cost?: number): RateLimitDecision | undefined
  questionOf(key: string, cost?: number): RateLimitQuestion
  /** The decision on one of the answered calls, by default the first. With its question, a refusal is remembered. */
  decisionOf(answer: RateLimitAnswer, index?: number, question?: RateLimitQuestion): RateLimitDecision
}

/** How long nobody asks a store that is away. */
const pauseMs = 1_000
const mostPenalty = 1_000_000
const plainCall: RateLimitCall = {}
/** How often a call waits for others' tokens: where few are admitted at a time, the rest had better ask by themselves. */
const mostRounds = 3

/** `TypeError` and `RangeError` for options out of range. Opens nothing. */
export function createRateLimiter(options: RateLimiterOptions): RateLimiter {
  return new Limiter(resolveLimiter(options), options.log ?? createLogger())
}

class Limiter implements RateLimiter {
  readonly name: string
  readonly windows: readonly RateLimitWindow[]
  readonly #settings: LimiterSettings
  readonly #keys: RateLimitKeys
  readonly #largestCost: number
  readonly #counters: DecisionCounters
  readonly #denials: DenyCache
  readonly #leases: TokenLeases | undefined
  readonly #watch: StoreWatch
  #store: RateLimitStore | undefined
  /** The store where it needs no trip. */
  #instant: InstantRateLimitStore | undefined
  /** What this isolate grants while the store is away. */
  #local:
    | { store: MemoryRateLimitStore; windows: readonly RateLimitWindow[]; largestCost: number }
    | undefined

  constructor(settings: LimiterSettings, log: Pick<Logger, 'info' | 'warn' | 'error'>) {
    const { name, windows, store, denyCacheMs, storeTimeoutMs, lease, timers } = settings
    this.#settings = settings
    this.name = name
    this.windows = windows
    this.#keys = new RateLimitKeys(name, windows)
    this.#largestCost = largestCost(windows)
    this.#counters = new DecisionCounters(name)
    this.#denials = new DenyCache({ maxAgeMs: denyCacheMs, timers })
    this.#leases = lease === undefined ? undefined : new TokenLeases(lease, timers)
    this.#watch = new StoreWatch(store, {
      what: 'the store of rate limits',
      timeoutMs: storeTimeoutMs,
      pauseMs,
      timers,
      log,
    })
    if (typeof store !== 'function') this.#opened(store)
  }

  consume(key: string, call: RateLimitCall = plainCall): Promise<RateLimitDecision> {
    try {
      const question = this.questionOf(key, call.cost)
      if (this.#instant !== undefined && call.ask === undefined) {
        return Promise.resolve(this.#decided(question, this.#instant.decideNow(question), 'memory'))
      }
      const denial = this.#denials.find(question.key, question.cost)
      if (denial !== undefined) return Promise.resolve(this.#decided(question, denial, 'deny-cache'))
      return this.#leases === undefined
        ? this.#ask(question, call.ask)
        : this.#lease(this.#leases, question, call.ask)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  async require(key: string, call?: RateLimitCall): Promise<RateLimitDecision> {
    const decision = await this.consume(key, call)
    if (!decision.allowed) throw refusalOf(decision)
    return decision
  }

  async peek(key: string, { cost, ask }: RateLimitCall = {}): Promise<RateLimitDecision> {
    const question = { ...this.questionOf(key, cost), count: 0 }
    return await this.#watch.ask(
      () => ask?.(question) ?? this.#decide(question),
      (answer) => forecastFrom(this.windows, answer, this.#decider),
      () => this.#alone(question, { forecast: true }),
    )
  }

  async penalize(key: string, tokens: number): Promise<RateLimitDecision> {
    if (!Number.isSafeInteger(tokens) || tokens < 1 || tokens > mostPenalty) {
      throw new RangeError(
        `Cannot penalize a key of "${this.name}": tokens must be a whole number from 1 to ${mostPenalty}, ` +
          `received ${tokens}`,
      )
    }
    const question = { ...this.questionOf(key), count: tokens, blockMs: 0 }
    this.#leases?.drop(question.key)
    return await this.#watch.ask(
      async () => (await this.#open()).penalize(question),
      (answer) => {
        if (this.#instant === undefined) this.#denials.note(question.key, 1, answer)
        return forecastFrom(this.windows, answer, this.#decider)
      },
      () => this.#alone(question, { forecast: true, forced: true }),
    )
  }

  async block(key: string, ms: number): Promise<void> {
    if (!Number.isSafeInteger(ms) || ms < 0 || ms > longestWindowMs) {
      throw new RangeError(
        `Cannot block a key of "${this.name}": ms must be a whole number from 0 to ${longestWindowMs}, received ${ms}`,
      )
    }
    const { key: whole } = this.questionOf(key)
    this.#forget(whole)
    if (this.#settings.onUnavailable === 'local') this.#locally().store.blockNow(whole, ms)
    const store = await this.#open()
    await store.block(whole, ms)
    this.#forget(whole)
  }

  async reset(key: string): Promise<void> {
    const { key: whole } = this.questionOf(key)
    this.#forget(whole)
    this.#local?.store.resetNow(whole)
    const store = await this.#open()
    await store.reset(whole)
    // A question that was under way may have brought them back.
    this.#forget(whole)
  }

  denied(key: string, cost?: number): RateLimitDecision | undefined {
    const question = this.questionOf(key, cost)
    const denial = this.#denials.find(question.key, question.cost)
    return denial === undefined ? undefined : this.#decided(question, denial, 'deny-cache')
  }

  questionOf(key: string, cost = 1): RateLimitQuestion {
    if (typeof key !== 'string' || key === '') {
      throw new TypeError(
        `Cannot ask the rate limit "${this.name}": key must be a text, received ${key || "''"}`,
      )
    }
    if (!Number.isSafeInteger(cost) || cost < 1 || cost > this.#largestCost) {
      throw new RangeError(
        `Cannot ask the rate limit "${this.name}": cost must be a whole number from 1 to ${this.#largestCost}, ` +
          `received ${cost}`,
      )
    }
    const { windows, blockMs } = this.#settings
    return { key: this.#keys.of(key), windows, cost, count: 1, blockMs }
  }

  decisionOf(answer: RateLimitAnswer, index?: number, question?: RateLimitQuestion): RateLimitDecision {
    index ??= 0
    if (question !== undefined && index >= answer.admitted) {
      this.#denials.note(question.key, question.cost, answer)
    }
    return this.#count(decisionFrom(this.windows, answer, index, this.#decider))
  }

  #ask(question: RateLimitQuestion, ask: RateLimitCall['ask']): Promise<RateLimitDecision> {
    return this.#watch.ask(
      () => ask === undefined ? this.#decide(question) : ask(question),
      (answer) => this.decisionOf(answer, 0, question),
      () => this.#alone(question),
    )
  }

  /**
   * From the tokens that are here. Where there are none, one call takes some from the store, for the calls that wait for
   * them as well.
   */
  async #lease(
    leases: TokenLeases,
    question: RateLimitQuestion,
    ask: RateLimitCall['ask'],
  ): Promise<RateLimitDecision> {
    const { key, cost } = question
    let held = leases.take(key, cost)
    let behind = 0
    for (let round = 0; held === undefined && round < mostRounds && leases.areTaken(key); round++) {
      behind = await leases.arrival(key)
      held = leases.take(key, cost)
    }
    if (held !== undefined) return this.#decided(question, held, 'lease')
    const denial = this.#denials.find(key, cost)
    if (denial !== undefined) return this.#decided(question, denial, 'deny-cache')
    const count = Math.floor(leases.tokens / cost)
    if (count < 2 || leases.areTaken(key)) return await this.#ask(question, ask)
    const taken = leases.taking(key, this.#take(leases, question, count + behind, ask))
    return await taken ?? await this.#ask(question, ask)
  }

  /** Undefined when nothing was admitted: that begins no block, since it would also be so where only some were admitted. */
  #take(
    leases: TokenLeases,
    question: RateLimitQuestion,
    count: number,
    ask: RateLimitCall['ask'],
  ): Promise<RateLimitDecision | undefined> {
    const { key, cost } = question
    const askedAt = this.#settings.timers.now()
    const many = { ...question, count, blockMs: 0 }
    return this.#watch.ask<RateLimitAnswer, RateLimitDecision | undefined>(
      () => ask === undefined ? this.#decide(many) : ask(many),
      (answer) => {
        if (answer.admitted === 0) {
          return question.blockMs === 0 ? this.decisionOf(answer, 0, question) : undefined
        }
        const held = leases.put(key, (answer.admitted - 1) * cost, this.windows, answer, askedAt)
        return this.#decided(question, held, 'store')
      },
      () => this.#alone(question),
    )
  }

  async #decide(question: RateLimitQuestion): Promise<RateLimitAnswer> {
    const store = this.#store ?? await this.#open()
    const [answer] = await store.decide([question])
    return answer!
  }

  async #open(): Promise<RateLimitStore> {
    const { store } = this.#settings
    return this.#store ?? this.#opened(await (store as () => Promise<RateLimitStore>)())
  }

  #opened(store: RateLimitStore): RateLimitStore {
    this.#store = store
    if ('decideNow' in store) this.#instant = store as InstantRateLimitStore
    return store
  }

  get #decider(): DecidedBy {
    return this.#instant === undefined ? 'store' : 'memory'
  }

  /** While the store is away. `forecast` says how a next call stands. */
  #alone(
    question: RateLimitQuestion,
    { forecast = false, forced = false }: { forecast?: boolean; forced?: boolean } = {},
  ): RateLimitDecision {
    const { onUnavailable } = this.#settings
    let decision
    if (onUnavailable === 'local') {
      const { store, windows, largestCost } = this.#locally()
      // What costs more than the share takes all of it.
      const asked = { ...question, windows, cost: Math.min(question.cost, largestCost) }
      const answer = forced ? store.penalizeNow(asked) : store.decideNow(asked)
      decision = forecast ? forecastFrom(windows, answer, 'local') : decisionFrom(windows, answer, 0, 'local')
    } else decision = uncounted(this.windows, onUnavailable === 'open', pauseMs)
    return forecast ? decision : this.#count(decision)
  }

  #locally() {
    if (this.#local === undefined) {
      const windows = shareOf(this.windows, this.#settings.localShare)
      const store = new MemoryRateLimitStore({ timers: this.#settings.timers })
      this.#local = { store, windows, largestCost: largestCost(windows) }
    }
    return this.#local
  }

  #decided(question: RateLimitQuestion, answer: RateLimitAnswer, decidedBy: DecidedBy): RateLimitDecision {
    return this.#count(decisionFrom(question.windows, answer, 0, decidedBy))
  }

  #count(decision: RateLimitDecision): RateLimitDecision {
    this.#counters.count(decision)
    return decision
  }

  #forget(key: string): void {
    this.#denials.forget(key)
    this.#leases?.drop(key)
  }
}

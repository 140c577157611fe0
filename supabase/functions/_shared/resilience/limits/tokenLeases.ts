/**
 * Tokens that this isolate took from the store ahead, and gives to the next calls without asking. They are counted
 * already, so all isolates together never give more than the store admitted; what is not used in time is lost.
 */
import { laterBy } from './denyCache.ts'
import type { RateLimitAnswer, RateLimitWindow } from '../stores/rateLimitStore.ts'
import type { Timers } from '../timers.ts'

export interface LeaseOptions {
  /** Taken at once, for one key. */
  tokens: number
  /** How long they may be given away. @default 1_000 */
  maxAgeMs?: number
}

interface Lease {
  tokens: number
  answer: RateLimitAnswer
  takenAt: number
  until: number
}

/** Tokens that are being taken for a key, and the calls that wait for some of them. */
interface Taking {
  taken: Promise<unknown>
  waiting: number
}

/** Keys at most; beyond them the oldest tokens are lost. */
const maxKeys = 10_000

export class TokenLeases {
  readonly tokens: number
  readonly #maxAgeMs: number
  readonly #timers: Pick<Timers, 'now'>
  readonly #leases = new Map<string, Lease>()
  readonly #taking = new Map<string, Taking>()

  constructor({ tokens, maxAgeMs }: Required<LeaseOptions>, timers: Pick<Timers, 'now'>) {
    this.tokens = tokens
    this.#maxAgeMs = maxAgeMs
    this.#timers = timers
  }

  get size(): number {
    return this.#leases.size
  }

  /** How the key stands after this call; undefined when there are not that many tokens. */
  take(key: string, cost: number): RateLimitAnswer | undefined {
    const lease = this.#leases.get(key)
    if (lease === undefined) return undefined
    const now = this.#timers.now()
    if (lease.until <= now) this.#leases.delete(key)
    if (lease.until <= now || lease.tokens < cost) return undefined
    lease.tokens -= cost
    if (lease.tokens === 0) this.#leases.delete(key)
    return standing(lease, now)
  }

  /** Whether tokens for the key are on their way. */
  areTaken(key: string): boolean {
    return this.#taking.has(key)
  }

  /** Resolves when they are here, to the number of calls that waited behind this one. */
  async arrival(key: string): Promise<number> {
    const taking = this.#taking.get(key)!
    taking.waiting++
    await taking.taken
    return --taking.waiting
  }

  /** Others wait for `taken`, which puts the tokens here. */
  async taking<T>(key: string, taken: Promise<T>): Promise<T> {
    this.#taking.set(key, { taken, waiting: 0 })
    try {
      return await taken
    } finally {
      this.#taking.delete(key)
    }
  }

  /**
   * Keeps what the store admitted beyond the call that asked. `askedAt` is when it was asked: a fixed window's tokens
   * are not carried into the next one.
   */
  put(
    key: string,
    tokens: number,
    windows: readonly RateLimitWindow[],
    answer: RateLimitAnswer,
    askedAt: number,
  ) {
    const ageMs = windows.reduce(
      (least, { algorithm }, index) =>
        algorithm === 'fixed' ? Math.min(least, answer.windows[index]!.resetMs) : least,
      this.#maxAgeMs,
    )
    const lease = { tokens, answer, takenAt: askedAt, until: askedAt + ageMs }
    this.#leases.delete(key)
    if (tokens > 0) {
      if (this.#leases.size >= maxKeys) {
        const [oldest] = this.#leases.keys()
        this.#leases.delete(oldest!)
      }
      this.#leases.set(key, lease)
    }
    return standing(lease, this.#timers.now())
  }

  drop(key: string): void {
    this.#leases.delete(key)
  }
}

/** What is left here counts as left. */
function standing({ tokens, answer, takenAt }: Lease, now: number): RateLimitAnswer {
  const { windows, blockedMs } = laterBy(now - takenAt, answer)
  return {
    admitted: 1,
    windows: windows.map((window) => ({ ...window, remaining: window.remaining + tokens, retryAfterMs: 0 })),
    blockedMs,
  }
}

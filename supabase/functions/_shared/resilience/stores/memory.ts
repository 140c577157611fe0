/**
 * Idempotency keys in the memory of one isolate, which no other sees: for tests, for a single process, and for routes
 * that would rather go on than refuse while their store is away.
 */
import { type Clock, systemClock } from '../../core/clock.ts'
import { HoldfastError } from '../../core/errors.ts'
import {
  type Claim,
  type ClaimOptions,
  dayMs,
  type IdempotencyRequest,
  type IdempotencyStore,
  type StoredAnswer,
} from './store.ts'

export interface MemoryStoreOptions {
  /** Keys at most; beyond them the oldest answers are forgotten. @default 10_000 */
  maxKeys?: number
  now?: Clock
}

interface Entry {
  fingerprint: string
  effectId: string
  token: number
  attempt: number
  leasedUntil: number
  expiresAt: number
  answer?: StoredAnswer
}

/** `RangeError` for a bound that is no positive whole number. */
export class MemoryIdempotencyStore implements IdempotencyStore {
  readonly #entries = new Map<string, Entry>()
  readonly #maxKeys: number
  readonly #now: Clock
  #lastToken = 0

  constructor({ maxKeys = 10_000, now = systemClock }: MemoryStoreOptions = {}) {
    if (!Number.isSafeInteger(maxKeys) || maxKeys < 1) {
      throw new RangeError(
        `Cannot keep keys in memory: maxKeys must be a positive whole number, received ${maxKeys}`,
      )
    }
    this.#maxKeys = maxKeys
    this.#now = now
  }

  claim(request: IdempotencyRequest, options: ClaimOptions): Promise<Claim> {
    return settled(() => this.#claim(request, options))
  }

  complete(request: IdempotencyRequest, token: number, answer: StoredAnswer, ttlMs: number) {
    return settled(() => {
      const entry = this.#held(request, token)
      if (entry === undefined) return false
      entry.answer = structuredClone(answer)
      entry.expiresAt = this.#now() + ttlMs
      return true
    })
  }

  release(request: IdempotencyRequest, token: number): Promise<boolean> {
    return settled(() => {
      const entry = this.#held(request, token)
      if (entry === undefined) return false
      entry.leasedUntil = this.#now()
      return true
    })
  }

  /** Whether the key is known here: running, given up or answered. */
  has({ id }: IdempotencyRequest): boolean {
    return (this.#entries.get(id)?.expiresAt ?? 0) > this.#now()
  }

  close(): Promise<void> {
    this.#entries.clear()
    return Promise.resolve()
  }

  #claim({ id, fingerprint }: IdempotencyRequest, { leaseMs, ttlMs = dayMs }: ClaimOptions): Claim {
    const now = this.#now()
    const known = this.#live(id)
    if (known !== undefined) {
      if (known.fingerprint !== fingerprint) return { outcome: 'mismatch' }
      if (known.answer !== undefined) return { outcome: 'replay', answer: structuredClone(known.answer) }
      if (known.leasedUntil > now) return { outcome: 'in_progress', retryAfterMs: known.leasedUntil - now }
    } else this.#makeRoom()
    const attempt = (known?.attempt ?? 0) + 1
    const effectId = known?.effectId ?? crypto.randomUUID()
    const token = ++this.#lastToken
    const leasedUntil = now + leaseMs
    // Behind all others again: the oldest are the first to go.
    this.#entries.delete(id)
    this.#entries.set(id, {
      fingerprint,
      effectId,
      token,
      attempt,
      leasedUntil,
      expiresAt: leasedUntil + ttlMs,
    })
    return { outcome: 'claimed', effectId, token, attempt, resumed: attempt > 1 }
  }

  #live(id: string): Entry | undefined {
    const entry = this.#entries.get(id)
    if (entry === undefined || entry.expiresAt > this.#now()) return entry
    this.#entries.delete(id)
  }

  #held({ id }: IdempotencyRequest, token: number): Entry | undefined {
    const entry = this.#entries.get(id)
    return entry?.token === token && entry.answer === undefined ? entry : undefined
  }

  /** An answer may be forgotten, a request that runs may not. */
  #makeRoom(): void {
    if (this.#entries.size < this.#maxKeys) return
    const now = this.#now()
    for (const [id, { answer, leasedUntil, expiresAt }] of this.#entries) {
      if (answer === undefined && leasedUntil > now && expiresAt > now) continue
      this.#entries.delete(id)
      return
    }
    throw new HoldfastError(
      'SERVICE_UNAVAILABLE',
      `Cannot claim an idempotency key: all ${this.#maxKeys} that fit into memory are running`,
      { retryAfterMs: 1_000 },
    )
  }
}

/** What the work returns or throws, as a promise. */
async function settled<T>(work: () => T): Promise<T> {
  return await work()
}

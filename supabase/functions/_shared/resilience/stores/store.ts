/** What a store of idempotency keys is asked and what it answers; the Postgres, Redis and memory stores share a suite. */

export interface IdempotencyRequest {
  /** SHA-256 of the caller's identity, the route and the key, as 64 hex digits. */
  id: string
  /** SHA-256 of what is asked, as 64 hex digits: tells whether a key is used again for something else. */
  fingerprint: string
  /** Method and path as declared, `POST /orders`: for metrics, logs and whoever reads the table. */
  route: string
  callerId: string | null
  requestId?: string
}

/** What is replayed, byte for byte. */
export interface StoredAnswer {
  status: number
  /** A name may stand more than once. */
  headers: [name: string, value: string][]
  body: string
}

export type Claim =
  /** Run it. `resumed`: an earlier attempt may have had its effect, and nobody knows. */
  | { outcome: 'claimed'; effectId: string; token: number; attempt: number; resumed: boolean }
  | { outcome: 'replay'; answer: StoredAnswer }
  /** Running elsewhere; its lease ends after `retryAfterMs` at the latest. */
  | { outcome: 'in_progress'; retryAfterMs: number }
  /** The key belongs to a request with another fingerprint, finished or running. */
  | { outcome: 'mismatch' }

export interface ClaimOptions {
  /** How long nobody else may run it, unless it is completed or released before. */
  leaseMs: number
  /** How long a claim that is never completed is remembered after its lease. @default 86_400_000 */
  ttlMs?: number
}

/**
 * Every method is atomic, decided by the store's own clock, and rejects with `SERVICE_UNAVAILABLE` when the store
 * cannot be reached; whether it was carried out is then unknown.
 */
export interface IdempotencyStore {
  /** Writes nothing when the answer is a replay. */
  claim(request: IdempotencyRequest, options: ClaimOptions): Promise<Claim>
  /** False when the claim is no longer this token's: nothing is stored. A lease that ended and that nobody took still is. */
  complete(request: IdempotencyRequest, token: number, answer: StoredAnswer, ttlMs: number): Promise<boolean>
  /** The outcome is unknown: claimable again at once, `resumed`. False when the claim is no longer this token's. */
  release(request: IdempotencyRequest, token: number): Promise<boolean>
  close(): Promise<void>
}

export const dayMs = 86_400_000

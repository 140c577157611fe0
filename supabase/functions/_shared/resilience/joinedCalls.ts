/** Calls of one isolate with one key: the first leads, the others wait for its outcome in memory. */
import { count } from '../observability/metrics.ts'
import { inUse, reused } from './idempotencyErrors.ts'
import type { IdempotencyRequest } from './stores/store.ts'

export interface JoinOptions {
  /** Longest wait for whoever leads. */
  waitMs: number
  /** Ends the wait, and when it is the leader's, lets one of the others lead. */
  signal?: AbortSignal
}

interface Leader<Outcome> {
  fingerprint: string
  outcome: Promise<Outcome>
  signal?: AbortSignal
}

export class JoinedCalls<Outcome extends { replayed: boolean }> {
  readonly #leaders = new Map<string, Leader<Outcome>>()

  /**
   * Resolves to what `lead` gives, or to what another call's `lead` gave, marked `replayed`. A failure is shared too,
   * unless the leader was aborted. Rejects with REUSED for another fingerprint, and with IN_USE when the wait is over.
   */
  async run(
    request: IdempotencyRequest,
    { waitMs, signal }: JoinOptions,
    lead: () => Promise<Outcome>,
  ): Promise<Outcome> {
    const deadlineAt = performance.now() + waitMs
    for (;;) {
      signal?.throwIfAborted()
      const leader = this.#leaders.get(request.id)
      if (leader === undefined) return await this.#lead(request, signal, lead)
      if (leader.fingerprint !== request.fingerprint) throw reused(request)
      try {
        const outcome = await bounded(leader.outcome, deadlineAt - performance.now(), signal)
        if (outcome === undefined) throw inUse(request, 0)
        count('idempotency_total', { route: request.route, outcome: 'joined' })
        return { ...outcome, replayed: true }
      } catch (error) {
        const leaderGaveUp = leader.signal?.aborted && !signal?.aborted && !this.#leads(request, leader)
        if (!leaderGaveUp) throw error
      }
    }
  }

  async #lead(
    request: IdempotencyRequest,
    signal: AbortSignal | undefined,
    lead: () => Promise<Outcome>,
  ): Promise<Outcome> {
    const leader: Leader<Outcome> = {
      fingerprint: request.fingerprint,
      signal,
      outcome: lead().finally(() => this.#leaders.delete(request.id)),
    }
    this.#leaders.set(request.id, leader)
    return await leader.outcome
  }

  #leads({ id }: IdempotencyRequest, leader: Leader<Outcome>): boolean {
    return this.#leaders.get(id) === leader
  }
}

/** The promise's value; undefined once the time is over; rejects when the signal is aborted. Leaves nothing behind. */
async function bounded<T>(promise: Promise<T>, ms: number, signal?: AbortSignal): Promise<T | undefined> {
  const end = Promise.withResolvers<undefined>()
  const timer = setTimeout(() => end.resolve(undefined), Math.max(ms, 0))
  const abort = () => end.reject(signal!.reason)
  signal?.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([promise, end.promise])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}

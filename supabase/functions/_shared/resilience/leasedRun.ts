/** One request in `leased` mode: claim, work, and the answer stored by whoever still holds the claim. */
import { HoldfastError } from '../core/errors.ts'
import type { Logger } from '../observability/logger.ts'
import { count } from '../observability/metrics.ts'
import type { Finished, LeasedClaim, LeasedOptions, Outcome, Refused } from './idempotency.ts'
import { fits, inUse, isAway, reused, sqlStateOf, tooLarge } from './idempotencyErrors.ts'
import type { MemoryIdempotencyStore } from './stores/memory.ts'
import { keyLost, PostgresIdempotencyStore } from './stores/postgres.ts'
import type { Claim, IdempotencyRequest, IdempotencyStore, StoredAnswer } from './stores/store.ts'
import { Waiting } from './waiting.ts'

export interface LeasedStores {
  store: IdempotencyStore
  /** Where `onUnavailable: 'local'` goes on. */
  local: MemoryIdempotencyStore
  log: Logger
}

type Ask = NonNullable<LeasedOptions['claim']>
type LeasedWork = (claim: LeasedClaim) => Promise<Finished>
type Claimed = Extract<Claim, { outcome: 'claimed' }>

export async function runLeased(
  stores: LeasedStores,
  request: IdempotencyRequest,
  options: LeasedOptions & { waitMs: number },
  work: LeasedWork,
): Promise<Outcome> {
  const { route } = request
  const waiting = new Waiting(options.waitMs, options.signal)
  const claimInStore: Ask = (...given) => stores.store.claim(...given)
  for (let ask = options.claim ?? claimInStore;; ask = claimInStore) {
    const { claim, isLocal } = await claimSomewhere(stores, ask, request, options)
    const local = isLocal || undefined
    switch (claim.outcome) {
      case 'refused':
        throw claim.error
      case 'mismatch':
        throw reused(request)
      case 'replay':
        count('idempotency_total', { route, outcome: 'replayed' })
        return { answer: claim.answer, replayed: true, local }
      case 'in_progress':
        if (!await waiting.again()) throw inUse(request, claim.retryAfterMs)
        break
      case 'claimed':
        count('idempotency_total', { route, outcome: claim.resumed ? 'resumed' : 'ran' })
        return await runClaimed(stores, isLocal, request, claim, options, work)
    }
  }
}

async function claimSomewhere(
  { local, log }: LeasedStores,
  ask: Ask,
  request: IdempotencyRequest,
  { leaseMs, ttlMs, onUnavailable }: LeasedOptions,
): Promise<{ claim: Claim | Refused; isLocal: boolean }> {
  // What was decided here while the store was away stays decided here when it is back.
  const isLocal = onUnavailable === 'local' && local.has(request)
  if (!isLocal) {
    try {
      return { claim: await ask(request, { leaseMs, ttlMs }), isLocal }
    } catch (error) {
      if (!isAway(error)) throw error
      if (onUnavailable === 'closed') throw closedBy(error)
      log.warn('the store of idempotency keys is away, this isolate decides alone', {
        route: request.route,
        error,
      })
    }
  }
  count('idempotency_local_total', { route: request.route })
  return { claim: await local.claim(request, { leaseMs, ttlMs }), isLocal: true }
}

async function runClaimed(
  { store, local, log }: LeasedStores,
  isLocal: boolean,
  request: IdempotencyRequest,
  { effectId, token, attempt, resumed }: Claimed,
  { ttlMs, maxStoredBytes, leaseMs, onUnavailable }: LeasedOptions,
  work: LeasedWork,
): Promise<Outcome> {
  const keeper = isLocal ? local : store
  // Without it the lease ends by itself; the work's own failure is the one to report.
  const release = async () => {
    await keeper.release(request, token).catch((error: unknown) =>
      log.warn('an idempotency key could not be released, its lease has to end', {
        route: request.route,
        error,
      })
    )
  }
  const completeWith: LeasedClaim['completeWith'] = keeper instanceof PostgresIdempotencyStore
    ? (answer, deferred) => {
      if (deferred === undefined && !fits(answer.body, maxStoredBytes)) {
        throw tooLarge(request, maxStoredBytes)
      }
      const body = deferred ?? answer.body
      return keeper.completion(request, token, { ...answer, body }, { ttlMs, maxStoredBytes })
    }
    : undefined

  let finished: Finished
  try {
    finished = await work({ effectId, resumed, attempt, completeWith })
    const { answer, store, completed } = finished
    if (store && !completed && !fits(answer.body, maxStoredBytes)) throw tooLarge(request, maxStoredBytes)
  } catch (error) {
    if (sqlStateOf(error) === keyLost) throw leaseLost(error)
    await release()
    throw error
  }
  const outcome: Outcome = { answer: finished.answer, replayed: false, local: isLocal || undefined }
  if (finished.completed) return outcome
  if (!finished.store) {
    await release()
    return outcome
  }
  try {
    if (await keeper.complete(request, token, finished.answer, ttlMs)) return outcome
  } catch (error) {
    if (!isAway(error)) throw error
    if (onUnavailable === 'closed') throw closedBy(error)
    log.warn('an answer could not be stored for its idempotency key, this isolate keeps it', {
      route: request.route,
      error,
    })
    count('idempotency_local_total', { route: request.route })
    await keepLocally(local, request, finished.answer, { leaseMs, ttlMs })
    return { ...outcome, local: true }
  }
  throw leaseLost()

  /** Another attempt has taken over, and its answer is the one that counts. */
  function leaseLost(cause?: unknown): HoldfastError {
    count('idempotency_lease_lost_total', { route: request.route })
    log.warn('the lease of an idempotency key ended before its work', { route: request.route, attempt })
    return inUse(request, 0, cause)
  }
}

async function keepLocally(
  local: MemoryIdempotencyStore,
  request: IdempotencyRequest,
  answer: StoredAnswer,
  times: { leaseMs: number; ttlMs: number },
): Promise<void> {
  const claim = await local.claim(request, times)
  if (claim.outcome === 'claimed') await local.complete(request, claim.token, answer, times.ttlMs)
}

function closedBy(cause: unknown): HoldfastError {
  return new HoldfastError(
    'SERVICE_UNAVAILABLE',
    'Cannot run the request: its idempotency key cannot be checked, the store is away',
    { cause, retryAfterMs: 1_000 },
  )
}

/** One request in `atomic` mode: claim, work and stored answer as one transaction. */
import { HoldfastError } from '../core/errors.ts'
import type { Row, SqlQuery, Transaction, Tx } from '../db/client.ts'
import { CommitUnknownError } from '../db/databaseError.ts'
import { pause } from '../db/pause.ts'
import { count } from '../observability/metrics.ts'
import type { AtomicFinished, AtomicOptions, Outcome } from './idempotency.ts'
import { fits, inUse, reused, sqlStateOf, tooLarge } from './idempotencyErrors.ts'
import {
  answerTooLarge,
  claimRefused,
  keyLost,
  lastStatement,
  type PostgresIdempotencyStore,
  refusalIn,
} from './stores/postgres.ts'
import type { IdempotencyRequest, StoredAnswer } from './stores/store.ts'
import { Waiting } from './waiting.ts'

/** A serialization failure, a deadlock, or a key that was answered meanwhile: at most so many runs in all. */
const maxRuns = 3

export type AtomicWork = (tx: Tx) => Promise<AtomicFinished>

/** How one run ended. */
type Run =
  | { kind: 'answered'; answer: StoredAnswer }
  /** By the claim, or because another answer was stored first (`lost`). */
  | { kind: 'refused'; why: 'replay' | 'in_progress' | 'mismatch' | 'lost' }
  /** Rolled back by a conflict with another transaction. */
  | { kind: 'conflict'; error: unknown }
  /** The connection broke while the commit was on its way. */
  | { kind: 'unknown'; error: unknown }

const taken: Run = { kind: 'refused', why: 'replay' }

export async function runAtomic(
  store: PostgresIdempotencyStore,
  /** Ids with an answer, as far as this isolate knows: those are looked up before a transaction is begun. */
  answered: RecentIds,
  request: IdempotencyRequest,
  options: AtomicOptions & { waitMs: number },
  work: AtomicWork,
): Promise<Outcome> {
  const { route } = request
  const waiting = new Waiting(options.waitMs, options.signal)
  const deadlineAt = performance.now() + (options.timeoutMs ?? Infinity)
  // What a serializable or repeatable read transaction cannot see in its claim, it must not run into at its end.
  let look = answered.has(request.id) || ![undefined, 'read committed'].includes(options.isolation)
  let unknown: unknown
  let runs = 0
  for (;;) {
    if (look) {
      const found = await store.find(request)
      if (found.outcome === 'mismatch') throw reused(request)
      if (found.outcome === 'replay') {
        answered.add(request.id)
        // After an unknown commit this is the answer of the run whose outcome was lost.
        const replayed = unknown === undefined
        count('idempotency_total', { route, outcome: replayed ? 'replayed' : 'ran' })
        return { answer: found.answer, replayed }
      }
      if (found.outcome === 'in_progress') {
        if (await waiting.again()) continue
        throw unknown === undefined ? inUse(request, found.retryAfterMs) : undecided(unknown)
      }
    }
    const timeoutMs = options.timeoutMs && Math.max(1, Math.ceil(deadlineAt - performance.now()))
    const run = await runOnce(store, request, { ...options, timeoutMs, looked: look }, work)
    switch (run.kind) {
      case 'answered':
        answered.add(request.id)
        count('idempotency_total', { route, outcome: 'ran' })
        return { answer: run.answer, replayed: false }
      case 'refused':
        if (run.why === 'mismatch') throw reused(request)
        if (run.why === 'in_progress' && !await waiting.again()) throw inUse(request, 0)
        if (run.why !== 'in_progress' && ++runs >= maxRuns) throw inUse(request, 0)
        look = true
        break
      case 'conflict':
        if (++runs >= maxRuns) throw run.error
        await pause(Math.random() * 20 * 2 ** runs, options.signal)
        break
      case 'unknown':
        if (++runs >= maxRuns) throw undecided(run.error)
        unknown = run.error
        look = true
    }
  }
}

async function runOnce(
  store: PostgresIdempotencyStore,
  request: IdempotencyRequest,
  { db, actor, isolation, timeoutMs, ttlMs, maxStoredBytes, looked }: AtomicOptions & { looked: boolean },
  work: AtomicWork,
): Promise<Run> {
  const tx = db.begin(actor, { isolation, timeoutMs, opening: [store.claimExpression(request)] })
  const watched = new WatchedTx(tx)
  // A work that ends before its first statement has not claimed anything yet: its key may have an answer.
  const isTaken = async () => !tx.opened && !looked && (await store.find(request)).outcome !== 'absent'
  let finished: AtomicFinished
  try {
    finished = await work(watched)
  } catch (error) {
    if (await isTaken()) return taken
    await tx.rollback()
    return endOf(watched.failure) ?? rethrow(error)
  }
  const { answer, deferred } = finished
  const limits = { ttlMs, maxStoredBytes }

  if (answer.status >= 400) {
    if (await isTaken()) return taken
    const end = endOf(watched.failure)
    const keep = finished.store && end === undefined
    if (keep && !fits(answer.body, maxStoredBytes)) {
      await tx.rollback()
      throw tooLarge(request, maxStoredBytes)
    }
    const after = keep ? [store.atomicCompletion(request, answer, limits)] : []
    const failure = await tx.rollback({ after })
    if (end !== undefined) return end
    if (failure !== undefined) return endOf(failure) ?? rethrow(failure)
    return { kind: 'answered', answer }
  }

  if (deferred === undefined && !fits(answer.body, maxStoredBytes)) {
    await tx.rollback()
    throw tooLarge(request, maxStoredBytes)
  }
  const toStore = { ...answer, body: deferred ?? answer.body }
  try {
    const [row] = await tx.commit<{ data: string }>({
      last: deferred && lastStatement(deferred.last),
      closing: [store.atomicCompletion(request, toStore, limits)],
    })
    const body = deferred === undefined ? answer.body : deferred.prefix + row!.data + deferred.suffix
    return { kind: 'answered', answer: { ...answer, body } }
  } catch (error) {
    if (error instanceof CommitUnknownError) return { kind: 'unknown', error }
    if (sqlStateOf(error) === answerTooLarge) throw tooLarge(request, maxStoredBytes, error)
    return endOf(error) ?? endOf(watched.failure) ?? rethrow(error)
  }
}

/** How a failure of a statement ends the run, where it is not the handler's affair. */
function endOf(error: unknown): Run | undefined {
  switch (sqlStateOf(error)) {
    case claimRefused:
      return { kind: 'refused', why: refusalIn(error) }
    case keyLost:
      return { kind: 'refused', why: 'lost' }
    case '40001':
    case '40P01':
      return { kind: 'conflict', error }
  }
}

function rethrow(error: unknown): never {
  throw error
}

/** With its key the request may be sent again: it then finds out. */
function undecided(cause: unknown): HoldfastError {
  return new HoldfastError(
    'SERVICE_UNAVAILABLE',
    'Cannot tell whether the request was carried out: the connection broke during the commit; send it again with the same key',
    { cause, retryAfterMs: 1_000 },
  )
}

/** The handler may catch what its statements reject with, or make an answer of it; how the run ends is told by this. */
class WatchedTx implements Tx {
  readonly #tx: Transaction
  #failure: unknown

  constructor(tx: Transaction) {
    this.#tx = tx
  }

  /** The first failure that ends the run whatever the handler makes of it: a refused claim, a conflict. */
  get failure(): unknown {
    return this.#failure
  }

  async query<T extends Row = Row>(query: SqlQuery): Promise<T[]> {
    try {
      return await this.#tx.query<T>(query)
    } catch (error) {
      if (endOf(error) !== undefined) this.#failure ??= error
      throw error
    }
  }
}

/** The last so many ids. */
export class RecentIds {
  readonly #ids = new Set<string>()
  readonly #max: number

  constructor(max: number) {
    this.#max = max
  }

  has(id: string): boolean {
    return this.#ids.has(id)
  }

  add(id: string): void {
    this.#ids.delete(id)
    this.#ids.add(id)
    if (this.#ids.size <= this.#max) return
    const [oldest] = this.#ids
    this.#ids.delete(oldest!)
  }
}

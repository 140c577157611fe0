/** What a route declares about repeated requests, and what its handler is given for it. */
import type { Row, SqlQuery, Tx } from '../db/client.ts'
import type { Isolation } from '../db/transaction.ts'
import type { Method, Reply } from './route.ts'

/**
 * How a repeated request is kept from acting twice. `atomic`: the claim of its key, what the handler writes through
 * `context.tx`, and the answer commit as one transaction. `leased`: for handlers that act outside the database; the
 * key is claimed first, for as long as the route may take.
 */
export type IdempotencyMode = 'atomic' | 'leased'

export interface IdempotencyOptions {
  mode: IdempotencyMode
  /** Refuse a request without a key; otherwise it runs as if it were the only one. @default true */
  required?: boolean
  /** Longest wait for the same request that is running elsewhere, before 409. @default 5_000 */
  waitMs?: number
  /** How long an answer is kept for replay. @default 86_400_000 */
  ttlMs?: number
  /** Largest body of an answer that is stored; above it the request fails and commits nothing. @default 65_536 */
  maxStoredBytes?: number
  /**
   * `leased` only. While the store is away, `closed` refuses with 503; `local` relies on the memory of this isolate,
   * and says so in the header `Idempotency-Store` and in a metric. @default 'closed'
   */
  onUnavailable?: 'closed' | 'local'
  /** `atomic` only. @default the server's own, read committed */
  isolation?: Isolation
}

/** A mode with its defaults, or with options. */
export type Idempotency = IdempotencyMode | IdempotencyOptions

/** A declaration with every default filled in. */
export type ResolvedIdempotency = Readonly<
  Required<Omit<IdempotencyOptions, 'isolation'>> & Pick<IdempotencyOptions, 'isolation'>
>

/** What the handler of a `leased` route knows of its request's key. */
export interface LeasedRequest<Data = unknown> {
  /** Undefined in a request without one, where the route takes such. */
  readonly key: string | undefined
  /** The same for every attempt at this key: hand it to the outside service as its idempotency key. */
  readonly effectId: string
  /** An earlier attempt ended without an answer and may have acted: ask the outside service before you act. */
  readonly resumed: boolean
  /** Counted from 1. */
  readonly attempt: number
  /**
   * Puts the answer into a transaction of the handler's, so that one is stored if, and only if, the other commits.
   * Return what it returns. `data` may be a statement of the caller, which then travels with the commit: the first
   * column of its first row is the data. Call it last, and again where the transaction is run again.
   */
  complete(tx: CompletingTx, reply: Reply<Data | SqlQuery>): Reply<Data>
}

/** What `complete` needs of a transaction; that of `transactions.run` has it. */
export interface CompletingTx {
  /** A statement of the caller that travels with the commit; resolves once that is confirmed. */
  atCommit<T extends Row>(last: SqlQuery): Promise<T[]>
  /** Statements that commit with it, as the connection's own role. */
  beforeCommit(...closing: SqlQuery[]): void
}

type ModeOf<Declared> = Declared extends { mode: infer Mode } ? Mode : Declared

/** What the declaration adds to the handler's context. */
export type IdempotentContext<Declared, Data> = ModeOf<Declared> extends 'atomic' ? {
    /** The caller's transaction in which the claim, the handler's writes and the stored answer commit. */
    tx: Tx
  }
  : ModeOf<Declared> extends 'leased' ? { idempotency: LeasedRequest<Data> }
  : unknown

/** In an atomic route the data may be a statement that travels with the commit: its first column of its first row. */
export type ReplyData<Declared, Data> = ModeOf<Declared> extends 'atomic' ? Data | SqlQuery : Data

/** The declaration with its defaults; throws `TypeError` or `RangeError`, naming the route, for one that makes no sense. */
export function resolveIdempotency(
  declared: Idempotency | undefined,
  route: { method: Method; path: string },
): ResolvedIdempotency | undefined {
  if (declared === undefined) return undefined
  const {
    mode,
    required = true,
    waitMs = 5_000,
    ttlMs = 86_400_000,
    maxStoredBytes = 65_536,
    onUnavailable = 'closed',
    isolation,
  } = typeof declared === 'string' ? { mode: declared } : declared
  const where = `Cannot declare the route ${route.method} ${route.path}: idempotency`
  const problem = problemOf(route.method, { mode, onUnavailable, isolation })
  if (problem !== undefined) throw new TypeError(`${where} ${problem}`)
  for (
    const [name, value, least] of [['waitMs', waitMs, 0], ['ttlMs', ttlMs, 1], [
      'maxStoredBytes',
      maxStoredBytes,
      1,
    ]] as const
  ) {
    if (!Number.isSafeInteger(value) || value < least) {
      throw new RangeError(`${where}.${name} must be a whole number of at least ${least}, received ${value}`)
    }
  }
  return { mode, required, waitMs, ttlMs, maxStoredBytes, onUnavailable, isolation }
}

function problemOf(
  method: Method,
  { mode, onUnavailable, isolation }: Pick<IdempotencyOptions, 'mode' | 'onUnavailable' | 'isolation'>,
): string | undefined {
  if (method === 'GET') return 'is for methods that change something'
  if (mode !== 'atomic' && mode !== 'leased') return `must be atomic or leased, received ${mode}`
  if (onUnavailable !== 'closed' && onUnavailable !== 'local') {
    return `.onUnavailable must be closed or local, received ${onUnavailable}`
  }
  if (mode === 'atomic' && onUnavailable === 'local') {
    return 'cannot be atomic and local: the claim and the writes are one transaction of the database'
  }
  if (mode === 'leased' && isolation !== undefined) {
    return 'has an isolation only when it is atomic: a leased route opens its own transactions'
  }
  return undefined
}

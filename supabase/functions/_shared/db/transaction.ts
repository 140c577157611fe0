/**
 * One transaction on one connection: the engine under `db/client.ts` and the transaction manager. It opens with its
 * first statement, in the same round trip, and what has to happen around the caller's statements (claims, books)
 * travels with the opening and with the commit.
 */
import { HoldfastError } from '../core/errors.ts'
import { CommitUnknownError, DatabaseError, unavailable } from './databaseError.ts'
import type { Lease, Row } from './pool.ts'
import { sql, sqlList, type SqlQuery } from './sql.ts'

export type Isolation = 'read committed' | 'repeatable read' | 'serializable'

/** Statements of one open transaction. */
export interface Tx {
  /**
   * Runs a statement and resolves to its rows. Statements sent without waiting for each other share a round
   * trip. Rejects with a `DatabaseError`; the transaction can then only roll back.
   */
  query<T extends Row = Row>(query: SqlQuery): Promise<T[]>
}

export interface BeginOptions {
  /** @default the server's own, read committed */
  isolation?: Isolation
  /**
   * Longest the transaction may last. The server enforces it for each statement and each rest between two, and for
   * the whole from PostgreSQL 17 on. @default `statementTimeoutMs` of the `Db`, for each statement and each rest
   */
  timeoutMs?: number
  /** Sent ahead of `begin`, each a transaction of its own, as the connection's own role. */
  before?: readonly SqlQuery[]
  /**
   * Expressions, as in a SELECT list, evaluated in the transaction as the connection's own role, before the caller's
   * role is taken. One that raises stops all that is behind it, and is what the first `query()` or `commit()` rejects with.
   */
  opening?: readonly SqlQuery[]
}

export interface CommitOptions {
  /** A statement of the caller that travels with the commit. */
  last?: SqlQuery
  /** Statements behind it, in the transaction, as the connection's own role. One that raises rolls everything back. */
  closing?: readonly SqlQuery[]
}

export interface RollbackOptions {
  /**
   * Sent behind the rollback, each a transaction of its own, as the connection's own role. Where the connection is
   * lost they are sent on another, and may then have run before: they must be safe to run twice.
   */
  after?: readonly SqlQuery[]
}

export class Transaction implements Tx {
  readonly #acquire: () => Promise<Lease>
  readonly #settings: Record<string, string>
  readonly #options: BeginOptions
  #started: Promise<Lease> | undefined
  #opening: Promise<void> | undefined
  #openingRow: Row | undefined
  /** Carries the rollback, or what comes behind it. */
  #ending: Lease | undefined
  #state: 'open' | 'closed' = 'open'

  /** Sends nothing and holds no connection until the first statement. */
  constructor(acquire: () => Promise<Lease>, settings: Record<string, string>, options: BeginOptions = {}) {
    this.#acquire = acquire
    this.#settings = settings
    this.#options = options
  }

  /** Whether it holds a connection, or waits for one. */
  get opened(): boolean {
    return this.#started !== undefined
  }

  /** What the `opening` expressions gave, by their names, once the first statement has resolved. */
  get openingRow(): Row | undefined {
    return this.#openingRow
  }

  async query<T extends Row = Row>(query: SqlQuery): Promise<T[]> {
    if (this.#state === 'closed') throw closed()
    const lease = await this.#start()
    const rows = send<T>(lease, query)
    await allDone([this.#opening, rows])
    return [...await rows]
  }

  /**
   * One trip, also for all there is when nothing was sent before; none when there is nothing to send. Rejects with
   * what made the transaction fail, or with `CommitUnknownError` when the connection broke before an answer came.
   */
  async commit<T extends Row = Row>(options: CommitOptions = {}): Promise<T[]> {
    const { last, closing = [] } = options
    if (this.#state === 'closed') throw closed()
    this.#state = 'closed'
    if (this.#started === undefined && last === undefined && closing.length === 0) return []
    const lease = await this.#start()
    let sent = false
    try {
      if (lease.lost) {
        throw unavailable('Cannot commit: the connection was lost before, everything is rolled back')
      }
      const rows = last === undefined ? undefined : send<T>(lease, last)
      const books = closing.length === 0
        ? []
        : [lease.send('set local role none'), ...closing.map((query) => send(lease, query))]
      const answer = lease.send('commit')
      sent = true
      await conclude([this.#opening, rows, ...books], answer)
      return rows === undefined ? [] : [...await rows]
    } finally {
      this.#started = undefined
      if (!sent) lease.discard()
      lease.giveBack()
    }
  }

  /** Never rejects: where the connection is lost, the server rolls back. Resolves to the first failure of `after`. */
  async rollback({ after = [] }: RollbackOptions = {}): Promise<unknown> {
    this.#state = 'closed'
    const lease = await this.#started?.catch(() => undefined)
    this.#started = undefined
    if (lease !== undefined) {
      this.#ending = lease
      const ended = lease.send('rollback')
      const sent = lease.lost ? undefined : after.map((query) => send(lease, query))
      const [rolledBack, ...results] = await Promise.allSettled([ended, ...sent ?? []])
      if (rolledBack!.status === 'rejected') lease.discard()
      this.#ending = undefined
      lease.giveBack()
      if (sent !== undefined && rolledBack!.status === 'fulfilled') return firstFailure(results)
    }
    if (after.length === 0) return undefined
    // The connection went before it could carry them.
    try {
      const another = this.#ending = await this.#acquire()
      const results = await Promise.allSettled(after.map((query) => send(another, query)))
      this.#ending = undefined
      another.giveBack()
      return firstFailure(results)
    } catch (error) {
      return error
    }
  }

  /** Closes the connection at once, whatever is on its way; the server rolls back. Safe to call at any time. */
  abandon(): void {
    this.#state = 'closed'
    this.#started?.then((lease) => lease.discard(), () => {})
    this.#started = undefined
    this.#ending?.discard()
  }

  /** Resolves when the opening is on its way, so that what is sent next shares its trip. */
  #start(): Promise<Lease> {
    return this.#started ??= this.#acquire().then((lease) => {
      try {
        this.#opening = this.#open(lease)
      } catch (error) {
        lease.discard()
        throw error
      }
      // Whoever sends a statement waits for it; nobody may be left to.
      this.#opening.catch(() => {})
      return lease
    })
  }

  #open(lease: Lease): Promise<void> {
    const { isolation, before = [], opening = [], timeoutMs } = this.#options
    const begin = isolation === undefined ? 'begin' : `begin isolation level ${isolation}`
    const expressions = [...opening, ...settingsOf(this.#settings), ...limitsOf(timeoutMs)]
    const sent = before.map((query) => send(lease, query))
    const begun = lease.send(begin)
    const opened = send(lease, sql`select ${sqlList(expressions)}`)
    return allDone([...sent, begun, opened.then(([row]) => this.#openingRow = row)])
  }
}

function settingsOf(settings: Record<string, string>): SqlQuery[] {
  return Object.entries(settings).map(([name, value]) => sql`set_config(${name}, ${value}, true)`)
}

/** What only some servers know: a limit for the whole transaction, and noticing in a statement that the client is gone. */
function limitsOf(timeoutMs: number | undefined): SqlQuery[] {
  if (timeoutMs === undefined) return []
  return [
    // Longer than the idle limit: that one counts only while it is the shorter, and it alone survives a failed statement.
    sql`case when current_setting('server_version_num')::int >= 170000
      then set_config('transaction_timeout', ${timeoutMs + 1}, true) end`,
    sql`case when version() like '%linux%' then set_config('client_connection_check_interval', '2000', true) end`,
  ]
}

function send<T extends Row = Row>(lease: Lease, query: SqlQuery) {
  const { text, values } = query.compile()
  return lease.send<T>(text, values)
}

/**
 * Waits for all, so that nothing is on its way when the connection is given back. The first in the list that failed
 * is the cause; those behind it only say that the transaction is aborted.
 */
async function allDone(promises: (Promise<unknown> | undefined)[]): Promise<void> {
  for (const result of await Promise.allSettled(promises)) {
    if (result.status === 'rejected') throw result.reason
  }
}

/** What the answer to a commit, and what travelled with it, say about the outcome. */
async function conclude(
  before: (Promise<unknown> | undefined)[],
  answer: Promise<{ command: string }>,
): Promise<void> {
  const [committed, failure] = await Promise.all([
    answer.then(({ command }) => command === 'COMMIT', (error) => error as unknown),
    allDone(before).then(() => undefined, (error) => error as unknown),
  ])
  if (committed === true) return
  if (isRefusal(failure)) throw failure
  if (committed !== false) throw isRefusal(committed) ? committed : new CommitUnknownError(committed)
  // PostgreSQL answers the commit of a failed transaction with ROLLBACK, and no error.
  throw failure ?? new HoldfastError(
    'INTERNAL_ERROR',
    'Cannot commit: a statement failed, its error was caught, and PostgreSQL rolled everything back',
  )
}

/** PostgreSQL's own word that a statement failed; the end of a connection says nothing about what came before. */
function isRefusal(error: unknown): boolean {
  return error instanceof DatabaseError && error.sqlState !== undefined && !/^(57P|08)/.test(error.sqlState)
}

function firstFailure(results: PromiseSettledResult<unknown>[]): unknown {
  return results.find((result) => result.status === 'rejected')?.reason
}

function closed(): HoldfastError {
  return new HoldfastError('TRANSACTION_CLOSED', 'Cannot use the transaction: it has already ended')
}

/**
 * A few connections for one isolate, lent whole. Each is a client of the driver that holds exactly one
 * connection and is thrown away with it: a statement can therefore never travel on a connection that was
 * replaced under it, where it would run outside its transaction and without its role.
 */
import net from 'node:net'
import postgres from 'postgres'
import { toDatabaseError, unavailable } from './databaseError.ts'

export interface PoolOptions {
  url: string
  max: number
  idleTimeoutMs: number
  connectTimeoutMs: number
  /** Longest wait for a connection while all are lent. */
  acquireTimeoutMs: number
  applicationName: string
  /** Named statements. */
  prepare: boolean
}

/** One row; the statement decides its columns, the type argument states them. */
export type Row = Record<string, unknown>

const lost = 'Cannot reach PostgreSQL: the connection was lost'
const closed = 'Cannot reach PostgreSQL: the pool is closed'

/** A connection while it is lent. Give it back once. */
export interface Lease {
  /** The connection is gone: nothing that is sent now reaches the server. */
  readonly lost: boolean
  /**
   * Sends a statement in one round trip; those sent without waiting for each other share one.
   * Rejects with a `DatabaseError`, at once when the connection is lost.
   */
  send<T extends Row = Row>(
    text: string,
    values?: (string | null)[],
  ): Promise<postgres.RowList<T[]>>
  giveBack(): void
  /** Closes the connection, for when its state is not known. */
  discard(): void
}

interface Waiter {
  /** May have the connection beyond `max`. */
  reserve: boolean
  resolve(connection: Connection): void
  reject(error: Error): void
}

export class Pool {
  readonly #options: PoolOptions
  readonly #idle: Connection[] = []
  readonly #waiting = new Set<Waiter>()
  readonly #all = new Set<Connection>()
  #opening = 0
  #closed = false

  constructor(options: PoolOptions) {
    this.#options = options
  }

  /**
   * Rejects with `SERVICE_UNAVAILABLE` when no connection can be had in time. With `reserve` one connection beyond
   * `max` may be used: for the short statements a transaction waits for while it holds a connection itself. Without
   * it, `max` such transactions would wait for each other.
   */
  async lease({ reserve = false } = {}): Promise<Lease> {
    const connection = await this.#acquire(reserve)
    return {
      get lost() {
        return connection.lost
      },
      send: (text, values) => connection.send(text, values),
      giveBack: () => this.#giveBack(connection),
      discard: () => this.#drop(connection),
    }
  }

  /** One statement on a connection that is lent for no longer; the connection is closed if it takes too long. */
  run<T extends Row>(
    text: string,
    values: (string | null)[],
    timeoutMs: number,
  ): Promise<postgres.RowList<T[]>> {
    const found = this.#acquire(true)
    return found instanceof Connection
      ? this.#runOn<T>(found, text, values, timeoutMs)
      : found.then((connection) => this.#runOn<T>(connection, text, values, timeoutMs))
  }

  #runOn<T extends Row>(connection: Connection, text: string, values: (string | null)[], timeoutMs: number) {
    // A network that swallows everything would keep the connection until TCP gives up.
    connection.watch(timeoutMs, connection.drop)
    return connection.send<T>(text, values).then((rows) => {
      this.#giveBack(connection)
      return rows
    }, (error) => {
      this.#giveBack(connection)
      throw error
    })
  }

  /** Closes what is idle at once and what is lent when it is given back, at the latest after `graceMs`. */
  async close(graceMs: number): Promise<void> {
    this.#closed = true
    for (const waiter of this.#waiting) waiter.reject(unavailable(closed))
    const ended = [...this.#all].map((connection) => connection.ended)
    for (const connection of [...this.#idle]) this.#drop(connection)
    const timer = setTimeout(() => {
      for (const connection of this.#all) this.#drop(connection)
    }, graceMs)
    await Promise.all(ended)
    clearTimeout(timer)
  }

  #acquire(reserve: boolean): Promise<Connection> | Connection {
    if (this.#closed) throw unavailable(closed)
    const idle = this.#idle.pop()
    if (idle !== undefined) {
      idle.busy()
      return idle
    }
    return this.#hasRoom(reserve) ? this.#open() : this.#wait(reserve)
  }

  #hasRoom(reserve: boolean): boolean {
    return this.#all.size + this.#opening < this.#options.max + (reserve ? 1 : 0)
  }

  async #open(): Promise<Connection> {
    this.#opening++
    const connection: Connection = await Connection.open(this.#options, () => this.#drop(connection))
      .catch((error) => {
        const found = error instanceof Error && error.message !== '' ? error.message : String(error)
        const failure = unavailable(`Cannot reach PostgreSQL: ${found}`, { cause: error })
        // With nothing lent, nothing will be given back: whoever waits would wait in vain.
        if (this.#all.size === 0) { for (const waiter of this.#waiting) waiter.reject(failure) }
        throw failure
      })
      .finally(() => this.#opening--)
    this.#all.add(connection)
    if (!this.#closed) return connection
    this.#drop(connection)
    await connection.ended
    throw unavailable(closed)
  }

  #wait(reserve: boolean): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const { acquireTimeoutMs, max } = this.#options
      const settle = () => {
        clearTimeout(timer)
        this.#waiting.delete(waiter)
      }
      const waiter: Waiter = {
        reserve,
        resolve: (connection) => (settle(), resolve(connection)),
        reject: (error) => (settle(), reject(error)),
      }
      const timer = setTimeout(() => {
        const found = `all ${max} connections were in use for ${acquireTimeoutMs} ms`
        waiter.reject(unavailable(`Cannot reach PostgreSQL: ${found}`))
      }, acquireTimeoutMs)
      this.#waiting.add(waiter)
    })
  }

  #giveBack(connection: Connection): void {
    connection.busy()
    if (!this.#all.has(connection)) return
    if (this.#closed || connection.lost) return this.#drop(connection)
    const beyond = this.#all.size > this.#options.max
    const next = this.#nextWaiter(beyond)
    if (next !== undefined) return next.resolve(connection)
    if (beyond) return this.#drop(connection)
    this.#idle.push(connection)
    connection.watch(this.#options.idleTimeoutMs, connection.drop)
  }

  /** Those for whom the reserve is meant go first, else one transaction might wait for another for ever. */
  #nextWaiter(onlyReserve: boolean): Waiter | undefined {
    if (this.#waiting.size === 0) return undefined
    const waiting = [...this.#waiting]
    return waiting.find(({ reserve }) => reserve) ?? (onlyReserve ? undefined : waiting[0])
  }

  /** Lets go of a connection that is lost or not to be trusted; whoever waits may open another in its place. */
  #drop(connection: Connection): void {
    if (!this.#all.delete(connection)) return
    connection.end()
    const index = this.#idle.indexOf(connection)
    if (index >= 0) this.#idle.splice(index, 1)
    const next = this.#nextWaiter(false)
    if (next === undefined || this.#closed || !this.#hasRoom(next.reserve)) return
    // A failure to open is told to whoever waits by #open itself, or by their own timeout.
    this.#open().then((opened) => this.#giveBack(opened), () => {})
  }
}

class Connection {
  /** Lets go of it. */
  readonly drop: () => void
  readonly #client: postgres.Sql
  readonly #prepare: boolean
  #reserved: postgres.ReservedSql | undefined
  readonly #pending: ((error: Error) => void)[] = []
  readonly #ended = Promise.withResolvers<void>()
  #lost = false
  #timer: ReturnType<typeof setTimeout> | undefined
  #timerAt = 0
  #dueAt = Infinity
  #onDue: () => void = () => {}

  static async open(options: PoolOptions, onClose: () => void): Promise<Connection> {
    const connection = new Connection(options, onClose)
    try {
      // The driver cannot reserve a connection that is not open yet.
      await connection.#client.unsafe('select 1')
      connection.#reserved = await connection.#client.reserve()
      return connection
    } catch (error) {
      await connection.end()
      throw error
    }
  }

  private constructor(options: PoolOptions, onClose: () => void) {
    this.#prepare = options.prepare
    this.drop = onClose
    let opened = false
    const settings: DriverOptions = {
      max: 1,
      // Once: the driver would go on without end at a server that takes connections and closes them.
      socket: (target) => {
        if (opened) return Promise.reject(new Error('the server closed the connection before it was ready'))
        opened = true
        return openSocket(target, options.connectTimeoutMs)
      },
      connect_timeout: options.connectTimeoutMs / 1_000,
      idle_timeout: undefined,
      max_lifetime: null,
      prepare: options.prepare,
      types: options.prepare ? textAsItIs : undefined,
      // Asking for the types of the database would be one more query at every new connection.
      fetch_types: false,
      connection: { application_name: options.applicationName },
      onnotice: () => {},
      onclose: () => {
        this.#lost = true
        for (const reject of this.#pending) reject(unavailable(lost))
        if (this.#reserved !== undefined) onClose()
      },
    }
    this.#client = postgres(options.url, settings)
  }

  /**
   * The driver would first ask the server for the types of the parameters it is given, a round trip of its own for
   * every unnamed statement. Our values are text already and take the type the statement asks for: put in their place
   * by ourselves, they go with the statement.
   */
  send<T extends Row>(text: string, values: (string | null)[] = []): Promise<postgres.RowList<T[]>> {
    if (this.#lost || this.#reserved === undefined) return Promise.reject(unavailable(lost))
    const query = this.#reserved.unsafe<T[]>(text, [], {
      prepare: this.#prepare,
      simple: values.length === 0,
    } as postgres.UnsafeQueryOptions)
    if (values.length > 0) (query as unknown as { parameters: unknown[] }).parameters = values
    return new Promise((resolve, reject) => {
      const pending = this.#pending
      pending.push(reject)
      query.then((rows) => {
        remove(pending, reject)
        resolve(rows)
      }, (error) => {
        remove(pending, reject)
        // The server's last words on this connection, or none: its end is only a moment away.
        if (!(error instanceof postgres.PostgresError) || error.severity === 'FATAL') this.#lost = true
        reject(toDatabaseError(error))
      })
    })
  }

  get lost(): boolean {
    return this.#lost
  }

  /**
   * Calls `due` after so many milliseconds unless it is told otherwise before. The timer behind it stays when it comes
   * too early, and looks again: a statement sets none of its own.
   */
  watch(ms: number, due: () => void): void {
    this.#onDue = due
    this.#dueAt = performance.now() + ms
    if (this.#timer === undefined || this.#timerAt > this.#dueAt) this.#arm(ms)
  }

  busy(): void {
    this.#dueAt = Infinity
  }

  #arm(ms: number): void {
    clearTimeout(this.#timer)
    this.#timerAt = this.#dueAt
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      if (this.#dueAt === Infinity) return
      const left = this.#dueAt - performance.now()
      if (left > 0) this.#arm(Math.ceil(left))
      else this.#onDue()
    }, ms)
  }

  /** Closes it, whatever is on its way. */
  async end(): Promise<void> {
    clearTimeout(this.#timer)
    this.#dueAt = Infinity
    await this.#client.end({ timeout: 0 }).catch(() => {})
    this.#ended.resolve()
  }

  /** Resolves when it is closed for good. */
  get ended(): Promise<void> {
    return this.#ended.promise
  }
}

/** What the driver's types do not tell. */
interface DriverOptions extends postgres.Options<Record<string, postgres.PostgresType>> {
  socket(target: { host: string[]; port: number[]; path: string | false }): Promise<net.Socket>
}

/**
 * Once a named statement has told its parameters' types, the driver would make text of them in its own way: of
 * booleans, dates, bytes and JSON, which are text already.
 */
const asItIs = (text: string) => text
const textAsItIs = Object.fromEntries(
  [16, 17, 114, 1082, 1114, 1184, 3802].map((
    to,
  ) => [String(to), { to, from: [], serialize: asItIs, parse: asItIs }]),
)

/**
 * The driver's own sockets hold back the last piece of what needs more than one packet until the server has
 * acknowledged the first: statements that are sent together would take a round trip more.
 */
function openSocket(
  { host: [host], port: [port], path }: { host: string[]; port: number[]; path: string | false },
  timeoutMs: number,
): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(path ? { path } : { host, port: port!, noDelay: true })
    const fail = (error: Error) => {
      clearTimeout(timer)
      reject(error)
      socket.destroy()
    }
    const timer = setTimeout(
      () =>
        fail(Object.assign(new Error(`no connection within ${timeoutMs} ms`), { code: 'CONNECT_TIMEOUT' })),
      timeoutMs,
    )
    // The driver takes the name for TLS from here.
    Object.assign(socket, { host, port })
    socket.once('error', fail)
    socket.once('connect', () => {
      clearTimeout(timer)
      socket.off('error', fail)
      socket.setNoDelay(true)
      resolve(socket)
    })
  })
}

function remove<T>(items: T[], item: T): void {
  const index = items.indexOf(item)
  items[index] = items[items.length - 1]!
  items.pop()
}

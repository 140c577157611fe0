/** Hears `NOTIFY` on one channel, for as long as we want and across restarts of the database. */
import postgres from 'postgres'

export interface ListenerOptions {
  databaseUrl: string
  channel: string
  /** Shown in `pg_stat_activity`. */
  name: string
  heard(payload: string): void
  /** Called after each reconnection: what was said meanwhile was not heard. */
  reconnected(): void
}

export interface Listener {
  close(): Promise<void>
}

/** Wait between attempts to reach a database that is away. */
const retryMs = 250

/** Resolves once the channel is listened to; rejects when the database cannot be reached at the start. */
export async function listen(options: ListenerOptions): Promise<Listener> {
  const stop = Promise.withResolvers<void>()
  let closed = false
  let connection = await connect(options)
  const following = follow()

  async function follow(): Promise<void> {
    while (!closed) {
      await Promise.race([connection.lost, stop.promise])
      await connection.sql.end({ timeout: 0 })
      while (!closed) {
        try {
          connection = await connect(options)
          options.reconnected()
          break
        } catch {
          await pause(retryMs, stop.promise)
        }
      }
    }
  }

  return {
    async close() {
      closed = true
      stop.resolve()
      await following
      await connection.sql.end({ timeout: 0 })
    },
  }
}

/** The driver takes `onnotify`, which its own `listen()` is built on, though its types do not say so. */
interface ListeningOptions extends postgres.Options<Record<string, never>> {
  onnotify(channel: string, payload: string): void
}

/** Not the driver's `listen()`: that gives up, silently, when the database is away while it listens anew. */
async function connect({ databaseUrl, channel, name, heard }: ListenerOptions) {
  const { promise: lost, resolve } = Promise.withResolvers<void>()
  const listening: ListeningOptions = {
    max: 1,
    max_lifetime: null,
    onnotice() {},
    fetch_types: false,
    onclose: () => resolve(),
    onnotify: (_, payload) => heard(payload),
    connection: { application_name: name },
  }
  const sql = postgres(databaseUrl, listening)
  try {
    await sql`listen ${sql(channel)}`
    return { sql, lost }
  } catch (error) {
    await sql.end({ timeout: 0 })
    throw error
  }
}

async function pause(ms: number, cut: Promise<void>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  await Promise.race([promise, cut])
  clearTimeout(timer)
}

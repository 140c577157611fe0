/** One connection to Redis, opened at the first command; whatever is kept there goes through one of these. */
import type { Redis } from 'ioredis'
import { HoldfastError } from '../../core/errors.ts'

export interface RedisConnectionOptions {
  /** `redis://` or `rediss://` (TLS). */
  url: string
  /** Longest a command may take, and a connection to open. */
  timeoutMs: number
  /** What is kept there, as errors call it: `keys`, with its store `the store of idempotency keys`. */
  what: string
  store: string
}

/** `TypeError` or `RangeError` for options that make no sense. */
export class RedisConnection {
  readonly #options: RedisConnectionOptions
  readonly #setUp: (client: Redis) => void
  #client: Promise<Redis> | undefined
  #open: Redis | undefined

  /** `setUp` is called with each new client, before its first command. */
  constructor(options: RedisConnectionOptions, setUp: (client: Redis) => void = () => {}) {
    const { url, timeoutMs, what } = options
    if (!URL.canParse(url) || !/^rediss?:$/.test(new URL(url).protocol)) {
      throw new TypeError(`Cannot keep ${what} in Redis: url is not a redis:// or rediss:// URL`)
    }
    if (!Number.isSafeInteger(timeoutMs) || timeoutMs < 1) {
      throw new RangeError(
        `Cannot keep ${what} in Redis: timeoutMs must be a positive whole number, received ${timeoutMs}`,
      )
    }
    this.#options = options
    this.#setUp = setUp
  }

  /** Rejects with `SERVICE_UNAVAILABLE` when the command fails. */
  async run<T>(command: (client: Redis) => Promise<T>): Promise<T> {
    try {
      return await command(this.#open ?? await (this.#client ??= this.#connect()))
    } catch (error) {
      const found = error instanceof Error ? error.message : String(error)
      throw new HoldfastError('SERVICE_UNAVAILABLE', `Cannot reach ${this.#options.store}: ${found}`, {
        cause: error,
        retryAfterMs: 1_000,
      })
    }
  }

  async close(): Promise<void> {
    const client = await this.#client?.catch(() => undefined)
    this.#client = undefined
    this.#open = undefined
    client?.disconnect()
  }

  async #connect(): Promise<Redis> {
    const { url, timeoutMs } = this.#options
    // Whoever keeps nothing there does not pay for loading it.
    const { Redis } = await import('ioredis')
    const client = new Redis(url, {
      connectTimeout: timeoutMs,
      commandTimeout: timeoutMs,
      // A script whose answer was lost may have run; sending it again could claim a key from oneself, or count twice.
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
    })
    // Every command says by itself that the connection is gone.
    client.on('error', () => {})
    this.#setUp(client)
    return this.#open = client
  }
}

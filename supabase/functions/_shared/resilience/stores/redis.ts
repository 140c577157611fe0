/**
 * Idempotency keys in Redis, for leased routes. Each method is one script, so it is atomic; Redis's own clock decides,
 * and keys leave by its own expiry. What Redis loses in a crash (see its `appendfsync`) is forgotten: a repeated
 * request then runs again.
 */
import { RedisConnection } from './redisConnection.ts'
import {
  type Claim,
  type ClaimOptions,
  dayMs,
  type IdempotencyRequest,
  type IdempotencyStore,
  type StoredAnswer,
} from './store.ts'

export interface RedisStoreOptions {
  /** `redis://` or `rediss://` (TLS). */
  url: string
  /** Before every key. @default 'holdfast:idempotency:' */
  prefix?: string
  /** Longest a command may take, and a connection to open. @default 2_000 */
  timeoutMs?: number
}

type Reply = (string | number | null)[]

interface Scripts {
  claimKey(key: string, ...args: (string | number)[]): Promise<Reply>
  completeKey(key: string, ...args: (string | number)[]): Promise<number>
  releaseKey(key: string, ...args: (string | number)[]): Promise<number>
}

const now = `
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)`

/** The holder of a claim is known by its token, while there is no answer. */
const held = `
local key = redis.call('hmget', KEYS[1], 'token', 'status')
if key[1] ~= ARGV[1] or key[2] then return 0 end`

const scripts = {
  claimKey: `${now}
local fingerprint, effect, lease, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key = redis.call('hmget', KEYS[1], 'fingerprint', 'status', 'headers', 'body', 'until', 'token', 'effect', 'attempt')
if key[1] then
  if key[1] ~= fingerprint then return {'mismatch'} end
  if key[2] then return {'replay', key[2], key[3], key[4]} end
  if tonumber(key[5]) > now then return {'in_progress', tonumber(key[5]) - now} end
end
-- Microseconds grow also after the key was forgotten; the rest guards against a clock that was set back.
local token = math.max(time[1] * 1000000 + time[2], tonumber(key[6] or 0) + 1)
local attempt = tonumber(key[8] or 0) + 1
effect = key[7] or effect
redis.call('hset', KEYS[1], 'fingerprint', fingerprint, 'until', string.format('%.0f', now + lease),
  'token', string.format('%.0f', token), 'effect', effect, 'attempt', attempt)
redis.call('pexpire', KEYS[1], lease + ttl)
return {'claimed', effect, string.format('%.0f', token), attempt}`,
  completeKey: `${held}
redis.call('hset', KEYS[1], 'status', ARGV[2], 'headers', ARGV[3], 'body', ARGV[4])
redis.call('pexpire', KEYS[1], ARGV[5])
return 1`,
  releaseKey: `${now}${held}
redis.call('hset', KEYS[1], 'until', string.format('%.0f', now))
return 1`,
}

/** `TypeError` or `RangeError` for options that make no sense. Connects at the first use. */
export class RedisIdempotencyStore implements IdempotencyStore {
  readonly #connection: RedisConnection
  readonly #prefix: string

  constructor({ url, prefix = 'holdfast:idempotency:', timeoutMs = 2_000 }: RedisStoreOptions) {
    this.#connection = new RedisConnection(
      { url, timeoutMs, what: 'keys', store: 'the store of idempotency keys' },
      (client) => {
        for (const [name, lua] of Object.entries(scripts)) {
          client.defineCommand(name, { numberOfKeys: 1, lua })
        }
      },
    )
    this.#prefix = prefix
  }

  async claim(request: IdempotencyRequest, { leaseMs, ttlMs = dayMs }: ClaimOptions): Promise<Claim> {
    const effectId = crypto.randomUUID()
    const [outcome, ...rest] = await this.#run(
      (client) => client.claimKey(this.#key(request), request.fingerprint, effectId, leaseMs, ttlMs),
    )
    if (outcome === 'claimed') {
      const [effect, token, attempt] = rest
      const attempts = Number(attempt)
      return {
        outcome,
        effectId: String(effect),
        token: Number(token),
        attempt: attempts,
        resumed: attempts > 1,
      }
    }
    if (outcome === 'replay') {
      const [status, headers, body] = rest.map(String)
      return { outcome, answer: { status: Number(status), headers: JSON.parse(headers!), body: body! } }
    }
    if (outcome === 'in_progress') return { outcome, retryAfterMs: Number(rest[0]) }
    return { outcome: 'mismatch' }
  }

  async complete(
    request: IdempotencyRequest,
    token: number,
    { status, headers, body }: StoredAnswer,
    ttlMs: number,
  ): Promise<boolean> {
    const key = this.#key(request)
    return await this.#run((client) =>
      client.completeKey(key, String(token), status, JSON.stringify(headers), body, ttlMs)
    ) === 1
  }

  async release(request: IdempotencyRequest, token: number): Promise<boolean> {
    return await this.#run((client) => client.releaseKey(this.#key(request), String(token))) === 1
  }

  async close(): Promise<void> {
    await this.#connection.close()
  }

  #key({ id }: IdempotencyRequest): string {
    return this.#prefix + id
  }

  #run<T>(command: (client: Scripts) => Promise<T>): Promise<T> {
    return this.#connection.run((client) => command(client as unknown as Scripts))
  }
}

/**
 * Cache entries in Redis. Each method is one script, so it is atomic; Redis's own clock decides, and entries leave by
 * its own expiry. All keys of a cache have its name in braces: in a cluster they are on one node.
 *
 * A Redis that evicts keys when its memory is full forgets entries, which are loaded anew; it may also forget which
 * entries have a tag, and these then live on to the end of their time.
 */
import type { CacheAnswer, CacheQuestion, CacheStore, CacheWrite } from './cacheStore.ts'
import { scripts } from './redisCacheScripts.ts'
import { RedisConnection } from './redisConnection.ts'

export interface RedisCacheOptions {
  /** `redis://` or `rediss://` (TLS). */
  url: string
  /** Before every key. @default 'holdfast:cache:' */
  prefix?: string
  /** Longest a command may take, and a connection to open. @default 2_000 */
  timeoutMs?: number
}

type Arguments = (string | number)[]
type ReadReply = [found: 0 | 1, json: string | null, freshMs: string, token: string | null, busy: 0 | 1]

interface Scripts {
  readCacheEntry(keyCount: number, ...args: Arguments): Promise<ReadReply>
  writeCacheEntry(keyCount: number, ...args: Arguments): Promise<number>
  releaseCacheEntry(keyCount: number, ...args: Arguments): Promise<number>
  invalidateCacheTags(keyCount: number, ...args: Arguments): Promise<number>
  clearCache(keyCount: number, ...args: Arguments): Promise<number>
  unlink(...keys: string[]): Promise<number>
}

/** `TypeError` or `RangeError` for options that make no sense. Connects at the first use. */
export class RedisCacheStore implements CacheStore {
  readonly #prefix: string
  readonly #connection: RedisConnection

  constructor({ url, prefix = 'holdfast:cache:', timeoutMs = 2_000 }: RedisCacheOptions) {
    this.#prefix = prefix
    this.#connection = new RedisConnection(
      { url, timeoutMs, what: 'a shared cache', store: 'the shared cache' },
      (client) => {
        for (const [name, lua] of Object.entries(scripts)) client.defineCommand(name, { lua })
      },
    )
  }

  async read({ cache, key, version, tags, refreshBelowMs, leaseMs }: CacheQuestion): Promise<CacheAnswer> {
    const keys = [this.#entryKey(cache, key), this.#generationKey(cache), ...this.#tagKeys(cache, tags)]
    const [found, json, freshMs, token, busy] = await this.#run((client) =>
      client.readCacheEntry(keys.length, ...keys, version, refreshBelowMs, Math.ceil(leaseMs))
    )
    return {
      entry: found === 1 ? { json, freshMs: Number(freshMs) } : undefined,
      token: token === null ? undefined : Number(token),
      busy: busy === 1,
    }
  }

  async write({ cache, key, version, tags, token, json, ttlMs, keepMs }: CacheWrite): Promise<boolean> {
    const keys = [this.#entryKey(cache, key), this.#generationKey(cache), ...this.#tagKeys(cache, tags)]
    const value = json === null ? [] : [json]
    return await this.#run((client) =>
      client.writeCacheEntry(keys.length, ...keys, version, String(token), ttlMs, keepMs, ...value)
    ) === 1
  }

  async release(cache: string, key: string, token: number): Promise<void> {
    await this.#run((client) => client.releaseCacheEntry(1, this.#entryKey(cache, key), String(token)))
  }

  async invalidate(cache: string, keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return
    await this.#run((client) => client.unlink(...keys.map((key) => this.#entryKey(cache, key))))
  }

  async invalidateTags(cache: string, tags: readonly string[]): Promise<void> {
    const keys = this.#tagKeys(cache, tags)
    await this.#run((client) => client.invalidateCacheTags(keys.length, ...keys))
  }

  async clear(cache: string): Promise<void> {
    await this.#run((client) => client.clearCache(1, this.#generationKey(cache)))
  }

  async close(): Promise<void> {
    await this.#connection.close()
  }

  #entryKey(cache: string, key: string): string {
    return `${this.#prefix}{${cache}}:entry:${key}`
  }

  /** Entries of an earlier generation are absent: so a whole cache is cleared at once. */
  #generationKey(cache: string): string {
    return `${this.#prefix}{${cache}}:generation`
  }

  #tagKeys(cache: string, tags: readonly string[]): string[] {
    return tags.map((tag) => `${this.#prefix}{${cache}}:tag:${tag}`)
  }

  async #run<T>(command: (client: Scripts) => Promise<T>): Promise<T> {
    return await this.#connection.run((client) => command(client as unknown as Scripts))
  }
}

/**
 * Cache entries in PostgreSQL (`holdfast.cache_entries`, unlogged: a crash of the server empties it). Reads that arrive
 * together travel in one statement, those of several caches too. Everything here runs as the connection's own role.
 */
import { type Db, sql, sqlArray } from '../../db/client.ts'
import { batched } from './batch.ts'
import type { CacheAnswer, CacheQuestion, CacheStore, CacheWrite } from './cacheStore.ts'

interface ReadRow extends Record<string, unknown> {
  nth: string
  value: string | null
  /** Null where there is no entry. */
  fresh_ms: number | null
  token: string | null
  busy: boolean
}

export class PostgresCacheStore implements CacheStore {
  readonly #db: () => Db
  readonly #read: (question: CacheQuestion) => Promise<CacheAnswer>

  /** Opens nothing. Closing it leaves the `Db` open. */
  constructor(db: Db | (() => Db)) {
    this.#db = typeof db === 'function' ? db : () => db
    this.#read = batched((questions) => this.#readAll(questions), { maxItems: 100, maxRunning: 1 })
  }

  read(question: CacheQuestion): Promise<CacheAnswer> {
    return this.#read(question)
  }

  async write({ cache, key, version, tags, token, json, ttlMs, keepMs }: CacheWrite): Promise<boolean> {
    const [row] = await this.#db().owner.query<{ written: boolean }>(sql`
      select holdfast.write_cache_entry(${cache}, ${key}, ${version}, ${sqlArray(tags)}, ${token}, ${json},
        ${ttlMs}, ${keepMs}) as written`)
    return row!.written
  }

  async release(cache: string, key: string, token: number): Promise<void> {
    await this.#db().owner.query(sql`select holdfast.release_cache_entry(${cache}, ${key}, ${token})`)
  }

  async invalidate(cache: string, keys: readonly string[]): Promise<void> {
    await this.#db().owner.query(sql`select holdfast.invalidate_cache(${cache}, p_keys => ${sqlArray(keys)})`)
  }

  async invalidateTags(cache: string, tags: readonly string[]): Promise<void> {
    await this.#db().owner.query(sql`select holdfast.invalidate_cache(${cache}, p_tags => ${sqlArray(tags)})`)
  }

  async clear(cache: string): Promise<void> {
    await this.#db().owner.query(sql`select holdfast.invalidate_cache(${cache})`)
  }

  /** The `Db` is its owner's to close. */
  close(): Promise<void> {
    return Promise.resolve()
  }

  async #readAll(questions: CacheQuestion[]): Promise<CacheAnswer[]> {
    const rows = await this.#db().owner.query<ReadRow>(
      sql`select * from holdfast.read_cache_entries(${questions})`,
    )
    const answers: CacheAnswer[] = []
    for (const { nth, value, fresh_ms, token, busy } of rows) {
      answers[Number(nth) - 1] = {
        entry: fresh_ms === null ? undefined : { json: value, freshMs: fresh_ms },
        token: token === null ? undefined : Number(token),
        busy,
      }
    }
    return answers
  }
}

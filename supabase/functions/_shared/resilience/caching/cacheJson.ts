/** Values as the shared tier keeps them. */
import { createLogger } from '../../observability/logger.ts'
import { count } from '../../observability/metrics.ts'
import type { CacheSettings } from './cacheOptions.ts'

/** What is larger stays in the memory of the isolate that loaded it. */
const maxSharedLength = 1_048_576

export interface Written<V> {
  /** What every isolate will have: with a shared tier what its JSON gives. */
  value: V
  /** Null for `undefined`; undefined where it has none, or nobody needs it. */
  json: string | null | undefined
}

export class CacheJson<V> {
  readonly #settings: CacheSettings<V>
  readonly #counted: boolean
  #complained = false

  constructor(settings: CacheSettings<V>) {
    this.#settings = settings
    this.#counted = settings.maxBytes < Infinity
  }

  /** Never throws: what JSON cannot hold is served as it is, and stays in memory. */
  write(loaded: V): Written<V> {
    const { shared } = this.#settings
    if (shared === undefined && !this.#counted) return { value: loaded, json: undefined }
    if (loaded === undefined) return { value: loaded, json: null }
    try {
      const json: string | undefined = JSON.stringify(loaded)
      if (json === undefined) throw new TypeError(`JSON has no ${typeof loaded}`)
      return { value: shared === undefined ? loaded : this.#parse(json), json }
    } catch (error) {
      this.#complain(error)
      return { value: loaded, json: undefined }
    }
  }

  /** Undefined for a text that is broken, or not what `parse` takes. */
  read(json: string | null): { value: V } | undefined {
    if (json === null) return { value: undefined as V }
    try {
      return { value: this.#parse(json) }
    } catch {
      count('cache_broken_total', { cache: this.#settings.name })
      return undefined
    }
  }

  isShareable(json: string | null | undefined): json is string | null {
    return json === null || (json !== undefined && json.length <= maxSharedLength)
  }

  /** Infinity for what cannot be measured, and hence not bounded. */
  sizeOf(json: string | null | undefined): number {
    if (!this.#counted) return 0
    return json === undefined ? Infinity : json?.length ?? 0
  }

  #parse(json: string): V {
    const value: unknown = JSON.parse(json)
    const { parse } = this.#settings
    return parse === undefined || value === null ? value as V : parse(value)
  }

  #complain(error: unknown): void {
    if (this.#complained) return
    this.#complained = true
    const { name, log = createLogger() } = this.#settings
    log.error('A cached value cannot be written as JSON, or not be read again: it stays in memory', {
      cache: name,
      error,
    })
  }
}

/** What tests of caches share: loads that can be watched and held back, logs that can be read, stores that fail. */
import { createLogger, type Logger } from '../../supabase/functions/_shared/observability/logger.ts'
import type { CacheStore } from '../../supabase/functions/_shared/resilience/stores/cacheStore.ts'

export class Source {
  value: unknown = 'first'
  /** What the next loads fail with. */
  failure: Error | undefined
  loads = 0
  running = 0
  /** Most loads at the same time so far. */
  mostRunning = 0
  #gate: PromiseWithResolvers<void> | undefined

  /** Gives the value as it was when the load began. */
  readonly load = async (): Promise<unknown> => {
    this.loads++
    this.mostRunning = Math.max(this.mostRunning, ++this.running)
    const { value, failure } = this
    try {
      await this.#gate?.promise
      if (failure !== undefined) throw failure
      return value
    } finally {
      this.running--
    }
  }

  /** Loads that begin from now on do not end before `open`. */
  hold(): void {
    this.#gate ??= Promise.withResolvers()
  }

  open(): void {
    this.#gate?.resolve()
    this.#gate = undefined
  }
}

export function memoryLog(): { log: Logger; lines: () => { level: string; message: string }[] } {
  const lines: string[] = []
  const log = createLogger({ level: 'debug', write: (_, line) => void lines.push(line) })
  return { log, lines: () => lines.map((line) => JSON.parse(line)) }
}

/** A store that can be away, slow and counted. */
export class FaultyStore implements CacheStore {
  readonly #store: CacheStore
  /** What every call fails with. */
  failure: Error | undefined
  /** Every call waits for it, before it does anything. */
  gate: Promise<void> | undefined
  readonly calls: string[] = []

  constructor(store: CacheStore) {
    this.#store = store
  }

  read: CacheStore['read'] = (...args) => this.#call('read', () => this.#store.read(...args))
  write: CacheStore['write'] = (...args) => this.#call('write', () => this.#store.write(...args))
  release: CacheStore['release'] = (...args) => this.#call('release', () => this.#store.release(...args))
  invalidate: CacheStore['invalidate'] = (...args) =>
    this.#call('invalidate', () => this.#store.invalidate(...args))
  invalidateTags: CacheStore['invalidateTags'] = (...args) =>
    this.#call('invalidateTags', () => this.#store.invalidateTags(...args))
  clear: CacheStore['clear'] = (...args) => this.#call('clear', () => this.#store.clear(...args))
  close = () => this.#store.close()

  async #call<T>(name: string, work: () => Promise<T>): Promise<T> {
    this.calls.push(name)
    await this.gate
    if (this.failure !== undefined) throw this.failure
    return await work()
  }
}

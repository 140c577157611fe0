/**
 * The shared tier as one cache sees it: it answers within a time, or it is away. While it is away nobody waits for it;
 * one look in the background finds out whether it is back, after it has heard of what was invalidated meanwhile.
 */
import { createLogger, type Logger } from '../../observability/logger.ts'
import { count } from '../../observability/metrics.ts'
import type { BackgroundWork } from '../backgroundWork.ts'
import { storedName, storedNames } from '../stores/cacheNames.ts'
import type { CacheAnswer, CacheQuestion, CacheStore, CacheWrite } from '../stores/cacheStore.ts'
import { withTimeout } from '../timeout.ts'
import type { Timers } from '../timers.ts'

/** Between two looks whether it is back. */
export const lookAgainMs = 1_000

/** Beyond so many the whole cache is cleared in their place. */
const maxUnheard = 1_000

export interface SharedTierOptions {
  store: CacheStore
  cache: string
  timeoutMs: number
  timers: Timers
  log: Logger | undefined
  background: BackgroundWork
}

/** What is to be invalidated: some keys, some tags, or everything. */
export interface Invalidation {
  keys?: readonly string[]
  tags?: readonly string[]
  all?: boolean
}

export class SharedTier {
  readonly #options: SharedTierOptions
  /** Undefined while it answers. */
  #away: { lookAt: number; looking: boolean } | undefined
  /** Invalidations that it has not heard of, by the names it knows. */
  #unheard = nothing()
  #timer: unknown
  #closed = false

  constructor(options: SharedTierOptions) {
    this.#options = options
  }

  /** Whether it answers, as far as is known. Where it does not, sees to it that its return is found out. */
  isThere(): boolean {
    const away = this.#away
    if (away === undefined) return true
    if (!away.looking && this.#options.timers.now() >= away.lookAt) this.#look(away)
    return false
  }

  /** Undefined when it is away. */
  async read(question: Omit<CacheQuestion, 'cache'>): Promise<CacheAnswer | undefined> {
    const { store, cache } = this.#options
    const names = await storedFields(question)
    let late = false
    const answer = await this.#ask(async () => {
      const answer = await store.read({ ...question, ...names, cache })
      // Whoever wanted the lease has gone on without it.
      if (late && answer.token !== undefined) await store.release(cache, names.key, answer.token)
      return answer
    })
    late = true
    return answer?.value
  }

  async write(entry: Omit<CacheWrite, 'cache'>): Promise<void> {
    const { store, cache } = this.#options
    const names = await storedFields(entry)
    await this.#ask(() => store.write({ ...entry, ...names, cache }))
  }

  async release(key: string, token: number): Promise<void> {
    const { store, cache } = this.#options
    const stored = await storedName(key)
    await this.#ask(() => store.release(cache, stored, token))
  }

  /** Whether it has heard of it. Otherwise it will as soon as it is back, while this isolate lives. */
  async invalidate({ keys = [], tags = [], all = false }: Invalidation): Promise<boolean> {
    const told = { keys: new Set(await storedNames(keys)), tags: new Set(await storedNames(tags)), all }
    if (this.isThere()) return await this.#tell(told)
    this.#remember(told)
    this.#lookLater()
    return false
  }

  /** It is not looked for any more. */
  close(): void {
    this.#closed = true
    this.#options.timers.clear(this.#timer)
  }

  async #tell(told: Told): Promise<boolean> {
    const { store, cache } = this.#options
    const heard = await this.#ask(async () => {
      if (told.all) return await store.clear(cache)
      if (told.keys.size > 0) await store.invalidate(cache, [...told.keys])
      if (told.tags.size > 0) await store.invalidateTags(cache, [...told.tags])
    })
    if (heard !== undefined) return true
    this.#remember(told)
    this.#lookLater()
    return false
  }

  #remember({ keys, tags, all }: Told): void {
    const unheard = this.#unheard
    for (const key of keys) unheard.keys.add(key)
    for (const tag of tags) unheard.tags.add(tag)
    if (all || unheard.keys.size + unheard.tags.size > maxUnheard) this.#unheard = { ...nothing(), all: true }
  }

  /** Undefined when it failed or took too long: from then on it is away. */
  async #ask<T>(work: () => Promise<T>): Promise<{ value: T } | undefined> {
    const { timeoutMs, timers } = this.#options
    try {
      return { value: await withTimeout(work, { timeoutMs, timers }) }
    } catch (error) {
      this.#lose(error)
      return undefined
    }
  }

  #lose(error: unknown): void {
    const { cache, timers } = this.#options
    const lookAt = timers.now() + lookAgainMs
    if (this.#away !== undefined) {
      this.#away.lookAt = lookAt
      return
    }
    this.#away = { lookAt, looking: false }
    count('cache_shared_away_total', { cache })
    this.#log().warn('The shared cache is away: going on with memory and loads', { cache, error })
  }

  #look(away: { looking: boolean }): void {
    away.looking = true
    this.#options.background.add(
      this.#findOut().finally(() => {
        away.looking = false
        if (this.#away !== undefined && isSomething(this.#unheard)) this.#lookLater()
      }),
    )
  }

  /** It is back once it has heard of everything. */
  async #findOut(): Promise<void> {
    const { store, cache } = this.#options
    const look = { cache, key: 'look', version: '', tags: [], refreshBelowMs: 0, leaseMs: 0 }
    if (await this.#ask(() => store.read(look)) === undefined) return
    while (isSomething(this.#unheard)) {
      const told = this.#unheard
      this.#unheard = nothing()
      if (!await this.#tell(told)) return
    }
    this.#away = undefined
    this.#log().info('The shared cache is back', { cache })
  }

  /** An isolate that is asked for nothing still tells what it has to. */
  #lookLater(): void {
    const { timers } = this.#options
    timers.clear(this.#timer)
    if (!this.#closed) this.#timer = timers.set(() => this.isThere(), lookAgainMs)
  }

  #log(): Logger {
    return this.#options.log ?? createLogger()
  }
}

interface Named {
  key: string
  version: string
  tags: readonly string[]
}

async function storedFields({ key, version, tags }: Named): Promise<Named> {
  // Nearly always they are what they are.
  const [storedKey, storedVersion] = await storedNames([key, version || 'none'])
  return { key: storedKey!, version: version === '' ? '' : storedVersion!, tags: await storedNames(tags) }
}

interface Told {
  keys: Set<string>
  tags: Set<string>
  all: boolean
}

function nothing(): Told {
  return { keys: new Set(), tags: new Set(), all: false }
}

function isSomething({ keys, tags, all }: Told): boolean {
  return all || keys.size > 0 || tags.size > 0
}

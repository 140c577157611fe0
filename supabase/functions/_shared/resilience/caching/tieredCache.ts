/** The cache itself: memory in front, the shared tier behind it, and one load for each key at a time. */
import { BackgroundWork } from '../backgroundWork.ts'
import type { Cache, GetOptions, Load } from '../cache.ts'
import { type Ask, askOf, listOf } from './cacheAsk.ts'
import { CacheEntries } from './cacheEntries.ts'
import { Entry, entryTimes } from './cacheEntry.ts'
import { CacheJson } from './cacheJson.ts'
import { type Answer, CacheLoads, type Running } from './cacheLoads.ts'
import type { CacheSettings } from './cacheOptions.ts'
import { type Invalidation, lookAgainMs, SharedTier } from './cacheShared.ts'
import { CacheCounts, type CacheStats, type Outcome } from './cacheStats.ts'
import { coarseClock } from '../coarseClock.ts'
import type { SharedEntry } from '../stores/cacheStore.ts'
import { untilAborted, withTimeout } from '../timeout.ts'
import { longestTimerMs, wait } from '../timers.ts'

/** While another isolate loads, the one that waits looks at growing distances. */
const firstPauseMs = 15
const longestPauseMs = 250

interface Start<V> {
  /** What is there already, for the case that the load fails. */
  known?: Entry<V>
  background?: boolean
  /** The lease it loads under. */
  token?: number
}

/** What the shared tier said. */
interface Found<V> {
  entry?: Entry<V>
  token?: number
  /** Nothing has to be loaded. */
  done: boolean
}

export class TieredCache<V> implements Cache<V> {
  readonly #settings: CacheSettings<V>
  readonly #version: (() => string | undefined) | undefined
  readonly #clock: () => number
  readonly #entries: CacheEntries<V>
  readonly #loads = new CacheLoads<V>()
  readonly #counts: CacheCounts
  readonly #background = new BackgroundWork()
  readonly #json: CacheJson<V>
  readonly #shared: SharedTier | undefined

  constructor(settings: CacheSettings<V>) {
    const { name, version, shared, timers, log, maxEntries, maxBytes, sharedTimeoutMs } = settings
    this.#settings = settings
    this.#version = version
    this.#clock = coarseClock(timers)
    const counts = this.#counts = new CacheCounts(name)
    this.#entries = new CacheEntries({ maxEntries, maxBytes, onEvict: () => counts.eviction() })
    this.#json = new CacheJson(settings)
    this.#shared = shared && new SharedTier({
      store: shared,
      cache: name,
      timeoutMs: sharedTimeoutMs,
      timers,
      log,
      background: this.#background,
    })
  }

  get(key: string, load: Load<V>, options?: GetOptions): Promise<V> {
    try {
      const version = options?.version ?? this.#version?.()
      const entry = this.#entries.get(key)
      if (
        entry !== undefined && entry.version === version && this.#clock() < entry.checkAt &&
        !options?.signal?.aborted
      ) {
        entry.visited = true
        this.#counts.hit()
        return entry.hit
      }
      return this.#find(askOf(this.#settings, key, load, version, options), options?.signal)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  async invalidate(keys: string | readonly string[]): Promise<boolean> {
    return await this.#invalidate({ keys: listOf(this.#settings, keys) })
  }

  async invalidateTags(tags: string | readonly string[]): Promise<boolean> {
    return await this.#invalidate({ tags: listOf(this.#settings, tags) })
  }

  async clear(): Promise<boolean> {
    return await this.#invalidate({ all: true })
  }

  stats(): CacheStats {
    return this.#counts.stats({ entries: this.#entries.count, bytes: this.#entries.bytes })
  }

  async close(): Promise<void> {
    this.#drop({ all: true })
    this.#shared?.close()
    await this.#background.settled()
  }

  async #find(ask: Ask<V>, signal: AbortSignal | undefined): Promise<V> {
    signal?.throwIfAborted()
    const { key, version } = ask
    const entry = this.#known(ask)
    const served = entry && this.#serve(ask, entry)
    if (served !== undefined) {
      entry!.visited = true
      this.#counts.get(served)
      return entry!.value
    }
    const running = this.#loads.get(key)
    const joins = running !== undefined && running.of.version === version
    const { answer } = joins ? running : this.#begin(ask, { known: entry })
    try {
      const { value, from } = await (signal === undefined ? answer : untilAborted(answer, signal))
      this.#counts.get(joins ? 'joined' : from)
      return value
    } catch (error) {
      if (!signal?.aborted) this.#counts.get('failed')
      throw error
    }
  }

  #known({ key, version }: Ask<V>): Entry<V> | undefined {
    const entry = this.#entries.get(key)
    return entry !== undefined && entry.version === version ? entry : undefined
  }

  /** Whether the entry may be served as it is, and as what. Sees to it that it is loaded anew where it is time. */
  #serve(ask: Ask<V>, entry: Entry<V>): Outcome | undefined {
    const now = this.#settings.timers.now()
    const { localUntil, refreshAt, freshUntil, staleUntil, errorUntil } = entry.times
    if (now < localUntil || !this.#sharesNow(ask)) {
      if (now < freshUntil) {
        if (now >= refreshAt) this.#refresh(ask, entry)
        return 'hit'
      }
      if (now < staleUntil) {
        this.#refresh(ask, entry)
        return 'stale'
      }
    }
    return now < entry.quietUntil && now < errorUntil ? 'stale_on_error' : undefined
  }

  /** In the background; not right after a failure, and not while it is loaded already. */
  #refresh(ask: Ask<V>, known: Entry<V>, token?: number): void {
    if (token === undefined) {
      if (this.#settings.timers.now() < known.quietUntil || this.#loads.get(ask.key) !== undefined) return
    }
    this.#counts.refresh()
    this.#background.add(this.#begin(ask, { known, background: true, token }).answer)
  }

  #begin(ask: Ask<V>, start: Start<V>): Running<V> {
    return this.#loads.begin(ask, start.background ?? false, (running) => this.#run(ask, start, running))
  }

  async #run(ask: Ask<V>, { known, token }: Start<V>, running: Running<V>): Promise<Answer<V>> {
    if (token === undefined && this.#sharesNow(ask)) {
      const found = await this.#look(ask, running)
      if (found === undefined) {
        const served = known && !running.background && !running.dropped ? this.#serve(ask, known) : undefined
        if (served !== undefined) return { value: known!.value, from: served }
      } else {
        // What the others have counts, not what this isolate remembers.
        known = found.entry
        token = found.token
        if (known === undefined && !running.dropped) this.#entries.delete(ask.key)
        if (known !== undefined && (found.done || (!running.background && this.#isServable(known)))) {
          if (token !== undefined) this.#refresh(ask, known, token)
          return { value: known.value, from: this.#isFresh(known) ? 'shared' : 'stale' }
        }
      }
    }
    return await this.#load(ask, known, token, running)
  }

  /** The shared tier is asked until it has the entry or gives the lease; undefined when it is away. */
  async #look(ask: Ask<V>, running: Running<V>): Promise<Found<V> | undefined> {
    const { timers, random, leaseMs, earlyRefresh } = this.#settings
    const { key, version = '', tags, ttlMs } = ask
    const endsAt = timers.now() + leaseMs
    // Whoever has to ask anyway asks for the early refresh as well.
    let refreshBelowMs = earlyRefresh * ttlMs * (running.background ? 1 : random())
    for (let pauseMs = firstPauseMs;; pauseMs = Math.min(pauseMs * 1.5, longestPauseMs)) {
      const askedAt = timers.now()
      const answer = await this.#shared!.read({ key, version, tags, refreshBelowMs, leaseMs })
      if (answer === undefined) return undefined
      const { token, busy } = answer
      const entry = answer.entry && this.#revive(ask, answer.entry, askedAt, running)
      if (token !== undefined) return { entry, token, done: false }
      if (entry !== undefined) {
        if (!busy) return { entry, done: true }
        if (running.background || this.#isServable(entry)) {
          entry.quietUntil = timers.now() + longestPauseMs
          return { entry, done: running.background }
        }
      }
      const leftMs = endsAt - timers.now()
      if (leftMs <= 0) return { entry, done: false }
      if (answer.entry !== undefined && entry === undefined && refreshBelowMs < longestTimerMs) {
        // It is there and cannot be read: whatever its time, it has to be loaded.
        refreshBelowMs = longestTimerMs
        continue
      }
      // A random part, so that those who wait in several isolates do not look all at once.
      await wait(Math.min(leftMs, pauseMs * (0.5 + random() / 2)), undefined, timers)
    }
  }

  /** Undefined for what cannot be read. */
  #revive(
    ask: Ask<V>,
    { json, freshMs }: SharedEntry,
    askedAt: number,
    running: Running<V>,
  ): Entry<V> | undefined {
    const revived = this.#json.read(json)
    if (revived === undefined || !Number.isFinite(freshMs)) return undefined
    const entry = this.#entryOf(ask, revived.value, json ?? '', askedAt, freshMs)
    if (!running.dropped) this.#entries.put(entry)
    return entry
  }

  async #load(
    ask: Ask<V>,
    known: Entry<V> | undefined,
    token: number | undefined,
    running: Running<V>,
  ): Promise<Answer<V>> {
    const { timers, loadTimeoutMs } = this.#settings
    try {
      const loaded = await withTimeout(async (signal) => await ask.load(signal), {
        timeoutMs: loadTimeoutMs,
        timers,
      })
      return { value: this.#keep(ask, loaded, token, running), from: 'loaded' }
    } catch (error) {
      if (token !== undefined) this.#background.add(this.#shared!.release(ask.key, token))
      if (running.background) this.#counts.refreshFailure()
      const now = timers.now()
      if (known === undefined || running.dropped || now >= known.times.errorUntil) throw error
      known.quietUntil = now + lookAgainMs
      return { value: known.value, from: 'stale_on_error' }
    }
  }

  /** In memory, and in the shared tier where this isolate holds the lease. What the caller gets is what is kept. */
  #keep(ask: Ask<V>, loaded: V, token: number | undefined, running: Running<V>): V {
    const { negativeTtlMs, staleMs, staleIfErrorMs, timers } = this.#settings
    const { key, version = '', tags } = ask
    const ttlMs = isNone(loaded) ? negativeTtlMs : ask.ttlMs
    const { value, json } = this.#json.write(loaded)
    const keeps = ttlMs > 0 && !running.dropped
    if (keeps) this.#entries.put(this.#entryOf(ask, value, json, timers.now(), ttlMs))
    if (token !== undefined) {
      const keepMs = isNone(loaded) ? 0 : Math.max(staleMs, staleIfErrorMs)
      this.#background.add(
        keeps && this.#json.isShareable(json)
          ? this.#shared!.write({ key, version, tags, token, json, ttlMs, keepMs })
          : this.#shared!.release(key, token),
      )
    }
    return value
  }

  #entryOf(
    { key, version, tags, ttlMs }: Ask<V>,
    value: V,
    json: string | null | undefined,
    now: number,
    freshMs: number,
  ): Entry<V> {
    const { random } = this.#settings
    const times = entryTimes(now, { ...this.#settings, ttlMs, freshMs, negative: isNone(value) }, random)
    return new Entry(key, value, { version, tags, size: this.#json.sizeOf(json), times })
  }

  #isServable({ times: { staleUntil } }: Entry<V>): boolean {
    return this.#settings.timers.now() < staleUntil
  }

  #isFresh({ times: { freshUntil } }: Entry<V>): boolean {
    return this.#settings.timers.now() < freshUntil
  }

  /** Whether the shared tier is there, and may be asked: not for a schema that nobody knows. */
  #sharesNow({ version }: Ask<V>): boolean {
    return this.#shared !== undefined && (version !== undefined || this.#version === undefined) &&
      this.#shared.isThere()
  }

  async #invalidate(what: Invalidation): Promise<boolean> {
    this.#drop(what)
    if (this.#shared === undefined) return true
    const heard = await this.#shared.invalidate(what)
    // What this isolate has read from there in the meantime is as old.
    this.#drop(what)
    return heard
  }

  #drop(what: Invalidation): void {
    this.#entries.drop(what)
    this.#loads.drop(what)
  }
}

/** There is none. */
function isNone(value: unknown): boolean {
  return value === null || value === undefined
}

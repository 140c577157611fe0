/**
 * The entries of one isolate, with a bound. Which go is decided by SIEVE: a hand moves from the oldest to the newest,
 * spares once who was asked for since it passed, and takes the first who was not. A hit sets a mark and moves nothing,
 * and a scan of many keys that are asked for once does not push out those that are asked for again and again.
 */
import type { Entry } from './cacheEntry.ts'
import type { Invalidation } from './cacheShared.ts'

export interface EntryBounds {
  maxEntries: number
  /** Of the sizes together. */
  maxBytes: number
  /** An entry went for lack of room. */
  onEvict: () => void
}

export class CacheEntries<V> {
  readonly #bounds: EntryBounds
  readonly #byKey = new Map<string, Entry<V>>()
  readonly #byTag = new Map<string, Set<Entry<V>>>()
  #newest: Entry<V> | undefined
  #oldest: Entry<V> | undefined
  #hand: Entry<V> | undefined
  #bytes = 0

  constructor(bounds: EntryBounds) {
    this.#bounds = bounds
  }

  get count(): number {
    return this.#byKey.size
  }

  get bytes(): number {
    return this.#bytes
  }

  get(key: string): Entry<V> | undefined {
    return this.#byKey.get(key)
  }

  /** In the place of the one with its key. What is larger than all the room is not kept. */
  put(entry: Entry<V>): void {
    const former = this.#byKey.get(entry.key)
    if (former !== undefined) {
      entry.visited = former.visited
      this.#remove(former)
    }
    const { maxEntries, maxBytes } = this.#bounds
    if (entry.size > maxBytes) return
    while (this.#byKey.size >= maxEntries || this.#bytes + entry.size > maxBytes) this.#evict()
    this.#add(entry)
  }

  delete(key: string): void {
    const entry = this.#byKey.get(key)
    if (entry !== undefined) this.#remove(entry)
  }

  drop({ keys = [], tags = [], all = false }: Invalidation): void {
    if (all) return this.#clear()
    for (const key of keys) this.delete(key)
    for (const tag of tags) {
      for (const entry of this.#byTag.get(tag) ?? []) this.#remove(entry)
    }
  }

  #clear(): void {
    this.#byKey.clear()
    this.#byTag.clear()
    this.#newest = this.#oldest = this.#hand = undefined
    this.#bytes = 0
  }

  /** Only with at least one entry. */
  #evict(): void {
    let hand = this.#hand ?? this.#oldest!
    while (hand.visited) {
      hand.visited = false
      hand = hand.newer ?? this.#oldest!
    }
    this.#hand = hand
    this.#remove(hand)
    this.#bounds.onEvict()
  }

  #add(entry: Entry<V>): void {
    this.#byKey.set(entry.key, entry)
    for (const tag of entry.tags) {
      const tagged = this.#byTag.get(tag)
      if (tagged === undefined) this.#byTag.set(tag, new Set([entry]))
      else tagged.add(entry)
    }
    this.#bytes += entry.size
    entry.older = this.#newest
    if (this.#newest === undefined) this.#oldest = entry
    else this.#newest.newer = entry
    this.#newest = entry
  }

  #remove(entry: Entry<V>): void {
    this.#byKey.delete(entry.key)
    for (const tag of entry.tags) {
      const tagged = this.#byTag.get(tag)
      if (tagged?.delete(entry) && tagged.size === 0) this.#byTag.delete(tag)
    }
    this.#bytes -= entry.size
    if (this.#hand === entry) this.#hand = entry.newer
    if (entry.older === undefined) this.#oldest = entry.newer
    else entry.older.newer = entry.newer
    if (entry.newer === undefined) this.#newest = entry.older
    else entry.newer.older = entry.older
    entry.newer = entry.older = undefined
  }
}

/** What a store counts by: the limiter's name, its windows and whom it counts, in a form that every store takes. */
import { createHash } from 'node:crypto'
import { windowsTag } from './rateLimitPolicy.ts'
import type { RateLimitWindow } from '../stores/rateLimitStore.ts'

const longestKey = 255
const longestTag = 80
const mark = 'sha256:'

/** Unpaired surrogates and control characters, which not every store keeps apart. */
// deno-lint-ignore no-control-regex
const unsafe = /[\0-\x1f\x7f]|\p{Surrogate}/u

/** Keys that are remembered, twice: those of late, and those before them. */
const remembered = 10_000

/** The keys of one limiter. A limiter whose windows were changed begins with nothing counted. */
export class RateLimitKeys {
  readonly #prefix: string
  /** Joining and looking through a text takes longer than all else that a decision in memory does. */
  #recent = new Map<string, string>()
  #earlier = new Map<string, string>()

  constructor(limiter: string, windows: readonly RateLimitWindow[]) {
    const tag = windowsTag(windows)
    this.#prefix = `${limiter}|${tag.length <= longestTag ? tag : mark + digest(tag)}|`
  }

  /**
   * The prefix, then the partition key: as it is where it is short and plain, or else its SHA-256. Two partition keys
   * never share a key.
   */
  of(partitionKey: string): string {
    const known = this.#recent.get(partitionKey)
    if (known !== undefined) return known
    const key = this.#earlier.get(partitionKey) ?? this.#make(partitionKey)
    if (partitionKey.length > longestKey) return key
    if (this.#recent.size >= remembered) {
      this.#earlier = this.#recent
      this.#recent = new Map()
    }
    this.#recent.set(partitionKey, key)
    return key
  }

  #make(partitionKey: string): string {
    const key = this.#prefix + partitionKey
    if (key.length <= longestKey && !partitionKey.startsWith(mark) && !unsafe.test(partitionKey)) return key
    return this.#prefix + mark + digest(partitionKey)
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text, 'utf16le').digest('hex')
}

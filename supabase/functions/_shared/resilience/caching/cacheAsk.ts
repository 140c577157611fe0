/** What a cache is asked, checked. */
import type { GetOptions, Load } from '../cache.ts'
import { requireDuration } from '../timers.ts'

export interface Ask<V> {
  key: string
  load: Load<V>
  version: string | undefined
  tags: readonly string[]
  ttlMs: number
}

/** `TypeError` or `RangeError` for what makes no sense. */
export function askOf<V>(
  cache: { name: string; ttlMs: number },
  key: string,
  load: Load<V>,
  version: string | undefined,
  { tags = [], ttlMs = cache.ttlMs }: GetOptions = {},
): Ask<V> {
  const tried = `Cannot get from the cache "${cache.name}"`
  if (typeof key !== 'string') throw new TypeError(`${tried}: the key must be a text, received ${typeof key}`)
  if (!isListOfTexts(tags)) throw new TypeError(`${tried}: tags must be a list of texts`)
  requireDuration(`${tried}: ttlMs`, ttlMs)
  return { key, load, version, tags, ttlMs }
}

/** Of keys or tags to invalidate. */
export function listOf(cache: { name: string }, given: string | readonly string[]): readonly string[] {
  const list = typeof given === 'string' ? [given] : given
  if (isListOfTexts(list)) return list
  throw new TypeError(`Cannot invalidate in the cache "${cache.name}": keys and tags must be texts`)
}

function isListOfTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}

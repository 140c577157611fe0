/** Takes as often as it can, so many at a time. */
import { keysOf, type Subject, take } from './subject.ts'

export interface HammerOptions {
  keys: keyof typeof keysOf
  lanes: number
  seconds: number
  signal?: AbortSignal
}

export interface Hammered {
  decisions: number
  seconds: number
}

export async function hammer(subject: Subject, options: HammerOptions): Promise<Hammered> {
  const { keys, lanes, seconds, signal } = options
  const nextKey = keysOf[keys]
  const startedAt = performance.now()
  const end = startedAt + seconds * 1_000
  let decisions = 0
  await Promise.all(Array.from({ length: lanes }, async () => {
    while (performance.now() < end) {
      signal?.throwIfAborted()
      await take(subject, nextKey())
      decisions++
    }
  }))
  return { decisions, seconds: (performance.now() - startedAt) / 1_000 }
}

/** What the limiter's measures compare: something that takes one from a key, and says so when it cannot. */

export interface Subject {
  /** Takes one. What it resolves to, or that it rejects, says whether there was one left. */
  consume(key: string): Promise<unknown>
  close(): Promise<void>
}

/** So many that no run comes near: what is measured is decisions that admit, each of which has to be written down. */
export const quota = 100_000_000
export const windowSeconds = 86_400

export const lanes = 16
export const manyKeys = 10_000

/** One hot key, or one of many at random. */
export const keysOf = {
  'hot key': () => 'hot',
  '10,000 keys': () => `key-${Math.floor(Math.random() * manyKeys)}`,
}

/** Nobody is meant to be refused: it would flatter. */
export async function take({ consume }: Subject, key: string): Promise<void> {
  const decision = await consume(key) as { allowed?: boolean }
  if (decision.allowed === false) throw new Error('Cannot measure the limiter: it refused')
}

/** Each key once, so that every later decision finds its row. */
export async function touchAll(subject: Subject): Promise<void> {
  let next = 0
  await Promise.all(Array.from({ length: lanes }, async () => {
    while (next < manyKeys) await take(subject, `key-${next++}`)
  }))
  await take(subject, 'hot')
}

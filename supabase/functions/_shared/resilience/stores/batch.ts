/** Questions asked at the same time travel together: one at a time is on its way, the next takes all that came since. */

export interface BatchOptions {
  /** Most questions in one batch. */
  maxItems: number
  /** Batches on their way at once. */
  maxRunning: number
}

/** Turns of the microtask queue, well below a microsecond each. */
const patience = 10

/** A lone question waits for nobody. A failure is that of every question of its batch. */
export function batched<Item, Answer>(
  ask: (items: Item[]) => Promise<Answer[]>,
  { maxItems, maxRunning }: BatchOptions,
): (item: Item) => Promise<Answer> {
  const waiting: { item: Item; resolve(answer: Answer): void; reject(error: unknown): void }[] = []
  let running = 0

  const send = async () => {
    running++
    const batch = waiting.splice(0, maxItems)
    try {
      const answers = await ask(batch.map(({ item }) => item))
      batch.forEach(({ resolve }, index) => resolve(answers[index]!))
    } catch (error) {
      for (const { reject } of batch) reject(error)
    } finally {
      // Whoever was answered may ask again a few turns later; without a moment's patience small batches and large ones
      // would alternate.
      for (let turn = 0; turn < patience; turn++) await undefined
      running--
      if (waiting.length > 0) void send()
    }
  }

  return (item) =>
    new Promise((resolve, reject) => {
      waiting.push({ item, resolve, reject })
      if (running < maxRunning) void send()
    })
}

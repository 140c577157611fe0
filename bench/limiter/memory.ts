/** A decision in memory, in nanoseconds: on one hot key, and on 10,000 in turn. */
import { compareCalls } from '../support/calls.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { openFlexibleMemory } from './flexible.ts'
import { openHoldfastMemory } from './holdfast.ts'
import { manyKeys, type Subject } from './subject.ts'

const name = 'memory'

export const memory: Measure = {
  name,
  async run(bench) {
    await compare(bench, `${name}, hot key`, ['hot'])
    await compare(
      bench,
      `${name}, 10,000 keys`,
      Array.from({ length: manyKeys }, (_, index) => `key-${index}`),
    )
  },
}

async function compare(bench: Bench, measure: string, keys: string[]): Promise<void> {
  const { resources } = bench
  const open = (subject: Subject) => {
    resources.adopt(subject, (subject) => subject.close())
    let calls = 0
    return () => subject.consume(keys[calls++ % keys.length]!)
  }
  await compareCalls(bench, measure, {
    holdfast: open(openHoldfastMemory()),
    'rate-limiter-flexible': open(openFlexibleMemory()),
  }, [
    // 1.2 times as many in the same time.
    { ours: 'holdfast', against: 'rate-limiter-flexible', aim: `<=${(1 / 1.2).toFixed(3)}` },
  ])
}

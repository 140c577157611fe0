/** What a call costs that never leaves the process, in nanoseconds: one after the other, the event loop turning as in a server. */
import { setImmediate } from 'node:timers/promises'
import { interleaved, median } from './statistics.ts'
import type { Bench } from './suite.ts'

const rounds = 40
const callsPerRound = 20_000
/** Background work gets its turn after so many calls, and counts: it is part of the price. */
const callsPerTurn = 1_000

export type Subjects = Record<string, () => Promise<unknown>>

export interface Comparison {
  ours: string
  against: string
  aim: string
}

/** Prints each subject's figure, and a verdict for each comparison. */
export async function compareCalls(
  { report, signal }: Bench,
  measure: string,
  subjects: Subjects,
  comparisons: readonly Comparison[],
): Promise<void> {
  const names = Object.keys(subjects)
  const nanoseconds = (subject: string) => nanosecondsPerCall(subjects[subject]!, signal)
  // The first rounds are the compiler's.
  await interleaved(names, 5, nanoseconds)
  const results = await interleaved(names, rounds, nanoseconds)
  const found = (subject: string) => median(results.get(subject)!)

  for (const subject of names) report.figure({ measure, subject, value: found(subject), unit: 'ns' })
  for (const { ours, against, aim } of comparisons) {
    const name = ours === 'holdfast' ? measure : `${measure}, ${ours}`
    report.verdict({ measure: name, against, ratio: found(ours) / found(against), aim })
  }
}

async function nanosecondsPerCall(call: () => Promise<unknown>, signal: AbortSignal): Promise<number> {
  signal.throwIfAborted()
  const startedAt = performance.now()
  for (let turns = 0; turns < callsPerRound / callsPerTurn; turns++) {
    for (let calls = 0; calls < callsPerTurn; calls++) await call()
    await setImmediate()
  }
  return (performance.now() - startedAt) * 1e6 / callsPerRound
}

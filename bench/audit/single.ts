/**
 * One row, one statement, one transaction, in a loop on the server: what auditing adds to it, on the clock and in the
 * processor time of the session. For a signed-in caller through an edge function and over REST, and without a request.
 *
 * Rounds are short and the best tenth of them is taken, for whatever else runs on the machine only makes them longer.
 */
import { interleaved } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { reportAdded } from './added.ts'
import { type Context, contexts } from './context.ts'
import { cpuTimeOf, openSession, openSubjects, type Subject } from './subjects.ts'
import { type Operation, operations, orders } from './tables.ts'

const rounds = 25
const perRound = 100

const aims: Partial<Record<Operation, string>> = { insert: '<=0.0667', update: '<=0.125' }

export const single: Measure = {
  name: 'single',
  async run(bench) {
    const { all } = await openSubjects(bench, {
      tables: [orders],
      rows: 10_000,
      ids: (rounds + 1) * perRound,
    })
    const names = Object.keys(contexts) as Context[]
    for (const context of names) await measureContext(bench, all, context)
    const writes = names.length * (rounds + 1) * perRound * operations.length
    for (const subject of all) await subject.expectRecorded(orders, writes)
  },
}

/** For each operation, in microseconds a statement. */
type Times = Record<Operation, { wall: number; cpu: number }>

async function measureContext(bench: Bench, all: readonly Subject[], context: Context): Promise<void> {
  const writers = new Map<Subject, (round: number) => Promise<Times>>()
  for (const subject of all) writers.set(subject, await openWriter(bench, subject, context))
  // The first round plans, and fills the caches.
  for (const write of writers.values()) await write(0)
  const results = await interleaved(all, rounds, (subject, round) => writers.get(subject)!(round + 1))

  for (const operation of operations) {
    const values = (of: (times: Times[]) => number) =>
      new Map([...results].map(([{ name }, times]) => [name, of(times)]))
    reportAdded(bench, {
      measure: `single ${operation}, ${context}`,
      unit: 'us',
      values: values((times) => lowest(times.map((time) => time[operation].wall))),
      aim: aims[operation],
    })
    // By the tick a round says little; the sum of all does.
    reportAdded(bench, {
      measure: `single ${operation}, ${context}, CPU`,
      unit: 'us',
      values: values((times) => mean(times.map((time) => time[operation].cpu))),
      aim: aims[operation],
    })
  }
}

/** Inserts, updates and deletes the same rows, each in a loop of its own: the table stays as large as it was. */
async function openWriter(
  bench: Bench,
  subject: Subject,
  context: Context,
): Promise<(round: number) => Promise<Times>> {
  const session = await openSession(bench, subject.url, contexts[context])
  const cpuMs = await cpuTimeOf(session)
  return async (round) => {
    bench.signal.throwIfAborted()
    const times = {} as Times
    for (const operation of operations) {
      const call = `call bench.${operation}_${orders.name}(${round * perRound}, ${perRound})`
      const cpuBefore = await cpuMs()
      const startedAt = performance.now()
      await session.unsafe(call)
      const wallMs = performance.now() - startedAt
      const cpu = await cpuMs() - cpuBefore
      times[operation] = { wall: wallMs * 1_000 / perRound, cpu: cpu * 1_000 / perRound }
    }
    return times
  }
}

function lowest(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 10)]!
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

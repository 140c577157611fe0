/**
 * Idempotent writes in a second, 16 at a time, each with a key of its own: claim, one insert, stored answer. On one
 * PostgreSQL, durable as in production, with the same driver and as many connections, and past row level security.
 */
import { flushMs, startDatabase } from '../support/database.ts'
import { createNotes } from '../support/notes.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { type Throughput, throughput } from '../support/throughput.ts'
import { newRequest, openAtomic } from './atomic.ts'
import { createKeys, openSixStatements } from './sixStatements.ts'

const name = 'idempotent write'
const rounds = 6
const seconds = 1.5
export const lanes = 16

export const write: Measure = {
  name,
  async run(bench) {
    const database = await startDatabase(bench)
    bench.report.figure({
      measure: `${name} disk flush`,
      subject: 'disk',
      value: flushMs(database),
      unit: 'ms',
    })
    const subjects = await openSubjects(bench, database)
    const names = Object.keys(subjects) as (keyof typeof subjects)[]
    const measure = (subject: keyof typeof subjects, seconds: number) =>
      throughput(subjects[subject], { lanes, seconds, server: database, signal: bench.signal })
    // Opens the connections, and lets the compiler do its work.
    for (const subject of names) await measure(subject, 1)
    const results = await interleaved(names, rounds, (subject) => measure(subject, seconds))

    tellThroughput(bench, name, results)
    const speed = (subject: keyof typeof subjects) =>
      median(results.get(subject)!.map(({ perSecond }) => perSecond))
    for (const against of ['six statements', 'six statements, unnamed'] as const) {
      bench.report.verdict({ measure: name, against, ratio: speed('atomic') / speed(against), aim: '>=3' })
      bench.report.verdict({
        measure: `${name} of one statement`,
        against,
        ratio: speed('atomic, one statement') / speed(against),
        aim: '>=4.5',
      })
    }
  },
}

async function openSubjects({ resources }: Bench, database: Parameters<typeof openAtomic>[0]) {
  await createNotes(database)
  await createKeys(database)
  const ours = resources.adopt(openAtomic(database, { connections: lanes }), (ours) => ours.close())
  const six = (named: boolean) =>
    resources.adopt(openSixStatements(database, { connections: lanes, named }), (six) => six.close())
  const named = six(true)
  const unnamed = six(false)
  const writeBy = (peer: typeof named) => () => {
    const { id, fingerprint } = newRequest()
    return peer.write(id, fingerprint)
  }
  return {
    atomic: () => ours.write(newRequest()),
    'atomic, one statement': () => ours.writeOneStatement(newRequest()),
    'six statements': writeBy(named),
    'six statements, unnamed': writeBy(unnamed),
  }
}

export function tellThroughput({ report }: Bench, name: string, results: Map<string, Throughput[]>): void {
  const figure = (measure: string, unit: string, value: (round: Throughput) => number) => {
    for (const [subject, all] of results) {
      report.figure({ measure, subject, value: median(all.map(value)), unit })
    }
  }
  figure(name, '1/s', ({ perSecond }) => perSecond)
  figure(`${name} p50`, 'ms', ({ p50Ms }) => p50Ms)
  figure(`${name} client CPU`, 'us', ({ clientCpu }) => clientCpu)
  figure(`${name} server CPU`, 'us', ({ serverCpu }) => serverCpu)
}

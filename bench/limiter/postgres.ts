/**
 * Decisions in a second that PostgreSQL has to write down, 16 at a time from one process, on one hot key and on one of
 * 10,000 at random. Durable as in production, as far as the table is.
 */
import type { Cluster } from '../../local/postgres/cluster.ts'
import { startDatabase } from '../support/database.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { throughput } from '../support/throughput.ts'
import {
  type Keys,
  peerConnections,
  peers,
  type PostgresSubject,
  postgresSubjects,
  subjectsOn,
} from './postgresSubjects.ts'
import { keysOf, lanes, type Subject, take, touchAll } from './subject.ts'

const leased = 'holdfast, leases of 100'
const rounds = 5
const seconds = 0.8

const aims: Record<Keys, { named: string; unnamed: string }> = {
  'hot key': { named: '>=25', unnamed: '>=10' },
  '10,000 keys': { named: '>=3.5', unnamed: '>=1.5' },
}

export const postgres: Measure = {
  name: 'postgres',
  async run(bench) {
    const database = await startDatabase(bench)
    for (const keys of ['hot key', '10,000 keys'] as const) await measureKeys(bench, database, keys)
  },
}

async function measureKeys(bench: Bench, database: Cluster, keys: Keys): Promise<void> {
  const { report, signal } = bench
  await using opened = new AsyncDisposableStack()
  const subjects = await openAll(opened, database, keys)
  const measureOne = (name: PostgresSubject, seconds: number) => {
    const subject = subjects.get(name)!
    return throughput(() => take(subject, keysOf[keys]()), { lanes, seconds, server: database, signal })
  }
  // Opens the connections, and lets the compiler do its work.
  const names = subjectsOn[keys]
  for (const name of names) {
    await touchAll(subjects.get(name)!)
    await measureOne(name, 0.5)
  }
  const results = await interleaved(names, rounds, (name) => measureOne(name, seconds))

  const measure = `postgres, ${keys}`
  const figure = (
    name: string,
    unit: string,
    value: (round: Awaited<ReturnType<typeof measureOne>>) => number,
  ) => {
    for (const [subject, all] of results) {
      report.figure({ measure: name, subject, value: median(all.map(value)), unit })
    }
  }
  figure(measure, '1/s', ({ perSecond }) => perSecond)
  figure(`${measure}, p50`, 'ms', ({ p50Ms }) => p50Ms)
  figure(`${measure}, client CPU`, 'us', ({ clientCpu }) => clientCpu)
  figure(`${measure}, server CPU`, 'us', ({ serverCpu }) => serverCpu)
  const speed = (name: PostgresSubject) => median(results.get(name)!.map(({ perSecond }) => perSecond))
  const { named, unnamed } = aims[keys]
  for (const against of peers) {
    report.verdict({ measure, against, ratio: speed('holdfast') / speed(against), aim: named })
    report.verdict({
      measure: `${measure}, unnamed`,
      against,
      ratio: speed('holdfast, unnamed') / speed(against),
      aim: unnamed,
    })
    if (!names.includes(leased)) continue
    report.verdict({
      measure: `${measure}, leased`,
      against,
      ratio: speed(leased) / speed(against),
      aim: named,
    })
  }
}

async function openAll(
  opened: AsyncDisposableStack,
  database: Cluster,
  keys: Keys,
): Promise<Map<PostgresSubject, Subject>> {
  const subjects = new Map<PostgresSubject, Subject>()
  for (const name of subjectsOn[keys]) {
    const subject = await postgresSubjects[name](database.url(), peerConnections[keys])
    subjects.set(name, opened.adopt(subject, (subject) => subject.close()))
  }
  return subjects
}

/**
 * Replays in a second, 16 at a time: many keys that have answers, asked for in turn. Beside the six statements that a
 * write takes by hand, and, for comparison, the one statement that a replay by hand takes at best.
 */
import { startDatabase } from '../support/database.ts'
import { createNotes } from '../support/notes.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { throughput } from '../support/throughput.ts'
import { newRequest, openAtomic } from './atomic.ts'
import { createKeys, openSixStatements } from './sixStatements.ts'
import { lanes, tellThroughput } from './write.ts'

const name = 'replay'
const rounds = 6
const seconds = 1.5
const keys = 5_000

export const replay: Measure = {
  name,
  async run(bench) {
    const database = await startDatabase(bench)
    const subjects = await openSubjects(bench, database)
    const names = Object.keys(subjects) as (keyof typeof subjects)[]
    const measure = (subject: keyof typeof subjects, seconds: number) =>
      throughput(subjects[subject], { lanes, seconds, server: database, signal: bench.signal })
    for (const subject of names) await measure(subject, 1)
    const results = await interleaved(names, rounds, (subject) => measure(subject, seconds))

    tellThroughput(bench, name, results)
    const speed = (subject: keyof typeof subjects) =>
      median(results.get(subject)!.map(({ perSecond }) => perSecond))
    for (const against of ['six statements', 'six statements, unnamed'] as const) {
      bench.report.verdict({ measure: name, against, ratio: speed('atomic') / speed(against), aim: '>=15' })
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
  const answered = Array.from({ length: keys }, newRequest)
  const one = (count: number) => answered[count % keys]!
  for (let from = 0; from < keys; from += lanes) {
    await Promise.all(
      answered.slice(from, from + lanes).map(async (request) => {
        await ours.writeOneStatement(request)
        await named.write(request.id, request.fingerprint)
      }),
    )
  }
  const writeBy = (peer: typeof named) => () => {
    const { id, fingerprint } = newRequest()
    return peer.write(id, fingerprint)
  }
  return {
    atomic: async (count: number) => {
      const { replayed } = await ours.write(one(count))
      if (!replayed) throw new Error('Cannot measure replays: the work ran again')
    },
    'six statements': writeBy(named),
    'six statements, unnamed': writeBy(unnamed),
    'replay by hand': (count: number) => named.replay(one(count).id, one(count).fingerprint),
  }
}

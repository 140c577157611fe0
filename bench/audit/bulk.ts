/**
 * 100,000 rows in one statement: what auditing adds to each of them, on the clock and in the processor time of the
 * session. The latter is what holds on a machine where other programs run as well.
 */
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { reportAdded } from './added.ts'
import { contexts } from './context.ts'
import { cpuTimeOf, openSession, openSubjects, type Subject, type SubjectName } from './subjects.ts'
import { orders } from './tables.ts'

const rows = 100_000
/** The peer takes half a minute for each statement; the others have rounds before and after it. */
const rounds: Record<SubjectName, number> = { 'no auditing': 3, holdfast: 3, supa_audit: 1 }

const aims = { insert: '<=0.143', update: '<=0.25' }
const operations = ['insert', 'update'] as const

export const bulk: Measure = {
  name: 'bulk',
  async run(bench) {
    const { all } = await openSubjects(bench, { tables: [orders], rows: 0, ids: rows })
    const writers = new Map<Subject, () => Promise<Times>>()
    for (const subject of all) writers.set(subject, await openWriter(bench, subject))
    const most = Math.max(...Object.values(rounds))
    const results = await interleaved(all, most, async (subject, round) => {
      const middle = Math.floor((most - rounds[subject.name]) / 2)
      const takesPart = round >= middle && round < middle + rounds[subject.name]
      return takesPart ? await writers.get(subject)!() : undefined
    })
    for (const operation of operations) {
      const values = (of: 'wall' | 'cpu') =>
        new Map([...results].map(([{ name }, times]) => [
          name,
          median(times.filter((time) => time !== undefined).map((time) => time[operation][of])),
        ]))
      const measure = `bulk ${operation} of ${rows.toLocaleString('en')}`
      const unit = 'us/row'
      reportAdded(bench, { measure, unit, values: values('wall'), aim: aims[operation] })
      reportAdded(bench, { measure: `${measure}, CPU`, unit, values: values('cpu'), aim: aims[operation] })
    }
    // Emptying the table is a change as well.
    for (const subject of all) {
      await subject.expectRecorded(orders, (rows * operations.length + 1) * rounds[subject.name])
    }
  },
}

/** In microseconds a row. */
type Times = Record<(typeof operations)[number], { wall: number; cpu: number }>

/** Each round starts and ends with an empty table. */
async function openWriter(bench: Bench, subject: Subject): Promise<() => Promise<Times>> {
  const session = await openSession(bench, subject.url, contexts['through a function'])
  const cpuMs = await cpuTimeOf(session)
  const { into, values } = orders.row('ids.id')
  const statements = {
    insert: `insert into public.${orders.name} (${into}) select ${values} from bench.ids`,
    update: `update public.${orders.name} set ${orders.change}`,
  }
  return async () => {
    const times = {} as Times
    for (const operation of operations) {
      bench.signal.throwIfAborted()
      const cpuBefore = await cpuMs()
      const startedAt = performance.now()
      await session.unsafe(statements[operation])
      const wallMs = performance.now() - startedAt
      times[operation] = { wall: wallMs * 1_000 / rows, cpu: (await cpuMs() - cpuBefore) * 1_000 / rows }
    }
    await subject.owner.unsafe(`truncate public.${orders.name}`)
    return times
  }
}

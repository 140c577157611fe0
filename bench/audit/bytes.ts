/**
 * What the trail grows by with each UPDATE of two or three columns, and what is written ahead for it: counted, so the
 * same on every machine. The rows are updated at random, one a transaction, by a signed-in caller.
 */
import type { Measure } from '../support/suite.ts'
import { reportAdded } from './added.ts'
import { contexts } from './context.ts'
import { openSession, openSubjects, type Subject, type SubjectName } from './subjects.ts'
import { orders, wide } from './tables.ts'

const updates = 3_000

export const bytes: Measure = {
  name: 'bytes',
  async run(bench) {
    const tables = [orders, wide]
    const { all } = await openSubjects(bench, { tables, rows: 0, ids: updates })
    for (const table of tables) {
      const trail = new Map<SubjectName, number>()
      const log = new Map<SubjectName, number>()
      for (const subject of all) {
        const session = await openSession(bench, subject.url, contexts['through a function'])
        const write = (operation: string) =>
          session.unsafe(`call bench.${operation}_${table.name}(0, ${updates})`)
        await write('insert')
        // A page is written ahead as a whole when it is first touched after a checkpoint: all have been, by now.
        await write('update')
        const trailBefore = await subject.trailBytes()
        const logBefore = await logPosition(subject)
        await write('update')
        log.set(subject.name, (await logPosition(subject) - logBefore) / updates)
        trail.set(subject.name, (await subject.trailBytes() - trailBefore) / updates)
        await subject.expectRecorded(table, 3 * updates)
      }
      const measure = `bytes per update of ${table.columns} columns`
      const unit = 'bytes'
      reportAdded(bench, { measure, unit, values: trail, aim: '<=0.26' })
      reportAdded(bench, { measure: `${measure}, written ahead`, unit, values: log })
    }
  },
}

async function logPosition({ owner }: Subject): Promise<number> {
  const [row] = await owner`select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as bytes`
  return Number(row?.bytes)
}

/** Round trips to PostgreSQL of whole transactions as a caller, counted on the wire: the same on every machine. */
import { createDb, sql } from '../../supabase/functions/_shared/db/client.ts'
import {
  createTransactionManager,
  type ManagedTx,
} from '../../supabase/functions/_shared/db/transactionManager.ts'
import { startWireProxy } from '../../tests/support/wireProxy.ts'
import { startDatabase } from '../support/database.ts'
import { actor, createNotes, noteText } from '../support/notes.ts'
import { median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'

const name = 'round trips'
const rounds = 5
const together = 10

export const roundTrips: Measure = {
  name,
  async run(bench) {
    const database = await startDatabase(bench)
    await createNotes(database)
    const proxy = bench.resources.adopt(startWireProxy({ target: database.url() }), (proxy) => proxy.close())
    const db = bench.resources.adopt(createDb({ url: proxy.url }), (db) => db.close())
    const manager = createTransactionManager(db)
    /** Of the whole transaction, or of the part that the work has counted itself. */
    const counted = async (work: (tx: ManagedTx) => Promise<number | void>) => {
      const run = async () => {
        const { value: part, counts } = await proxy.measure(() => manager.run({ as: actor }, work))
        return part ?? counts.roundTrips
      }
      // The first one opens the connection and learns the columns, which later ones know.
      await run()
      const counts: number[] = []
      for (let round = 0; round < rounds; round++) counts.push(await run())
      return median(counts)
    }

    for (const statements of [1, 3, 10]) {
      const count = await counted(async (tx) => {
        for (let done = 0; done < statements; done++) await insert(tx)
      })
      const what = statements === 1 ? '1 statement' : `${statements} dependent statements`
      tell(bench, what, count, 'statements + 2', statements + 2)
    }

    const operations = 3
    const executed = await counted(async (tx) => {
      for (let done = 0; done < operations; done++) {
        const { error } = await tx.execute('notes', 'insert', { body: noteText })
        if (error) throw error
      }
    })
    tell(
      bench,
      `${operations} dependent operations with restore points`,
      executed,
      'operations + 2',
      operations + 2,
    )

    const pipelined = await counted(async (tx) => {
      await Promise.all(Array.from({ length: together }, () => insert(tx)))
      return proxy.counts().roundTrips
    })
    tell(bench, `${together} independent statements`, pipelined, 'one for all', 1)
  },
}

function insert(tx: ManagedTx): Promise<unknown> {
  return tx.query(sql`insert into public.notes (body) values (${noteText}) returning id`)
}

function tell({ report }: Bench, what: string, count: number, against: string, most: number): void {
  const measure = `${name} of ${what}`
  report.figure({ measure, subject: 'transactions.run', value: count, unit: 'round trips' })
  report.verdict({ measure, against, ratio: count, aim: `<=${most}` })
}

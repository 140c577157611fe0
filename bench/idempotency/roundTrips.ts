/** Round trips to PostgreSQL of one POST with an idempotency key, beside the same POST without, counted on the wire. */
import { fileURLToPath } from 'node:url'
import { openProject } from '../../local/project.ts'
import { startWireProxy } from '../../tests/support/wireProxy.ts'
import { startDatabase } from '../support/database.ts'
import { startFunctions } from '../support/functions.ts'
import { createNotes, noteText } from '../support/notes.ts'
import { median } from '../support/statistics.ts'
import type { Measure } from '../support/suite.ts'

const name = 'round trips'
const rounds = 5
const project = openProject({ root: fileURLToPath(new URL('./project', import.meta.url)) })

export const roundTrips: Measure = {
  name,
  async run(bench) {
    const database = await startDatabase(bench)
    await createNotes(database)
    const proxy = bench.resources.adopt(startWireProxy({ target: database.url() }), (proxy) => proxy.close())
    const post = await startFunctions(bench, { project, databaseUrl: proxy.url })
    /** `key` undefined sends a new one each time. */
    const count = async (path: string, key?: string) => {
      const once = () =>
        post(`/notes/${path}`, {
          body: { body: noteText },
          headers: { 'idempotency-key': key ?? crypto.randomUUID() },
        })
      // The first one opens the connection, or has the answer stored.
      await once()
      const counts: number[] = []
      for (let round = 0; round < rounds; round++) counts.push((await proxy.measure(once)).counts.roundTrips)
      return median(counts)
    }
    const tell = (measure: string, subject: string, value: number) =>
      bench.report.figure({ measure, subject, value, unit: 'round trips' })
    const judge = (measure: string, count: number, most: number) =>
      bench.report.verdict({ measure, against: 'unprotected + 1', ratio: count, aim: `<=${most}` })

    const one = `${name} of POST with 1 statement`
    const plain = await count('one/unprotected')
    const kept = await count('one/protected')
    tell(one, 'unprotected', plain)
    tell(one, 'atomic', kept)
    tell(one, 'atomic, one statement', await count('one/deferred'))
    tell(one, 'atomic, replayed', await count('one/protected', 'the-same'))
    judge(one, kept, plain + 1)

    const two = `${name} of POST with 2 dependent statements`
    const plainTwo = await count('two/unprotected')
    const keptTwo = await count('two/protected')
    tell(two, 'unprotected', plainTwo)
    tell(two, 'atomic', keptTwo)
    judge(two, keptTwo, plainTwo + 1)
  },
}

/**
 * How long one statement as the caller takes behind a network, beside `withPostgresClient` of `@supabase/server`: the
 * same insert, for the same claims, under the same policy, over a proxy that holds each answer back for 2 ms.
 */
import { createDb, sql } from '../../supabase/functions/_shared/db/client.ts'
import { createTransactionManager } from '../../supabase/functions/_shared/db/transactionManager.ts'
import { startWireProxy } from '../../tests/support/wireProxy.ts'
import { startDatabase } from '../support/database.ts'
import { actor, caller, createNotes, noteText } from '../support/notes.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { openSupabasePeer } from './supabasePeer.ts'

const name = 'latency behind 2 ms'
const rounds = 10
const transactionsPerRound = 60
/** The whole round trip: requests pass at once, so that one timer alone adds to it. */
const delayMs = { up: 0, down: 2 }

export const latency: Measure = {
  name,
  async run(bench) {
    const subjects = await openSubjects(bench)
    const names = Object.keys(subjects) as (keyof typeof subjects)[]
    const measure = (subject: keyof typeof subjects) => medianMs(subjects[subject], bench.signal)
    // Opens the connections, and lets the compiler do its work.
    for (const subject of names) await measure(subject)
    const results = await interleaved(names, rounds, measure)
    const found = (subject: keyof typeof subjects) => median(results.get(subject)!)

    for (const subject of names) {
      bench.report.figure({ measure: name, subject, value: found(subject), unit: 'ms' })
    }
    bench.report.verdict({
      measure: name,
      against: 'withPostgresClient',
      ratio: found('transactions.run') / found('withPostgresClient'),
      aim: '<=0.5',
    })
  },
}

async function openSubjects(bench: Bench) {
  const database = await startDatabase(bench)
  await createNotes(database)
  const proxy = bench.resources.adopt(
    startWireProxy({ target: database.url(), delayMs, settleMs: 0 }),
    (proxy) => proxy.close(),
  )
  const db = bench.resources.adopt(createDb({ url: proxy.url }), (db) => db.close())
  const transactions = createTransactionManager(db)
  const peer = bench.resources.adopt(
    await openSupabasePeer(proxy.url, caller.claims),
    (peer) => peer.close(),
  )
  const insert = () => sql`insert into public.notes (body) values (${noteText}) returning id`
  return {
    'transactions.run': () => transactions.run({ as: actor }, (tx) => tx.query(insert())),
    'transactions.run, sent with the commit': async () => {
      let rows: Promise<unknown> | undefined
      await transactions.run({ as: actor }, (tx) => {
        rows = tx.atCommit(insert())
        return Promise.resolve()
      })
      return await rows
    },
    withPostgresClient: () =>
      peer.postgres.query`insert into public.notes (body) values (${noteText}) returning id`,
    'one round trip': () => db.ping(),
  }
}

async function medianMs(operation: () => Promise<unknown>, signal: AbortSignal): Promise<number> {
  const times: number[] = []
  for (let done = 0; done < transactionsPerRound; done++) {
    signal.throwIfAborted()
    const startedAt = performance.now()
    await operation()
    times.push(performance.now() - startedAt)
  }
  return median(times)
}

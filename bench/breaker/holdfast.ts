/** Ours, with its state in PostgreSQL: what the breakers tell and hear in the background is part of what they cost. */
import { createDb, sql } from '../../supabase/functions/_shared/db/client.ts'
import { createCircuitBreakers } from '../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { PostgresBreakerStore } from '../../supabase/functions/_shared/resilience/stores/postgresBreakers.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import { startDatabase } from '../support/database.ts'
import type { Bench } from '../support/suite.ts'

/** Breakers of one isolate; `tellExchanges` prints how often they have asked the store. */
export async function openBreakers(bench: Bench) {
  const database = await startDatabase(bench)
  const db = bench.resources.adopt(createDb({ url: database.url() }), (db) => db.close())
  const store = new PostgresBreakerStore(db)
  let exchanges = 0
  const exchange = store.exchange.bind(store)
  store.exchange = (reports) => {
    exchanges++
    return exchange(reports)
  }
  const breakers = bench.resources.adopt(
    createCircuitBreakers({ store, log: createLogger({ level: 'error' }) }),
    (breakers) => breakers.close(),
  )
  return {
    breakers,
    /** Throws when nothing was shared: the figures would not be those of a breaker with shared state. */
    async tellExchanges(measure: string, name: string): Promise<void> {
      const known = await db.owner.query(sql`select from holdfast.circuit_breakers where name = ${name}`)
      if (exchanges === 0 || known.length === 0) throw new Error('Cannot measure: no state was shared')
      bench.report.figure({
        measure: `${measure}, exchanges`,
        subject: 'holdfast',
        value: exchanges,
        unit: 'trips',
      })
    },
  }
}

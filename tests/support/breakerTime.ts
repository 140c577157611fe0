/** Time for circuit breakers in PostgreSQL: it passes when a test says so. */
import type { Sql } from './sql.ts'

/** Moves everything that happened to this breaker into the past. */
export async function letTimePass(sql: Sql, name: string, ms: number): Promise<void> {
  const by = `${ms} ms`
  await sql`
    update holdfast.circuit_breakers
    set opened_at = opened_at - ${by}::interval,
      retry_at = retry_at - ${by}::interval,
      changed_at = changed_at - ${by}::interval,
      probes_leased_until = array(
        select p.leased_until - ${by}::interval
        from unnest(probes_leased_until) with ordinality as p (leased_until, nth) order by p.nth
      )
    where name = ${name}`
  await sql`
    update holdfast.circuit_breaker_counts
    set bucket_starts = array(
        select b.start - ${by}::interval from unnest(bucket_starts) with ordinality as b (start, nth) order by b.nth
      )
    where name = ${name}`
}

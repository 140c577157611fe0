/**
 * What all isolates know of their breakers, in PostgreSQL (`holdfast.circuit_breakers`): the default. Transitions, leases
 * of probes and windows go by the database's clock. Everything here runs as the connection's own role.
 */
import { type Db, sql } from '../../db/client.ts'
import type { BreakerReport, BreakerRules, BreakerStatus, BreakerStore } from './breakerStore.ts'

export class PostgresBreakerStore implements BreakerStore {
  readonly #db: () => Db

  /** Opens nothing. Closing it leaves the `Db` open. */
  constructor(db: Db | (() => Db)) {
    this.#db = typeof db === 'function' ? db : () => db
  }

  /** All reports in one statement: one that is malformed refuses all (HF020), and nothing is written. */
  async exchange(reports: BreakerReport[]): Promise<BreakerStatus[]> {
    if (reports.length === 0) return []
    const [row] = await this.#db().owner.query<{ statuses: BreakerStatus[] }>(
      sql`select holdfast.exchange_circuit_breakers(${reports}) as statuses`,
    )
    return row!.statuses
  }

  async force(
    name: string,
    to: 'open' | 'closed' | null,
    reason: string,
    rules: BreakerRules,
  ): Promise<BreakerStatus> {
    const [row] = await this.#db().owner.query<{ status: BreakerStatus }>(
      sql`select holdfast.force_circuit_breaker(${name}, ${to}, ${reason}, ${rules}) as status`,
    )
    return row!.status
  }

  /** The `Db` is its owner's to close. */
  close(): Promise<void> {
    return Promise.resolve()
  }
}

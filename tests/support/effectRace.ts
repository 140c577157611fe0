/** Transactions, claims and sweeps that want the same effect, each to be held at the point where a test wants it. */
import { type Db, sql, type SqlQuery } from '../../supabase/functions/_shared/db/client.ts'
import type {
  Compensations,
  Effect,
  RecordingTransaction,
  UndoReport,
} from '../../supabase/functions/_shared/db/compensations.ts'
import type { Isolation, Transaction } from '../../supabase/functions/_shared/db/transaction.ts'
import {
  commitBooks,
  openBooks,
  openingOf,
  type TransactionFacts,
} from '../../supabase/functions/_shared/db/transactionBooks.ts'
import { type CompensationBed, compensationBed, type Handlers } from './compensations.ts'
import { waitFor } from './wait.ts'

export class EffectRace {
  readonly bed: CompensationBed
  /** Of the present test: one isolate of a function whose handler `refund` notes what it undoes. */
  isolate!: ReturnType<CompensationBed['open']>
  /** Keys of the effects that were undone, in order. */
  undone: string[] = []
  readonly handlers: Handlers = {
    refund: (_, { effectKey }) => Promise.resolve(void this.undone.push(effectKey)),
  }

  static async open(major?: number): Promise<EffectRace> {
    const bed = await compensationBed(major)
    await bed.admin`create table public.orders_of_test (id uuid)`
    await bed.admin`grant all on public.orders_of_test to service_role`
    return new EffectRace(bed)
  }

  private constructor(bed: CompensationBed) {
    this.bed = bed
  }

  /** Call it before each test. */
  reset(): void {
    this.undone = []
    this.isolate = this.bed.open(this.handlers)
  }

  record(tx: RecordingTransaction, resumeKey?: string): Promise<Effect> {
    return this.isolate.record(tx, 'refund', null, { resumeKey })
  }

  /** All there is falls due, and is undone. */
  async sweep(): Promise<UndoReport[]> {
    await this.makeDue()
    return await this.isolate.undoDue()
  }

  async makeDue(): Promise<void> {
    await this.bed.makeDue(this.isolate.functionName)
  }

  async statuses(): Promise<string[]> {
    return (await this.bed.rows(this.isolate.functionName)).map(({ status }) => status)
  }

  /** The business of a transaction: a row that is there exactly when it has committed. */
  order({ id }: RecordingTransaction): SqlQuery {
    return sql`insert into public.orders_of_test values (${id})`
  }

  async isOrdered({ id }: RecordingTransaction): Promise<boolean> {
    return (await this.bed.admin`select 1 from public.orders_of_test where id = ${id}`).length === 1
  }

  /** A transaction as the manager has it, with its books. Nothing is sent yet. */
  begin({ id }: RecordingTransaction, isolation: Isolation = 'read committed'): Transaction {
    return this.bed.db.begin({ service: 'test' }, {
      isolation,
      before: [openBooks(id, factsOf(isolation))],
      opening: openingOf(id),
    })
  }

  /** The same, and its business is done. */
  async started(tx: RecordingTransaction, isolation: Isolation): Promise<Transaction> {
    const business = this.begin(tx, isolation)
    await business.query(this.order(tx))
    return business
  }

  /** What the manager sends with the commit. */
  closing(
    { id }: RecordingTransaction,
    effectKeys: string[],
    isolation: Isolation = 'read committed',
  ): SqlQuery[] {
    return [
      this.isolate.settle(id, effectKeys),
      commitBooks(id, factsOf(isolation), { operations: 1, tables: [] }),
    ]
  }

  /** A commit on its way: settled, and not committed. */
  settling({ id }: RecordingTransaction, effectKey: string): Promise<Transaction> {
    return this.#holding(sql`holdfast.settle_compensations(${id}, array[${effectKey}]::uuid[])`)
  }

  /** A claim of the sweep on its way. */
  claiming(): Promise<Transaction> {
    const { functionName } = this.isolate
    return this.#holding(
      sql`(select id from holdfast.claim_compensation(${functionName}, array['refund'], 60000))`,
    )
  }

  async somebodyWaits(): Promise<void> {
    await waitFor(async () =>
      (await this.bed.admin`
        select 1 from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'`).length > 0, {
      what: 'somebody to wait for a lock',
    })
  }

  /** Another isolate of the function, whose handler waits until it is let go. */
  gated(log: string[] = []) {
    const arrived = Promise.withResolvers<void>()
    const gate = Promise.withResolvers<void>()
    const refund = async (args: unknown) => {
      log.push(`began ${args}`)
      arrived.resolve()
      await gate.promise
      log.push(`ended ${args}`)
    }
    const isolate: Compensations = this.bed.open({ refund }, this.isolate)
    return { isolate, arrived: arrived.promise, open: gate.resolve, fail: gate.reject }
  }

  /** Another isolate of the function, whose database answers as this does. */
  withOwner(query: (query: SqlQuery, real: Db['owner']) => ReturnType<Db['owner']['query']>): Compensations {
    const { db } = this.bed
    const owner = { query: (asked: SqlQuery) => query(asked, db.owner) } as Db['owner']
    return this.bed.open(this.handlers, { db: { ...db, owner }, functionName: this.isolate.functionName })
  }

  async #holding(work: SqlQuery): Promise<Transaction> {
    const transaction = this.bed.db.begin({ service: 'test' }, { opening: [work] })
    await transaction.query(sql`select 1`)
    return transaction
  }
}

function factsOf(isolation: Isolation): TransactionFacts {
  return { callerRole: 'service_role', isolation, attempt: 1, timeoutMs: 30_000 }
}

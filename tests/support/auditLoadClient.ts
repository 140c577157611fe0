/** One client of the load: transactions of random operations, and its own book of what each of them did. */
import type { Random } from '../faults/support/random.ts'
import { operations } from './auditOperations.ts'
import type { Sql } from './sql.ts'

/** A transaction as its client knows it. */
export interface Entry {
  transactionId: string
  role: 'postgres' | 'authenticated'
  userId: string | null
  /** `unknown`: the connection was lost. */
  outcome: 'committed' | 'rolled back' | 'unknown'
  /** Rows that the statements said they changed, by table, without what was taken back by savepoints. */
  rows: Record<string, number>
}

export interface ClientOptions {
  sql: Sql
  random: Random
  /** Numbers the keys that only this client gives out. */
  nth: number
  book: Entry[]
  /** How often each thing happened, over all clients. */
  counts: Record<string, number>
}

/** What other clients do to one may make a statement fail; anything else is not part of the game. */
const expected = new Set([
  '23503', // a parent that is gone
  '23505', // a key that is taken
  '40001', // a row that moved to another partition while it was waited for
  '40P01', // a deadlock
  '42P01', // a table that has another name by now
  '55P03', // a lock that took too long
])

export class LoadClient {
  readonly sql: Sql
  readonly random: Random
  #next: number
  readonly #o: ClientOptions

  constructor(o: ClientOptions) {
    this.#o = o
    this.sql = o.sql
    this.random = o.random
    this.#next = o.nth * 1_000_000
  }

  /** A key that nobody else gives out. */
  freshId(): number {
    return ++this.#next
  }

  /** Keys that all clients share, each once. Not in order, so that clients meet in deadlocks. */
  sharedIds(atMost: number, among = 150): number[] {
    return [
      ...new Set(Array.from({ length: this.random.between(1, atMost) }, () => this.random.between(1, among))),
    ]
  }

  count(what: string): void {
    this.#o.counts[what] = (this.#o.counts[what] ?? 0) + 1
  }

  /** Has it happened yet, at whichever client? */
  knows(what: string): boolean {
    return this.#o.counts[what] !== undefined
  }

  async run(text: string): Promise<number> {
    return (await this.sql.unsafe(text)).count
  }

  /** Rejects when a statement fails in a way that no other client can be the reason of. */
  async transaction(): Promise<void> {
    const { random } = this
    const role = random.chance(0.4) ? 'authenticated' : 'postgres'
    const userId = role === 'authenticated' ? crypto.randomUUID() : null
    await this.run('begin')
    const transactionId = await this.#become(role, userId)
    const entry: Entry = { transactionId, role, userId, outcome: 'unknown', rows: {} }
    this.#o.book.push(entry)
    let outcome: Entry['outcome'] = random.chance(0.2) ? 'rolled back' : 'committed'
    try {
      for (let left = random.between(1, 4); left > 0; left--) {
        if (random.chance(0.3)) await this.#inSavepoint(entry)
        else await this.#operate(entry)
      }
    } catch (error) {
      this.#failed(error)
      outcome = 'rolled back'
    }
    await this.run(outcome === 'committed' ? 'commit' : 'rollback')
    entry.outcome = outcome
    this.count(outcome)
  }

  async #become(role: string, userId: string | null): Promise<string> {
    const claims = userId === null ? '' : JSON.stringify({ sub: userId, role })
    const [row] = await this.sql.unsafe(`
      select txid_current() as id, set_config('request.jwt.claims', '${claims}', true),
        set_config('role', '${role}', true)`)
    return row!.id
  }

  async #operate(entry: Entry): Promise<void> {
    const [name, operate] = this.random.pick(operations)
    const rows = await operate(this)
    this.count(name)
    for (const [table, count] of Object.entries(rows)) entry.rows[table] = (entry.rows[table] ?? 0) + count
  }

  /** Half of the savepoints are gone back to, and a failure in one costs no more than itself. */
  async #inSavepoint(entry: Entry): Promise<void> {
    const before = { ...entry.rows }
    await this.run('savepoint inner_work')
    try {
      for (let left = this.random.between(1, 2); left > 0; left--) await this.#operate(entry)
      if (this.random.chance(0.5)) {
        this.count('savepoints kept')
        await this.run('release savepoint inner_work')
        return
      }
    } catch (error) {
      this.#failed(error)
    }
    this.count('savepoints gone back to')
    entry.rows = before
    await this.run('rollback to savepoint inner_work')
  }

  #failed(error: unknown): void {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    if (!expected.has(code)) throw error
    this.count(`error ${code}`)
  }
}

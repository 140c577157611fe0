/**
 * Rate limits in PostgreSQL (`holdfast.rate_limits`): the database's clock decides, and all isolates count together.
 * Questions that arrive together travel together, identical ones as one. Everything here runs as the connection's own role.
 */
import { type Db, sql, sqlArray, type SqlQuery } from '../../db/client.ts'
import type { RateLimitAnswer, RateLimitQuestion, RateLimitStore } from './rateLimitStore.ts'
import {
  answer,
  type Asked,
  decidingTogether,
  RateLimitBatch,
  requireBlock,
  requireKey,
  requireQuestion,
  termNumbers,
  windowNumbers,
} from './rateLimitWire.ts'

/** Calls at most that share a statement: others may wait for the rows it locks. */
const maxItems = 200

export class PostgresRateLimitStore implements RateLimitStore {
  readonly #db: () => Db
  readonly decide: RateLimitStore['decide']

  /** Opens nothing. Closing it leaves the `Db` open. */
  constructor(db: Db | (() => Db)) {
    this.#db = typeof db === 'function' ? db : () => db
    this.decide = decidingTogether((batch) => this.#send(batch), { maxItems, maxRunning: 1 })
  }

  async penalize(question: RateLimitQuestion): Promise<RateLimitAnswer> {
    requireQuestion(question)
    const [answer] = await this.#send(new RateLimitBatch([question], { forced: true }))
    return answer!
  }

  async block(key: string, ms: number): Promise<void> {
    requireKey(key)
    requireBlock(ms)
    await this.#db().owner.query(sql`select holdfast.block_rate_limit(${key}, ${ms})`)
  }

  async reset(key: string): Promise<void> {
    requireKey(key)
    await this.#db().owner.query(sql`select holdfast.reset_rate_limit(${key})`)
  }

  /** The `Db` is its owner's to close. */
  close(): Promise<void> {
    return Promise.resolve()
  }

  async #send(batch: RateLimitBatch): Promise<RateLimitAnswer[]> {
    const asked = inKeyOrder(batch.asked)
    const [row] = await this.#db().owner.query<{ decided: string }>(
      sql`select ${expressionFor(asked)} as decided`,
    )
    read(row!.decided, asked)
    return batch.answers()
  }
}

/** Questions for a statement that asks for more besides. */
export interface RateLimitSql {
  /** `bigint[]`: the time, then the calls admitted of each question at its place, then what `answers` reads. */
  expression: SqlQuery
  /** At which place, from 0 on, each question is decided. */
  places: number[]
  /** Of what the expression gave, as text: an answer for each question, in the order given. */
  answers(decided: string): RateLimitAnswer[]
}

/** None is merged with another. `TypeError` or `RangeError` for a question that makes no sense. */
export function rateLimitSql(questions: readonly RateLimitQuestion[]): RateLimitSql {
  questions.forEach(requireQuestion)
  const batch = new RateLimitBatch(questions, { merge: false })
  const asked = inKeyOrder(batch.asked)
  const places = new Map(asked.map((one, place) => [one, place]))
  return {
    expression: expressionFor(asked),
    places: batch.asked.map((one) => places.get(one)!),
    answers(decided) {
      read(decided, asked)
      return batch.answers()
    },
  }
}

function expressionFor(asked: Asked[]): SqlQuery {
  const [{ key, count, terms }] = asked as [Asked]
  const { cost, blockMs, windows, forced } = terms
  if (windows.length === 1 && windows[0]!.algorithm === 'gcra' && !forced) {
    const [, intervalUs, burst] = windowNumbers(windows)
    const rest = sql`${cost}, ${blockMs * 1_000}, ${intervalUs}, ${burst}`
    if (asked.length === 1) return sql`holdfast.decide_gcra_limit(${key}, ${count}, ${rest})`
    if (areAlike(asked)) {
      const counts = asked.map(({ count }) => count).join(',')
      return sql`holdfast.decide_gcra_limits(${
        sqlArray(asked.map(({ key }) => key))
      }, ${`{${counts}}`}, ${rest})`
    }
  }
  const numbers = asked.flatMap(({ count, terms }) => {
    const [cost, ...rest] = termNumbers(terms)
    return [cost, count, ...rest]
  })
  return sql`holdfast.decide_rate_limits(${sqlArray(asked.map(({ key }) => key))}, ${`{${
    numbers.join(',')
  }}`})`
}

/** Different keys on the same terms, all of which may be admitted. They are in order. */
function areAlike(asked: Asked[]): boolean {
  const [{ terms }] = asked as [Asked]
  const most = terms.windows[0]!.burst / terms.cost
  return asked.every((one, index) =>
    one.terms === terms && one.count >= 1 && one.count <= most && one.key !== asked[index + 1]?.key
  )
}

function read(decided: string, asked: Asked[]): void {
  const numbers = decided.slice(1, -1).split(',').map(Number)
  const nowUs = numbers[0]!
  let at = 1 + asked.length * 2
  asked.forEach((one, place) => {
    const blockedUs = numbers[1 + asked.length + place]!
    at = answer(one, { nowUs, admitted: numbers[1 + place]!, blockedUs, numbers, at })
  })
}

/** Everyone locks rows in one order, that of the keys' bytes. A key that stands twice is decided in the order given. */
function inKeyOrder(asked: Asked[]): Asked[] {
  if (asked.length === 1) return asked
  const compare = asked.some(({ key }) => beyondUnits.test(key)) ? byBytes : byUnits
  return asked.toSorted((a, b) => compare(a.key, b.key))
}

/** From here on the order of UTF-16 units is not that of the bytes of UTF-8. */
const beyondUnits = /[\ud800-\uffff]/

function byUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

const encoder = new TextEncoder()

function byBytes(a: string, b: string): number {
  const [left, right] = [encoder.encode(a), encoder.encode(b)]
  const at = left.findIndex((byte, index) => byte !== right[index])
  return at < 0 ? left.length - right.length : left[at]! - (right[at] ?? -1)
}

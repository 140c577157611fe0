/**
 * A million orders of ten thousand customers: what the policies cost beside the same predicate written by hand, and
 * beside the same policy as it is found in many projects. Statements are prepared once, as the REST API prepares them;
 * what planning adds where they are not is printed as well.
 */
import { connect, withConnection } from '../../local/postgres/connect.ts'
import { customerId, fillOrders } from '../../tests/support/manyOrders.ts'
import { explainQuery } from '../../tests/support/queryPlan.ts'
import type { Caller, Sql } from '../../tests/support/sql.ts'
import { startDatabase } from '../support/database.ts'
import { median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { as, type Asked, inTurn, planningMs, timeMs } from './asking.ts'
import { byHand, ours, peers, type Policy, readPolicy, usePolicy } from './policies.ts'
import { adminQuestions, perCustomer, type Question, questions, refusals } from './questions.ts'

const orders = 1_000_000
const times = 200
const name = '1,000,000 orders'

/** A connection for those under policies, and one for `postgres`. */
interface Sides {
  under: Sql
  free: Sql
}

export const millionOrders: Measure = {
  name,
  async run(bench) {
    const database = await startDatabase(bench)
    bench.progress.step(`${name}: filling the tables`)
    await withConnection(
      database.adminUrl(),
      'bench',
      (admin) => fillOrders(admin, { customers: orders / perCustomer, orders }),
    )
    const open = () =>
      bench.resources.adopt(connect(database.url(), 'bench'), (sql) => sql.end({ timeout: 5 }))
    const sides: Sides = { under: open(), free: open() }
    const asked = questions(await someOrders(sides.free))
    bench.progress.step(`${name}: asking`)
    for (const question of asked) await checkPlan(bench, sides, question)
    const found = new Map<Question, number>()
    for (const question of asked) found.set(question, await compare(bench, sides, question))
    await refuse(bench, sides)
    for (const question of adminQuestions) await administrate(bench, sides, question)
    bench.progress.step(`${name}: asking under the peers' policies`)
    const policy = await readPolicy(sides.free)
    for (const peer of peers) {
      await usePolicy(sides.free, peer)
      for (const [question, ourMs] of found) await comparePeer(bench, sides, peer, question, ourMs)
    }
    await usePolicy(sides.free, policy)
  },
}

async function someOrders(sql: Sql): Promise<{ own: string; others: string }> {
  const [row] = await sql`
    select
      (select id from public.orders where user_id = ${customerId(7)} and deleted_at is null limit 1) as own,
      (select id from public.orders where user_id = ${
    customerId(8)
  } and deleted_at is null limit 1) as others`
  return { own: row!.own, others: row!.others }
}

/** Counts, which are the same on every machine. */
async function checkPlan({ report }: Bench, { under }: Sides, question: Question): Promise<void> {
  const plan = await as(under, question.caller, (tx) => explainQuery(tx, question.statement))
  const verdict = (what: string, ratio: number, most: number) =>
    report.verdict({
      measure: `${name}, ${question.name}, ${what}`,
      against: 'at most',
      ratio,
      aim: `<=${most}`,
    })
  verdict('tables read whole', plan.wholeTables.length, 0)
  verdict('conditions that ask for the caller once a row', plan.askedPerRow.length, 0)
  verdict('rows read in vain', plan.rowsInVain, question.mostInVain)
}

/** @returns milliseconds under the policy */
async function compare(bench: Bench, sides: Sides, question: Question): Promise<number> {
  const measure = `${name}, ${question.name}`
  const hand: Asked = { statement: question.byHand, rows: question.rows }
  const [ourMs, handMs] = await both(bench, sides, question.caller, question, hand, timeMs)
  const [ourPlanning, handPlanning] = await both(bench, sides, question.caller, question, hand, planningMs)
  tell(bench, measure, ourMs, handMs)
  tell(bench, `${measure}, planning`, ourPlanning, handPlanning)
  bench.report.verdict({ measure, against: byHand, ratio: ourMs / handMs, aim: '<=1.3' })
  return ourMs
}

async function both(
  bench: Bench,
  { under, free }: Sides,
  caller: Caller,
  question: Asked,
  hand: Asked,
  measure: typeof timeMs,
  count = times,
): Promise<[number, number]> {
  return await as(under, caller, (mine) =>
    as(free, undefined, async (theirs) => {
      const first = () => {
        bench.signal.throwIfAborted()
        return measure(mine, question)
      }
      const second = () => measure(theirs, hand)
      // The planner makes up its mind about a prepared statement in its first executions.
      await inTurn(first, second, Math.min(6, count))
      return await inTurn(first, second, count)
    }))
}

async function comparePeer(
  bench: Bench,
  { under }: Sides,
  peer: Policy,
  question: Question,
  ourMs: number,
): Promise<void> {
  const measure = `${name}, ${question.name}`
  const count = question.unfiltered ? peer.wholeTableTimes ?? times : times
  const found = await as(under, question.caller, async (tx) => {
    const measured: number[] = []
    for (let time = 0; time < count; time++) {
      bench.signal.throwIfAborted()
      measured.push(await timeMs(tx, question))
    }
    return median(measured)
  })
  bench.report.figure({ measure, subject: peer.name, value: found, unit: 'ms' })
  if (!question.unfiltered) return
  bench.report.verdict({ measure, against: peer.name, ratio: ourMs / found, aim: '<=0.1' })
}

/** Refused before a row is looked at, so a big table makes it no dearer. */
async function refuse({ report, signal }: Bench, { under }: Sides): Promise<void> {
  for (const { name: what, caller, statement } of refusals) {
    const measured: number[] = []
    for (let time = 0; time < times; time++) {
      signal.throwIfAborted()
      const startedAt = performance.now()
      const code = await as(under, caller, (tx) => tx.unsafe(statement)).then(
        () => 'none',
        ({ code }) => code,
      )
      measured.push(performance.now() - startedAt)
      if (code !== '42501') throw new Error(`Cannot measure "${what}": its error is ${code}`)
    }
    const measure = `${name}, ${what}, with its transaction`
    report.figure({ measure, subject: ours, value: median(measured), unit: 'ms' })
  }
}

/** What admins pay, whose every row it is: they come to it by an index, too. */
async function administrate(bench: Bench, sides: Sides, question: (typeof adminQuestions)[number]) {
  const [ourMs, handMs] = await both(bench, sides, question.caller, question, question, timeMs, 3)
  tell(bench, `${name}, ${question.name}`, ourMs, handMs)
}

function tell({ report }: Bench, measure: string, ourMs: number, handMs: number): void {
  report.figure({ measure, subject: ours, value: ourMs, unit: 'ms' })
  report.figure({ measure, subject: byHand, value: handMs, unit: 'ms' })
}

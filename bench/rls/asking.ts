/** Statements as a caller, in a transaction that is taken back, and how long they take. */
import type postgres from 'postgres'
import type { Caller, Sql } from '../../tests/support/sql.ts'
import { median } from '../support/statistics.ts'

export interface Asked {
  statement: string
  /** Rows that have to come back, so that no figure is one of a wrong answer. */
  rows?: number
}

/** Without a caller as `postgres`, who is under no policy. */
export async function as<T>(
  sql: Sql,
  caller: Caller | undefined,
  work: (tx: postgres.TransactionSql) => Promise<T>,
): Promise<T> {
  const takenBack = new Error('taken back')
  let value: T | undefined
  await sql.begin(async (tx) => {
    if (caller !== undefined) {
      const claims = JSON.stringify({ ...caller.claims, role: caller.role })
      await tx`select set_config('role', ${caller.role}, true), set_config('request.jwt.claims', ${claims}, true)`
    }
    value = await work(tx)
    throw takenBack
  }).catch((error) => {
    if (error !== takenBack) throw error
  })
  return value as T
}

/** The medians of two that take turns with every statement: what disturbs the machine disturbs both. */
export async function inTurn(
  first: () => Promise<number>,
  second: () => Promise<number>,
  times: number,
): Promise<[number, number]> {
  const measured: [number[], number[]] = [[], []]
  for (let time = 0; time < times; time++) {
    measured[0].push(await first())
    measured[1].push(await second())
  }
  return [median(measured[0]), median(measured[1])]
}

/** A prepared one, as the REST API prepares its own. */
export async function timeMs(tx: postgres.TransactionSql, { statement, rows }: Asked): Promise<number> {
  const startedAt = performance.now()
  const found = await tx.unsafe(statement, [], { prepare: true })
  const took = performance.now() - startedAt
  if (rows !== undefined && found.length !== rows) {
    throw new Error(`Cannot measure "${statement}": ${found.length} rows came back, not ${rows}`)
  }
  return took
}

/** What planning it adds where it is not prepared. */
export async function planningMs(tx: postgres.TransactionSql, { statement }: Asked): Promise<number> {
  const [row] = await tx.unsafe(`explain (summary, format json) ${statement}`)
  return row!['QUERY PLAN'][0]['Planning Time']
}

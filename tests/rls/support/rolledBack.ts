/** Work in a transaction of which nothing stays. */
import type postgres from 'postgres'
import type { Sql } from '../../support/sql.ts'

export async function rolledBack<T>(sql: Sql, work: (tx: postgres.TransactionSql) => Promise<T>): Promise<T> {
  const enough = new Error('Nothing of this transaction stays')
  let result: { value: T } | undefined
  await sql.begin(async (tx) => {
    result = { value: await work(tx) }
    throw enough
  }).catch((error) => {
    if (error !== enough) throw error
  })
  return result!.value
}

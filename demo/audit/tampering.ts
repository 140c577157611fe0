/** Sealing and checking the trail, and how far those get who want it to say something else. */
import type { Queries, Sql } from '../../local/postgres/connect.ts'
import { price } from './people.ts'

export interface Verified {
  intact: boolean
  problem: string | null
  month: string | null
  seal: number | null
  changeId: number | null
  changes: number
  seals: number
  unsealed: number
}

/** The seal that covers a change. */
export interface Seal {
  month: string
  number: number
}

export interface Refusal {
  code: string
  message: string
}

/** As the schedule does each minute; if it comes first, nothing is left to seal. */
export async function seal(sql: Sql): Promise<void> {
  await sql`select audit.seal()`
}

export async function verify(sql: Sql): Promise<Verified> {
  const [row] = await sql<Verified[]>`
    select intact, problem, to_char(seal_month, 'YYYY-MM') as month, seal_number::int as seal,
      change_id::int as "changeId", checked_changes::int as changes, checked_seals::int as seals,
      unsealed_changes::int as unsealed
    from audit.verify()`
  return row!
}

export async function sealOf(sql: Sql, changeId: number): Promise<Seal | undefined> {
  const [row] = await sql<Seal[]>`
    select to_char(month, 'YYYY-MM') as month, number::int as number
    from audit.seals
    where change_ids @> ${changeId}::bigint`
  return row
}

/** With the rights that the secret key of the API has. */
export function tamperAsService(owner: Sql, changeId: number): Promise<Refusal | undefined> {
  return refusalOf(() =>
    owner.begin(async (tx) => {
      await tx`set local role service_role`
      await tamper(tx, changeId)
    })
  )
}

export function tamperAsOwner(owner: Sql, changeId: number): Promise<Refusal | undefined> {
  return refusalOf(() => tamper(owner, changeId))
}

/** For a superuser no trigger has to fire. Resolves with how many rows were altered. */
export async function tamperAsSuperuser(superuser: Sql, changeId: number): Promise<number> {
  return await superuser.begin(async (tx) => {
    await tx`set local session_replication_role = replica`
    return await tamper(tx, changeId)
  })
}

/** What support typed becomes what support meant: nobody has mistyped anything. */
async function tamper(sql: Queries, changeId: number): Promise<number> {
  const { count } = await sql`
    update audit.database_changes
    set details = jsonb_set(details, '{row,new,total_minor}', ${price.reduced}::text::jsonb)
    where id = ${changeId}`
  return count
}

async function refusalOf(work: () => Promise<unknown>): Promise<Refusal | undefined> {
  try {
    await work()
  } catch (error) {
    const { code, message } = error as { code?: unknown; message: string }
    // Whatever has no SQLSTATE is no refusal of the database's.
    if (typeof code !== 'string' || code.length !== 5) throw error
    return { code, message }
  }
}

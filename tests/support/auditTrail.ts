/** The audit trail in tests: changes to seal, what audit.verify() says of them, and a superuser who gets past its guards. */
import type { FreshDatabase } from './database.ts'
import { openSql, type Queries, type Sql } from './sql.ts'

export interface Verified {
  intact: boolean
  problem: string | null
  seal_month: string | null
  seal_number: number | null
  change_id: number | null
  checked_changes: number
  checked_seals: number
  unsealed_changes: number
  unsealed_since: Date | null
}

export interface Sealed {
  changes: number
  seals: number
  complete: boolean
  head: Uint8Array | null
}

/** A trail without changes and seals, on connections that end with the file. */
export async function emptyTrail(database: FreshDatabase): Promise<{ sql: Sql; admin: Sql }> {
  const [sql, admin] = [openSql(database.url), openSql(database.adminUrl)]
  await clearTrail(admin)
  return { sql, admin }
}

export async function clearTrail(admin: Sql): Promise<void> {
  await tamper(admin, async (tx) => {
    await tx`truncate audit.database_changes, audit.seals, audit.retired_months`
  })
}

/** Runs the work as a superuser for whom no trigger fires: what an attacker at home in the database can do. */
export async function tamper(admin: Sql, work: (tx: Queries) => Promise<unknown>): Promise<void> {
  await admin.begin(async (tx) => {
    await tx`set local session_replication_role = replica`
    await work(tx)
  })
}

/** Writes so many changes in one transaction; `at` is their time, an interval apart. Returns their ids. */
export async function write(sql: Queries, changes: number, at = 'clock_timestamp()'): Promise<number[]> {
  const rows = await sql.unsafe<{ id: string }[]>(`
    insert into audit.database_changes (
      occurred_at, transaction_id, actor_id, actor_role, ip, user_agent, request_id, function_name,
      schema_name, table_name, object_identity, operation, primary_key, details
    )
    select ${at}, txid_current(), md5('actor' || n)::uuid, 'authenticated', '10.1.2.3', 'Mozilla/5.0', 'request ' || n, 'orders',
      'public', 'orders', 'public.orders', 'INSERT', n::text, jsonb_build_object('row', jsonb_build_object('new', jsonb_build_object('id', n)))
    from generate_series(1, ${changes}) as n
    returning id`)
  return rows.map(({ id }) => Number(id))
}

export async function seal(sql: Queries, atMost?: number): Promise<Sealed> {
  const [row] = atMost === undefined
    ? await sql`select * from audit.seal()`
    : await sql`select * from audit.seal(${atMost})`
  return { ...row, changes: Number(row!.changes), seals: Number(row!.seals) } as Sealed
}

export async function verify(
  sql: Queries,
  o: { from?: string; to?: string; head?: Uint8Array | null } = {},
): Promise<Verified> {
  const [row] = await sql<Verified[]>`
    select intact, problem, to_char(seal_month, 'YYYY-MM') as seal_month, seal_number::int, change_id::int,
      checked_changes::int, checked_seals::int, unsealed_changes::int, unsealed_since
    from audit.verify(${o.from ?? null}, ${o.to ?? null}, ${o.head ?? null})`
  return row!
}

/** Makes the hashes of the chain anew, from this link on: all of it fits together afterwards. */
export async function rehash(tx: Queries, link = 1): Promise<void> {
  await tx`
    update audit.seals as s
    set (change_count, changes_hash, row_digests) =
      (select h.change_count, h.changes_hash, h.row_digests from audit.hash_changes(s.month, s.change_ids) as h)
    where s.link >= ${link} and s.retired_month is null`
  const links = await tx<{ link: string }[]>`select link from audit.seals where link >= ${link} order by link`
  for (const { link } of links) {
    await tx`
      update audit.seals as s
      set previous_hash = coalesce((select b.hash from audit.seals as b where b.link = s.link - 1), s.previous_hash)
      where s.link = ${link}`
    await tx`update audit.seals as s set hash = audit.seal_hash(s) where s.link = ${link}`
  }
}

/** Makes the partition of the month, as audit.make_partitions() did when it was ahead. */
export async function makeMonth(sql: Queries, month: string): Promise<void> {
  const name = `audit.database_changes_${month.replace('-', '_')}`
  await sql.unsafe(`
    create table ${name} partition of audit.database_changes
    for values from ('${month}-01 00:00+00') to (('${month}-01'::timestamp + interval '1 month') at time zone 'UTC')`)
  await sql`select audit.guard_partition(${name}::regclass)`
}

/** How many seals cover each change that is there: 1 for all where nothing was lost or sealed twice. */
export async function sealsOfChanges(sql: Queries): Promise<Map<number, number>> {
  const rows = await sql<{ id: number; seals: number }[]>`
    select c.id::int, count(s.link)::int as seals
    from audit.database_changes as c
    left join audit.seals as s on s.change_ids @> c.id and s.month = audit.month_of(c.occurred_at)
    group by c.id`
  return new Map(rows.map(({ id, seals }) => [id, seals]))
}

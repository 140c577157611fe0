/** A table that a signed-in user writes, and isolates that write it under idempotency keys. */
import type { Actor } from '../../supabase/functions/_shared/core/caller.ts'
import {
  createDb,
  type Db,
  type DbOptions,
  sql,
  type Tx,
} from '../../supabase/functions/_shared/db/client.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import {
  type AtomicFinished,
  type AtomicOptions,
  createIdempotency,
  type Idempotency,
  type IdempotencyRequest,
  type Outcome,
} from '../../supabase/functions/_shared/resilience/idempotency.ts'
import { PostgresIdempotencyStore } from '../../supabase/functions/_shared/resilience/stores/postgres.ts'
import type { Sql } from './sql.ts'

export const quiet = createLogger({ write() {} })

const userId = '00000000-0000-4000-8000-00000000000a'
export const actor: Actor = {
  caller: { kind: 'user', role: 'authenticated', userId, claims: { sub: userId } },
}

export const kept = { ttlMs: 86_400_000, maxStoredBytes: 65_536 }

/** Run it as the superuser: `name` is the key that wrote the row. */
export async function createThings(admin: Sql): Promise<void> {
  await admin`create table public.things (nth bigint generated always as identity, name text not null)`
  await admin`grant select, insert on public.things to authenticated`
}

export async function thingsOf(admin: Sql, { id }: IdempotencyRequest): Promise<number> {
  return (await admin`select from public.things where name = ${id}`).count
}

export const insertThing = ({ id }: IdempotencyRequest) =>
  sql`insert into public.things (name) values (${id}) returning nth`

/** A Db and the idempotency over it, as one isolate has them. */
export interface Isolate {
  db: Db
  idempotency: Idempotency
  store: PostgresIdempotencyStore
  /** Inserts a thing, does `then`, and answers 201. */
  insert(
    request: IdempotencyRequest,
    options?: Partial<AtomicOptions>,
    then?: (tx: Tx) => unknown,
  ): Promise<Outcome>
  atomic(
    request: IdempotencyRequest,
    work: (tx: Tx) => Promise<AtomicFinished>,
    options?: Partial<AtomicOptions>,
  ): Promise<Outcome>
}

export const created: AtomicFinished = {
  answer: { status: 201, headers: [['location', '/things/1']], body: '{"name":"thing"}' },
  store: true,
}

export function openIsolate(options: DbOptions): Isolate {
  const db = createDb(options)
  const store = new PostgresIdempotencyStore(db)
  const idempotency = createIdempotency({ store, log: quiet })
  const atomic: Isolate['atomic'] = (request, work, given) =>
    idempotency.atomic(request, { db, actor, ...kept, ...given }, work)
  return {
    db,
    store,
    idempotency,
    atomic,
    insert: (request, given, then) =>
      atomic(request, async (tx) => {
        await tx.query(insertThing(request))
        await then?.(tx)
        return created
      }, given),
  }
}

/** A database with a table of its own, a wire proxy in front of it, and a manager on one connection: for tests of transactions. */
import type { Actor } from '../../supabase/functions/_shared/core/caller.ts'
import { createDb, type Db, type DbOptions } from '../../supabase/functions/_shared/db/client.ts'
import {
  createTransactionManager,
  type TransactionManager,
} from '../../supabase/functions/_shared/db/transactionManager.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import { type FreshDatabase, freshDatabase } from './database.ts'
import { closeAfterFile } from './leftovers.ts'
import { openSql, type Sql } from './sql.ts'
import { startWireProxy, type WireProxy } from './wireProxy.ts'

export const adaId = '00000000-0000-4000-8000-00000000000a'
export const graceId = '00000000-0000-4000-8000-00000000000b'

export function signedIn(userId: string): Actor {
  return {
    caller: { kind: 'user', role: 'authenticated', userId, claims: { sub: userId } },
    request: { requestId: 'req-1', functionName: 'notes', method: 'POST', path: '/notes' },
  }
}

export const ada = signedIn(adaId)
export const grace = signedIn(graceId)

export interface TransactionBed {
  database: FreshDatabase
  /** As the superuser, past everything. */
  admin: Sql
  proxy: WireProxy
  /** Through the proxy, one connection. */
  db: Db
  manager: TransactionManager
  /** Lines that its log has written. */
  logged: Record<string, unknown>[]
  /** Another client, closed with the file. Straight to the server unless a url is given. */
  open(options?: Partial<DbOptions>): Db
  /** Names of the notes that are stored. */
  notes(): Promise<string[]>
  /** The books of a transaction, or of all, oldest first. */
  books(id?: string): Promise<Book[]>
}

export interface Book {
  id: string
  status: string
  caller_role: string
  caller_id: string | null
  function_name: string | null
  request_id: string | null
  isolation: string
  attempt: number
  operations: number
  tables: string[]
  error_code: string | null
  ended: boolean
}

/** `notes` belongs to its author by row level security; `slots` holds `id`, `n`, and is anybody's. */
export async function transactionBed(major?: number): Promise<TransactionBed> {
  const database = await freshDatabase(major)
  const admin = openSql(database.adminUrl, { max: 4 })
  await admin.unsafe(`
    create table public.notes (
      id bigint generated always as identity primary key,
      author uuid not null default auth.uid(),
      name text not null unique,
      labels text[] not null default '{}',
      meta jsonb,
      size integer,
      code varchar(3),
      made_at timestamptz not null default now()
    );
    alter table public.notes enable row level security;
    create policy "Own notes" on public.notes for all to authenticated
      using (author = auth.uid()) with check (author = auth.uid());
    grant select, insert, update, delete on public.notes to authenticated, service_role;
    create table public.slots (id integer primary key, n integer not null default 0);
    insert into public.slots (id) select generate_series(1, 20);
    grant select, insert, update, delete on public.slots to authenticated, service_role;
    alter table public.slots enable row level security;
    create policy "Anybody" on public.slots for all to authenticated using (true) with check (true)`)
  const proxy = startWireProxy({ target: database.url })
  closeAfterFile({ name: 'the wire proxy', close: () => proxy.close() })
  const open = (options: Partial<DbOptions> = {}) => {
    const db = createDb({ url: database.url, max: 1, ...options })
    closeAfterFile({ name: 'a database client', close: () => db.close() })
    return db
  }
  const logged: Record<string, unknown>[] = []
  const log = createLogger({ write: (_, line) => logged.push(JSON.parse(line)) })
  const db = open({ url: proxy.url })
  return {
    database,
    admin,
    proxy,
    db,
    logged,
    manager: createTransactionManager(db, { log, functionName: 'notes' }),
    open,
    notes: async () => (await admin`select name from public.notes order by id`).map((row) => row.name),
    books: async (id) =>
      await admin<Book[]>`
        select id, status, caller_role, caller_id, function_name, request_id, isolation, attempt::int,
          operations::int, tables, error_code, ended_at is not null as ended
        from holdfast.transactions where ${id === undefined ? admin`true` : admin`id = ${id}`}
        order by started_at`,
  }
}

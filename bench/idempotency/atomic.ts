/** Ours: claim, work and stored answer in one transaction, through the same face that routes use. */
import type { Cluster } from '../../local/postgres/cluster.ts'
import type { Actor } from '../../supabase/functions/_shared/core/caller.ts'
import { createDb, sql } from '../../supabase/functions/_shared/db/client.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import {
  type AtomicFinished,
  createIdempotency,
  type Idempotency,
  type IdempotencyRequest,
  type Outcome,
} from '../../supabase/functions/_shared/resilience/idempotency.ts'
import { dayMs } from '../../supabase/functions/_shared/resilience/stores/store.ts'
import { PostgresIdempotencyStore } from '../../supabase/functions/_shared/resilience/stores/postgres.ts'
import { actor, caller, noteText } from '../support/notes.ts'

export interface Atomic {
  /** Takes a note: the handler waits for its row, and answers with it. Two round trips. */
  write(request: IdempotencyRequest): Promise<Outcome>
  /** The same, where the handler leaves its one statement to the commit. One round trip. */
  writeOneStatement(request: IdempotencyRequest): Promise<Outcome>
  close(): Promise<void>
}

/** Writes past row level security, as the six statements do by their connection's own role. */
const server: Actor = {
  ...actor,
  caller: { kind: 'secret', role: 'service_role', claims: { role: 'service_role' } },
}

const headers: [string, string][] = [['content-type', 'application/json; charset=utf-8']]

export function openAtomic(database: Cluster, { connections }: { connections: number }): Atomic {
  const db = createDb({ url: database.url(), max: connections })
  const idempotency = createIdempotency({
    store: new PostgresIdempotencyStore(db),
    log: createLogger({ level: 'error' }),
  })
  const run = (request: IdempotencyRequest, work: Parameters<Idempotency['atomic']>[2]) =>
    idempotency.atomic(request, { db, actor: server, ttlMs: dayMs, maxStoredBytes: 65_536 }, work)
  return {
    write: (request) => run(request, takeNote),
    writeOneStatement: (request) => run(request, () => Promise.resolve(leaveToTheCommit())),
    close: () => db.close(),
  }
}

async function takeNote(tx: Parameters<Parameters<Idempotency['atomic']>[2]>[0]): Promise<AtomicFinished> {
  const [note] = await tx.query(
    sql`
      insert into public.notes (user_id, body) values (${caller.userId}, ${noteText})
      returning id, body, created_at`,
  )
  return {
    answer: { status: 201, headers, body: JSON.stringify({ success: true, data: note }) },
    store: true,
  }
}

function leaveToTheCommit(): AtomicFinished {
  return {
    answer: { status: 201, headers, body: '' },
    store: true,
    deferred: {
      prefix: '{"success":true,"data":',
      suffix: '}',
      last: sql`
        insert into public.notes (user_id, body) values (${caller.userId}, ${noteText})
        returning jsonb_build_object('id', id, 'body', body, 'created_at', created_at)`,
    },
  }
}

/** 64 hex digits twice, as the digests of a request are. */
export function newRequest(): IdempotencyRequest {
  return {
    id: randomDigest(),
    fingerprint: randomDigest(),
    route: 'POST /notes',
    callerId: caller.userId,
    requestId: crypto.randomUUID(),
  }
}

function randomDigest(): string {
  return (crypto.randomUUID() + crypto.randomUUID()).replaceAll('-', '')
}

/**
 * The usual way by hand: look for the key, insert it, do the work, store the answer with the key, in one transaction of
 * six statements over postgres.js. Each is awaited, because each decides whether the next is sent.
 */
import postgres from 'postgres'
import type { Cluster } from '../../local/postgres/cluster.ts'
import { withConnection } from '../../local/postgres/connect.ts'
import { caller, noteText } from '../support/notes.ts'

export interface SixStatements {
  /** Takes a note, unless the key has an answer; resolves to the answer. */
  write(key: string, fingerprint: string): Promise<string>
  /** The answer of a key that has one: a single statement. */
  replay(key: string, fingerprint: string): Promise<string>
  close(): Promise<void>
}

export interface SixStatementsOptions {
  connections: number
  /**
   * Prepared once and named from then on: the driver's default, and its fastest. Behind a pooler in transaction mode the
   * driver's page tells to turn it off; then it asks for the types of the parameters each time.
   */
  named: boolean
}

interface StoredKey {
  fingerprint: string
  response: string | null
}

export async function createKeys(database: Cluster): Promise<void> {
  await withConnection(database.url(), 'bench', (sql) =>
    sql.unsafe(`
      create table public.keys (
        key text primary key,
        fingerprint text not null,
        status integer,
        response text,
        created_at timestamptz not null default now()
      );
      alter table public.keys enable row level security`))
}

export function openSixStatements(database: Cluster, options: SixStatementsOptions): SixStatements {
  const { connections, named } = options
  const sql = postgres(database.url(), {
    max: connections,
    prepare: named,
    fetch_types: false,
    onnotice() {},
  })
  return {
    async write(key, fingerprint) {
      // `begin` and `commit` are the first and the last of the six.
      return await sql.begin(async (tx) => {
        const found = await tx<StoredKey[]>`select fingerprint, response from public.keys where key = ${key}`
        if (found.length > 0) return answerOf(found, fingerprint)
        await tx`insert into public.keys (key, fingerprint) values (${key}, ${fingerprint})`
        const [note] = await tx`
          insert into public.notes (user_id, body) values (${caller.userId}, ${noteText})
          returning id, body, created_at`
        const response = JSON.stringify({ success: true, data: note })
        await tx`update public.keys set status = 201, response = ${response} where key = ${key}`
        return response
      })
    },
    async replay(key, fingerprint) {
      return answerOf(
        await sql<StoredKey[]>`select fingerprint, response from public.keys where key = ${key}`,
        fingerprint,
      )
    },
    close: () => sql.end({ timeout: 5 }),
  }
}

function answerOf([found]: readonly StoredKey[], fingerprint: string): string {
  if (found === undefined || found.fingerprint !== fingerprint || found.response === null) {
    throw new Error('Cannot replay: the key is unknown, in use or was used for something else')
  }
  return found.response
}

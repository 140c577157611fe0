/** The same handler behind each adapter, and the set-up that their tests share. */
import { pipeline } from '@supabase/middleware'
import { Hono } from 'hono'
import * as forHono from '../../supabase/functions/_shared/adapters/hono.ts'
import * as forSupabase from '../../supabase/functions/_shared/adapters/supabase.ts'
import type { Actor } from '../../supabase/functions/_shared/core/caller.ts'
import { createDb, type Db, sql, type Tx } from '../../supabase/functions/_shared/db/client.ts'
import type { ManagedTx } from '../../supabase/functions/_shared/db/transactionManager.ts'
import type { CircuitBreaker } from '../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import type { RateLimitDecision } from '../../supabase/functions/_shared/resilience/rateLimit.ts'
import { createLogger, type Logger } from '../../supabase/functions/_shared/observability/logger.ts'
import { freshDatabase } from './database.ts'
import { closeAfterFile } from './leftovers.ts'
import { openSql } from './sql.ts'
import { startWireProxy, type WireProxy } from './wireProxy.ts'

export type Fetch = (request: Request) => Response | Promise<Response>
export type Handler<Given> = (request: Request, given: Given) => Promise<Response>
export type Options<T> = Omit<T, 'mode'>

/** The handler reads no body: behind Hono that is `c.req`'s to give. */
export interface Adapter {
  name: string
  transaction(options: forSupabase.TransactionOptions, handler: Handler<{ tx: ManagedTx }>): Fetch
  atomic(options: Options<forSupabase.AtomicOptions>, handler: Handler<{ tx: Tx }>): Fetch
  leased(
    options: Options<forSupabase.LeasedOptions>,
    handler: Handler<{ idempotency: forSupabase.LeasedCall }>,
  ): Fetch
  breaker(options: forSupabase.BreakerOptions, handler: Handler<{ breaker: CircuitBreaker }>): Fetch
  rateLimit(options: forSupabase.RateLimitOptions, handler: Handler<{ rateLimit: RateLimitDecision }>): Fetch
}

export const adaId = '00000000-0000-4000-8000-00000000000a'
export const graceId = '00000000-0000-4000-8000-00000000000b'

/** Who asks stands in a header here; how verified callers come in is tested for each adapter by itself. */
function as({ headers }: Request): Actor {
  const userId = headers.get('x-test-user') ?? adaId
  return { caller: { kind: 'user', role: 'authenticated', userId, claims: { sub: userId } } }
}

// A handler whose parameters are typed already is not inferred from inside `pipeline(…)`, hence the arrows.
export const adapters: Adapter[] = [
  {
    name: '@supabase/middleware',
    transaction: (options, handler) =>
      pipeline([forSupabase.withTransaction({ ...options, as })], (request, ctx) => handler(request, ctx)),
    atomic: (options, handler) =>
      pipeline(
        [forSupabase.withIdempotency({ ...options, mode: 'atomic', as })],
        (request, ctx) => handler(request, ctx),
      ),
    leased: (options, handler) =>
      pipeline(
        [forSupabase.withIdempotency({ ...options, mode: 'leased', as })],
        (request, ctx) => handler(request, ctx),
      ),
    breaker: (options, handler) =>
      pipeline([forSupabase.withBreaker(options)], (request, ctx) => handler(request, ctx)),
    rateLimit: (options, handler) =>
      pipeline([forSupabase.withRateLimit({ ...options, as })], (request, ctx) => handler(request, ctx)),
  },
  {
    name: 'Hono',
    transaction(options, handler) {
      const guard = forHono.withTransaction({ ...options, as: (c) => as(c.req.raw) })
      return honoApp().all('*', guard, (c) => handler(c.req.raw, c.var)).fetch
    },
    atomic(options, handler) {
      const guard = forHono.withIdempotency({ ...options, mode: 'atomic', as: (c) => as(c.req.raw) })
      return honoApp().all('*', guard, (c) => handler(c.req.raw, c.var)).fetch
    },
    leased(options, handler) {
      const guard = forHono.withIdempotency({ ...options, mode: 'leased', as: (c) => as(c.req.raw) })
      return honoApp().all('*', guard, (c) => handler(c.req.raw, c.var)).fetch
    },
    breaker(options, handler) {
      return honoApp().all('*', forHono.withBreaker(options), (c) => handler(c.req.raw, c.var)).fetch
    },
    rateLimit(options, handler) {
      const guard = forHono.withRateLimit({ ...options, as: (c) => as(c.req.raw) })
      return honoApp().all('*', guard, (c) => handler(c.req.raw, c.var)).fetch
    },
  },
]

/** Says nothing on the console of what a test lets a handler throw. */
function honoApp(): Hono {
  return new Hono().onError((_error, c) => c.text('thrown', 500))
}

/** Serves until the end of the file; what the handler threw and nobody answered is a plain 500. */
export function serve(fetch: Fetch): string {
  const onError = () => new Response('thrown', { status: 500 })
  const server = Deno.serve(
    { port: 0, hostname: '127.0.0.1', onListen() {}, onError },
    (request) => fetch(request),
  )
  closeAfterFile({ name: `a server on port ${server.addr.port}`, close: () => server.shutdown() })
  return `http://127.0.0.1:${server.addr.port}/shop/notes`
}

export interface NotesDatabase {
  /** A `Db` of its own is an isolate of its own. */
  open(options?: { max?: number }): Db
  /** The way to the server of what `openBehindProxy` gives. */
  proxy: WireProxy
  openBehindProxy(): Db
  /** The texts that were written and begin so. */
  notes(prefix: string): Promise<string[]>
  log: Logger
  /** Lines that were logged. */
  logged: string[]
  close(): Promise<void>
}

/** A table `public.notes` in which a text stands once, which is only looked at by the commit. */
export async function notesDatabase(): Promise<NotesDatabase> {
  const database = await freshDatabase()
  const admin = openSql(database.adminUrl)
  await admin`
    create table public.notes (
      id int generated always as identity, text text, owner uuid default auth.uid(),
      constraint said_once unique (text) deferrable initially deferred
    )`
  await admin`grant all on public.notes to authenticated, service_role, anon`
  const proxy = startWireProxy({ target: database.url, settleMs: 10 })
  const opened: Db[] = []
  const open = (url: string, max: number) => {
    const db = createDb({ url, max })
    opened.push(db)
    return db
  }
  const logged: string[] = []
  return {
    proxy,
    logged,
    log: createLogger({ write: (_level, line) => void logged.push(line) }),
    open: ({ max = 4 } = {}) => open(database.url, max),
    openBehindProxy: () => open(proxy.url, 4),
    notes: async (prefix) => {
      const rows = await admin`select text from public.notes where text like ${`${prefix}%`} order by id`
      return rows.map(({ text }) => text)
    },
    async close() {
      await Promise.all(opened.map((db) => db.close()))
      await proxy.close()
    },
  }
}

export const note = (text: string) => sql`insert into public.notes (text) values (${text})`

export const post = (
  url: string,
  key?: string,
  init: RequestInit & { headers?: Record<string, string> } = {},
) =>
  fetch(url, {
    method: 'POST',
    ...init,
    headers: key === undefined ? init.headers : { 'idempotency-key': `"${key}"`, ...init.headers },
  })

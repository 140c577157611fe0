/** The sender behind the local `net` schema: takes what committed transactions queued, and stores the answers. */
import postgres from 'postgres'
import { listen } from './listener.ts'

export interface NetWorker {
  close(): Promise<void>
}

interface QueuedRequest {
  id: string
  method: string
  url: string
  headers: Record<string, string> | null
  body: Uint8Array<ArrayBuffer> | null
  timeout_milliseconds: number
}

interface Outcome {
  status_code: number | null
  content_type: string | null
  headers: Record<string, string> | null
  content: string | null
  timed_out: boolean | null
  error_msg: string | null
}

/** Requests under way at once, as pg_net's default batch. */
const batchSize = 200
/** What a lost notification costs at most. */
const sweepMs = 10_000
/** Wait before the queue of a database that did not answer is asked again. */
const retryMs = 500
/** How often answers that have expired are removed. */
const expiryMs = 60_000

/**
 * Starts sending. Like pg_net it takes a request off the queue before it sends it: a crash may lose a request and
 * never repeats one. Any number of workers may share a database.
 */
export async function startNetWorker({ adminUrl }: { adminUrl: string }): Promise<NetWorker> {
  const sql = postgres(adminUrl, {
    max: 2,
    onnotice() {},
    fetch_types: false,
    connection: { application_name: 'holdfast-net', search_path: 'pg_catalog' },
  })
  const stop = new AbortController()
  const sending = new Set<Promise<void>>()
  let wanted = false
  let draining: Promise<void> | undefined
  let retry: ReturnType<typeof setTimeout> | undefined

  function wake(): void {
    clearTimeout(retry)
    wanted = true
    if (!stop.signal.aborted) draining ??= drain().finally(() => draining = undefined)
  }

  async function drain(): Promise<void> {
    while (wanted && !stop.signal.aborted) {
      wanted = false
      const room = batchSize - sending.size
      if (room <= 0) return
      const batch = await take(sql, room).catch(() => undefined)
      if (batch === undefined) {
        // The database may be restarting.
        retry = setTimeout(wake, retryMs)
        return
      }
      if (batch.length === room) wanted = true
      for (const request of batch) {
        const sent = send(request, stop.signal).then((outcome) =>
          store(sql, request.id, outcome, stop.signal)
        )
        const tracked = sent.finally(() => {
          sending.delete(tracked)
          if (sending.size === batchSize - 1) wake()
        })
        sending.add(tracked)
      }
    }
  }

  const listener = await listen({
    databaseUrl: adminUrl,
    channel: 'holdfast_net',
    name: 'holdfast-net',
    heard: wake,
    reconnected: wake,
  })
  const sweep = setInterval(wake, sweepMs)
  const expiry = setInterval(() => void expire(sql), expiryMs)
  void expire(sql)
  wake()

  return {
    async close() {
      stop.abort()
      await listener.close()
      clearInterval(sweep)
      clearInterval(expiry)
      await draining
      clearTimeout(retry)
      await Promise.all(sending)
      await sql.end({ timeout: 1 })
    },
  }
}

function take(sql: postgres.Sql, limit: number): Promise<QueuedRequest[]> {
  return sql<QueuedRequest[]>`
    with taken as (
        select queued.ctid
        from net.http_request_queue as queued
        order by queued.id
        limit ${limit}
        for update skip locked
    )
    delete from net.http_request_queue as queued
    using taken
    where queued.ctid = taken.ctid
    returning queued.id, queued.method, queued.url, queued.headers, queued.body, queued.timeout_milliseconds`
}

async function send(request: QueuedRequest, stop: AbortSignal): Promise<Outcome> {
  const started = performance.now()
  const timeout = AbortSignal.timeout(request.timeout_milliseconds)
  try {
    const response = await fetch(request.url, {
      method: request.method.toUpperCase(),
      headers: { 'user-agent': 'pg_net/holdfast', ...request.headers },
      body: request.body,
      redirect: 'manual',
      signal: AbortSignal.any([timeout, stop]),
    })
    return {
      status_code: response.status,
      content_type: response.headers.get('content-type'),
      headers: Object.fromEntries(response.headers),
      // PostgreSQL's text cannot hold NUL.
      content: (await response.text()).replaceAll('\0', ''),
      timed_out: false,
      error_msg: null,
    }
  } catch (error) {
    const timedOut = timeout.aborted
    const elapsed = Math.round(performance.now() - started)
    return {
      status_code: null,
      content_type: null,
      headers: null,
      content: null,
      timed_out: timedOut,
      error_msg: timedOut
        ? `Timeout of ${request.timeout_milliseconds} ms reached. Total time: ${elapsed} ms`
        : reasonOf(error),
    }
  }
}

/** Keeps an answer through a restart of the database, for a bounded time. */
async function store(sql: postgres.Sql, id: string, outcome: Outcome, stop: AbortSignal): Promise<void> {
  for (let attempt = 1; attempt <= 60; attempt += 1) {
    try {
      await sql`
        insert into net._http_response ${
        sql({ id, ...outcome, headers: outcome.headers === null ? null : sql.json(outcome.headers) })
      }`
      return
    } catch {
      if (stop.aborted) return
      await pause(retryMs, stop)
    }
  }
}

/** As pg_net: answers are kept for six hours. */
async function expire(sql: postgres.Sql): Promise<void> {
  await sql`
    delete from net._http_response as answer
    where answer.created < now() - interval '6 hours'`.catch(() => {})
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? error.cause.message : error.message
}

function pause(ms: number, stop: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  stop.addEventListener('abort', () => resolve(), { once: true })
  return promise.finally(() => clearTimeout(timer))
}

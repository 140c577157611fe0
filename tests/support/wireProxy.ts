/**
 * A TCP proxy on 127.0.0.1 that stands between a client and PostgreSQL (or any server where the client speaks first):
 * it counts round trips, adds delay, and loses connections and answers on command.
 *
 * A round trip is counted when the first bytes of an answer are handed to a client that has sent something since the
 * last such moment. Statements that a client pipelines share one trip, because it sent them before it could see an
 * answer; to make that certain on a loopback, each answer is held back for `settleMs` while the proxy goes on reading.
 */
import { waitFor } from './wait.ts'

export interface WireProxyOptions {
  /** The server behind the proxy, as a URL (`postgresql://…@host:port/db`) or as host and port. */
  target: string | { hostname: string; port: number }
  /** Added to every message, each way. @default 0 */
  delayMs?: { up?: number; down?: number }
  /** How long an answer is held back so that pipelined requests are read before it. @default 1 */
  settleMs?: number
  /** Port to listen on; 0 takes a free one. @default 0 */
  port?: number
}

export interface WireCounts {
  /** Connections that were accepted. */
  connections: number
  /** Round trips after a connection was ready for queries. */
  roundTrips: number
  /** Round trips of opening connections: start-up, authentication. */
  startupTrips: number
  bytesUp: number
  bytesDown: number
}

export interface WireProxy {
  readonly port: number
  /** The target's URL with the proxy's host and port. */
  readonly url: string
  /** Connections that are open now. */
  readonly open: number
  /** What was counted since the start or the last `reset()`. */
  counts(): WireCounts
  reset(): void
  /** Runs `work` and says what it took. Meant for one user at a time: it counts all connections. */
  measure<T>(work: () => Promise<T>): Promise<{ value: T; counts: WireCounts }>
  /** From now on, each way. */
  delay(ms: { up?: number; down?: number }): void
  /** Breaks every open connection at once, both ends; new ones are accepted. */
  cut(): void
  /** While set, new connections are closed as soon as they are accepted. */
  refuse(refusing: boolean): void
  /** Nothing moves any more, connections stay open: a network that swallows packets. `thaw` lets everything through. */
  freeze(): void
  thaw(): void
  /**
   * The next request that contains `text` (any request without it) reaches the server; its answer is lost and the
   * connection breaks once the server has answered. Resolves then: the server has done the work, the client cannot know.
   */
  loseAnswer(text?: string): Promise<void>
  close(): Promise<void>
}

/** Starts a proxy; the caller closes it. */
export function startWireProxy(options: WireProxyOptions): WireProxy {
  const { target, settleMs = 1, port = 0 } = options
  const server = typeof target === 'string' ? hostOf(target) : target
  const state: ProxyState = {
    counts: emptyCounts(),
    delayMs: { up: options.delayMs?.up ?? 0, down: options.delayMs?.down ?? 0 },
    settleMs,
    refusing: false,
    links: new Set(),
  }
  const listener = Deno.listen({ hostname: '127.0.0.1', port })
  const accepting = acceptAll(listener, server, state)
  return {
    port: listener.addr.port,
    url: typeof target === 'string'
      ? withPort(target, listener.addr.port)
      : `tcp://127.0.0.1:${listener.addr.port}`,
    get open() {
      return state.links.size
    },
    counts: () => ({ ...state.counts }),
    reset() {
      state.counts = emptyCounts()
    },
    async measure(work) {
      state.counts = emptyCounts()
      const value = await work()
      return { value, counts: { ...state.counts } }
    },
    delay(ms) {
      state.delayMs = { up: ms.up ?? 0, down: ms.down ?? 0 }
    },
    cut() {
      for (const link of state.links) link.break()
    },
    refuse(refusing) {
      state.refusing = refusing
    },
    freeze() {
      state.frozen ??= Promise.withResolvers<void>()
    },
    thaw() {
      state.frozen?.resolve()
      state.frozen = undefined
    },
    loseAnswer(text) {
      const done = Promise.withResolvers<void>()
      state.losing = { text: text === undefined ? undefined : new TextEncoder().encode(text), done }
      return done.promise
    },
    async close() {
      listener.close()
      state.frozen?.resolve()
      for (const link of state.links) link.break()
      await accepting
      await waitFor(() => state.links.size === 0, { what: 'the connections of the wire proxy to end' })
    },
  }
}

interface Losing {
  text: Uint8Array | undefined
  done: PromiseWithResolvers<void>
  quiet?: ReturnType<typeof setTimeout>
}

interface ProxyState {
  counts: WireCounts
  delayMs: { up: number; down: number }
  settleMs: number
  refusing: boolean
  frozen?: PromiseWithResolvers<void>
  losing?: Losing
  links: Set<Link>
}

/** One client's connection and the server's end of it. */
interface Link {
  client: Deno.Conn
  server: Deno.Conn
  /** The client has sent something that was not answered yet. */
  asking: boolean
  /** The server has said that it is ready for queries; before that the trips are those of the start-up. */
  ready: boolean
  losing?: Losing
  break(): void
}

async function acceptAll(
  listener: Deno.TcpListener,
  server: { hostname: string; port: number },
  state: ProxyState,
): Promise<void> {
  try {
    for await (const client of listener) {
      state.counts.connections++
      if (state.refusing) client.close()
      else void openLink(client, server, state)
    }
  } catch (error) {
    // A closed listener ends the loop; whatever else happened belongs to the caller.
    if (!(error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted)) throw error
  }
}

async function openLink(
  client: Deno.TcpConn,
  to: { hostname: string; port: number },
  state: ProxyState,
): Promise<void> {
  let server: Deno.TcpConn
  try {
    server = await Deno.connect({ hostname: to.hostname, port: to.port })
  } catch {
    // What a client of a server that is away sees: the connection ends.
    closeQuietly(client)
    return
  }
  client.setNoDelay(true)
  server.setNoDelay(true)
  const link: Link = {
    client,
    server,
    asking: false,
    ready: false,
    break() {
      closeQuietly(client)
      closeQuietly(server)
    },
  }
  state.links.add(link)
  await Promise.all([pumpUp(link, state), pumpDown(link, state)])
  link.break()
  state.links.delete(link)
}

function pumpUp(link: Link, state: ProxyState): Promise<void> {
  return pump(link.client, link.server, {
    delayMs: () => state.delayMs.up,
    state,
    onRead(bytes) {
      state.counts.bytesUp += bytes.length
      link.asking = true
      if (state.losing && (state.losing.text === undefined || includes(bytes, state.losing.text))) {
        link.losing = state.losing
        state.losing = undefined
      }
    },
  })
}

function pumpDown(link: Link, state: ProxyState): Promise<void> {
  return pump(link.server, link.client, {
    delayMs: () => Math.max(state.delayMs.down, state.settleMs),
    state,
    beforeWrite(bytes) {
      if (link.losing) return swallow(link, link.losing, bytes)
      state.counts.bytesDown += bytes.length
      if (link.asking) {
        if (link.ready) state.counts.roundTrips++
        else state.counts.startupTrips++
      }
      link.asking = false
      link.ready ||= readyState(bytes) === 'idle'
      return 'write'
    },
  })
}

interface Pump {
  delayMs(): number
  state: ProxyState
  onRead?(bytes: Uint8Array): void
  beforeWrite?(bytes: Uint8Array): 'write' | 'swallow'
}

/** Copies one direction. Delay shifts every chunk by the same time, so that it costs latency and no throughput. */
async function pump(from: Deno.Conn, to: Deno.Conn, options: Pump): Promise<void> {
  const { state } = options
  let writing: Promise<unknown> = Promise.resolve()
  let failed = false
  for (;;) {
    const buffer = new Uint8Array(64 * 1024)
    const length = await from.read(buffer).catch(() => null)
    if (length === null || failed) break
    const bytes = buffer.subarray(0, length)
    options.onRead?.(bytes)
    const ms = options.delayMs()
    const due = ms > 0 ? new Promise((resolve) => setTimeout(resolve, ms)) : undefined
    writing = writing.then(async () => {
      if (failed) return
      await due
      await state.frozen?.promise
      if (options.beforeWrite?.(bytes) !== 'swallow') await writeAll(to, bytes)
    }).catch(() => {
      failed = true
    })
  }
  await writing
  try {
    await to.closeWrite()
  } catch {
    // The other end has gone already.
  }
}

async function writeAll(to: Deno.Conn, bytes: Uint8Array): Promise<void> {
  let rest = bytes
  while (rest.length > 0) rest = rest.subarray(await to.write(rest))
}

/**
 * Loses an answer: the connection breaks when the server is idle again. Inside a transaction that goes on it breaks
 * when the server has been quiet for a moment, for a pipeline answers each of its statements.
 */
function swallow(link: Link, losing: Losing, bytes: Uint8Array): 'swallow' {
  clearTimeout(losing.quiet)
  const end = () => {
    link.break()
    losing.done.resolve()
  }
  const ready = readyState(bytes)
  if (ready === 'idle') end()
  else if (ready === 'inTransaction') losing.quiet = setTimeout(end, 20)
  return 'swallow'
}

/** PostgreSQL's ReadyForQuery (`Z`, length 5, a state) is always the last message of an answer. */
function readyState(bytes: Uint8Array): 'idle' | 'inTransaction' | undefined {
  const [type, a, b, c, length, status] = bytes.subarray(-6)
  if (type !== 0x5a || a !== 0 || b !== 0 || c !== 0 || length !== 5) return undefined
  return status === 0x49 ? 'idle' : 'inTransaction'
}

function includes(bytes: Uint8Array, part: Uint8Array): boolean {
  for (let at = 0; at + part.length <= bytes.length; at++) {
    if (part.every((byte, index) => bytes[at + index] === byte)) return true
  }
  return false
}

function closeQuietly(connection: Deno.Conn): void {
  try {
    connection.close()
  } catch {
    // Closed before: closing twice is what "break" means here.
  }
}

function emptyCounts(): WireCounts {
  return { connections: 0, roundTrips: 0, startupTrips: 0, bytesUp: 0, bytesDown: 0 }
}

function hostOf(url: string): { hostname: string; port: number } {
  const { hostname, port } = new URL(url)
  return { hostname, port: Number(port || 5432) }
}

function withPort(url: string, port: number): string {
  const changed = new URL(url)
  changed.hostname = '127.0.0.1'
  changed.port = String(port)
  return changed.href
}

/**
 * Lets role `postgres` create event triggers, as it may on a hosted Supabase. There an extension of the server (supautils)
 * allows it; stock PostgreSQL allows it to superusers alone, and has no right that could be granted. So the migrations
 * go through a proxy that makes the role a superuser for just that one statement: everything before and after it in
 * the same transaction runs with the rights it has on a hosted project.
 */
import { type Queries, withConnection } from './connect.ts'
import { type Frame, frame, frames } from './wire.ts'

/** Does the SQL contain a statement that needs the proxy? Text in comments counts: it costs a detour, no more. */
export function createsEventTrigger(sql: string): boolean {
  return /\bcreate\s+event\s+trigger\b/i.test(sql)
}

/**
 * Runs the work with a URL like `url` that leads through the proxy. Should the process die while the role is a
 * superuser, `preparePlatform` takes the right away again at the next start.
 */
export async function withEventTriggerRights<T>(
  o: { url: string; adminUrl: string },
  work: (url: string) => Promise<T>,
): Promise<T> {
  const target = new URL(o.url)
  const listener = Deno.listen({ hostname: '127.0.0.1', port: 0 })
  const sessions: Promise<void>[] = []
  return await withConnection(o.adminUrl, 'event triggers', async (admin) => {
    const accepting = (async () => {
      for await (const client of listener) sessions.push(serve(client, target, new Rights(admin)))
    })()
    try {
      const detour = new URL(o.url)
      detour.hostname = '127.0.0.1'
      detour.port = String(listener.addr.port)
      return await work(detour.href)
    } finally {
      listener.close()
      await accepting
      await Promise.allSettled(sessions)
    }
  })
}

/** Of role `postgres`: the CLI takes it, whoever logs in. */
class Rights {
  readonly #admin: Queries

  constructor(admin: Queries) {
    this.#admin = admin
  }

  async raise(): Promise<void> {
    await this.#admin`alter role postgres superuser`
  }

  async drop(): Promise<void> {
    await this.#admin`alter role postgres nosuperuser`
  }
}

/** One client's connection, from its greeting to its end. Whichever side ends first ends the other. */
async function serve(client: Deno.Conn, target: URL, rights: Rights): Promise<void> {
  using _client = client
  using server = await Deno.connect({ hostname: target.hostname, port: Number(target.port || 5432) })
  const session = new Session(client, server)
  const requests = session.passRequests(rights)
  const answers = session.passAnswers()
  await Promise.race([requests, answers]).catch(() => {})
  await Promise.allSettled([client.closeWrite(), server.closeWrite()])
  await Promise.allSettled([requests, answers])
}

/**
 * Clients send the statements of a migration without waiting for answers (Parse, Bind, Describe, Execute; again; at
 * last Sync). Counting what is still to be answered tells when the server has come to a given statement.
 */
class Session {
  readonly #client: Deno.Conn
  readonly #server: Deno.Conn
  /** Statements sent and not answered yet. */
  #unanswered = 0
  /** After an error the server ignores everything up to the next Sync. */
  #failed = false
  /** Answers to questions of our own, which the client must not see. */
  #hidden = 0
  #changed: () => void = () => {}

  constructor(client: Deno.Conn, server: Deno.Conn) {
    this.#client = client
    this.#server = server
  }

  async passAnswers(): Promise<void> {
    try {
      for await (const answer of frames(this.#server.readable, { greeting: false })) {
        await this.#passAnswer(answer)
      }
    } finally {
      this.#failed = true
      this.#changed()
    }
  }

  async #passAnswer(answer: Frame): Promise<void> {
    if (this.#hidden > 0 && 'N12TDCI'.includes(answer.type)) {
      if (answer.type === 'C') this.#hidden--
    } else {
      await write(this.#client, answer.bytes)
    }
    // Completed, nothing to do, suspended: a statement is answered. Z: ready for what comes after a Sync.
    if ('CIs'.includes(answer.type)) this.#unanswered--
    if (answer.type === 'E') this.#failed = true
    if (answer.type === 'Z') {
      this.#failed = false
      this.#unanswered = 0
      this.#hidden = 0
    }
    this.#changed()
  }

  async passRequests(rights: Rights): Promise<void> {
    let raised = false
    try {
      for await (const request of frames(this.#client.readable, { greeting: true })) {
        if (request.type === 'P' && createsEventTrigger(new TextDecoder().decode(request.bytes))) {
          await this.#answered()
          await rights.raise()
          raised = true
          await this.#noticeRights()
        }
        await this.#send(request)
        if (raised && request.type === 'E') {
          await this.#answered()
          await rights.drop()
          raised = false
          await this.#noticeRights()
        }
      }
    } finally {
      if (raised) await rights.drop()
    }
  }

  async #send(request: Frame): Promise<void> {
    if (request.type === 'E') this.#unanswered++
    await write(this.#server, request.bytes)
  }

  /** Resolves when the server has answered all that was sent, or has failed and answers no more until the next Sync. */
  async #answered(): Promise<void> {
    await write(this.#server, frame('H'))
    while (this.#unanswered > 0 && !this.#failed) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#changed = resolve
      await promise
    }
  }

  /**
   * Within a transaction the server learns of others' changes when it takes a lock. This question takes one, the
   * lightest, on an object that nobody ever locks otherwise.
   */
  async #noticeRights(): Promise<void> {
    if (this.#failed) return
    const question = "select pg_catalog.pg_get_object_address('schema', '{pg_catalog}', '{}')"
    this.#hidden++
    await this.#send({ type: 'P', bytes: frame('P', `\0${question}\0\0\0`) })
    await this.#send({ type: 'B', bytes: frame('B', '\0\0\0\0\0\0\0\0') })
    await this.#send({ type: 'E', bytes: frame('E', '\0\0\0\0\0') })
    await this.#answered()
  }
}

async function write(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent))
}

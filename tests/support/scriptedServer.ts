/** A real HTTP server that answers as a test has written down. */

export interface ReceivedRequest {
  method: string
  path: string
  headers: Headers
  body: string
}

export type ScriptedAnswer = (request: ReceivedRequest) => Response | Promise<Response>

/** One answer for each request in turn; the last one is given for ever. */
export class ScriptedServer implements AsyncDisposable {
  readonly received: ReceivedRequest[] = []
  readonly #answers: ScriptedAnswer[]
  readonly #server: Deno.HttpServer<Deno.NetAddr>
  readonly #controller = new AbortController()
  readonly #ended = Promise.withResolvers<Response>()
  #arrival = Promise.withResolvers<void>()

  constructor(...answers: ScriptedAnswer[]) {
    this.#answers = answers
    this.#server = Deno.serve({
      hostname: '127.0.0.1',
      port: 0,
      signal: this.#controller.signal,
      onListen() {},
    }, (request) => this.#answer(request))
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`
  }

  /** Values of a header, one for each request. */
  headers(name: string): (string | null)[] {
    return this.received.map(({ headers }) => headers.get(name))
  }

  /** Resolves when as many requests have arrived. */
  async arrived(count: number): Promise<void> {
    while (this.received.length < count) await this.#arrival.promise
  }

  /** An answer that never comes. */
  readonly silence: ScriptedAnswer = () => this.#ended.promise

  async #answer(request: Request): Promise<Response> {
    const { method, url, headers } = request
    const received = { method, path: new URL(url).pathname, headers, body: await request.text() }
    this.received.push(received)
    this.#arrival.resolve()
    this.#arrival = Promise.withResolvers()
    const answer = this.#answers.length > 1 ? this.#answers.shift()! : this.#answers[0]!
    return await answer(received)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.resolve(new Response())
    this.#controller.abort()
    await this.#server.finished
  }
}

/** An answer with a status, and a body in JSON where one is given. */
export function answering(
  status: number,
  body?: unknown,
  headers: Record<string, string> = {},
): ScriptedAnswer {
  return () =>
    body === undefined ? new Response(null, { status, headers }) : Response.json(body, { status, headers })
}

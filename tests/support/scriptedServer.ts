/** A real HTTP server that answers, and fails, by a script. */
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'

export type Step =
  /** An answer; a body that is no text is sent as JSON. */
  | { status: number; headers?: Record<string, string>; body?: unknown }
  /** The connection ends without an answer. */
  | 'cut'
  /** The answer is 200, and its body breaks off. */
  | 'cut body'
  /** Nothing ever comes. */
  | 'hang'

export interface SeenRequest {
  method: string
  path: string
  /** Each header line by itself, so that a header that came twice is seen twice. */
  headers: [string, string][]
  body: string
}

export interface ScriptedServer extends AsyncDisposable {
  url: string
  requests: SeenRequest[]
  /** The values of that header, of each request. */
  header(name: string): (string | undefined)[]
  /** What comes next; the last step answers all that follow. */
  script(...steps: Step[]): void
}

/** Listens on a free port of this machine. */
export async function startScriptedServer(): Promise<ScriptedServer> {
  let steps: Step[] = []
  const requests: SeenRequest[] = []
  const server = createServer(async (request, response) => {
    requests.push(await read(request))
    const step = (steps.length > 1 ? steps.shift() : steps[0]) ?? { status: 200 }
    if (step === 'hang') return
    if (step === 'cut') return void request.socket.destroy()
    // Deno's fetch repeats by itself what it has sent over a connection that was used before and is cut.
    response.shouldKeepAlive = false
    if (step === 'cut body') {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' })
      response.write('{"a":', () => request.socket.destroy())
      return
    }
    const { status, headers, body = {} } = step
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    header(name) {
      return requests.map(({ headers }) => {
        const values = headers.filter(([given]) => given.toLowerCase() === name).map(([, value]) => value)
        return values.length === 0 ? undefined : values.join(' and ')
      })
    },
    script(...next) {
      steps = next
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function read(request: IncomingMessage): Promise<SeenRequest> {
  const { method = '', url: path = '', rawHeaders } = request
  const headers: [string, string][] = []
  for (let index = 0; index < rawHeaders.length; index += 2) {
    headers.push([rawHeaders[index]!, rawHeaders[index + 1]!])
  }
  let body = ''
  for await (const chunk of request) body += chunk
  return { method, path, headers, body }
}

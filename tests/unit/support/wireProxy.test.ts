/**
 * The proxy against a small server that speaks the end of PostgreSQL's answers: each line is answered by that line
 * and ReadyForQuery, the first one stands for the start-up. Against PostgreSQL itself it runs in tests/db.
 */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { waitFor } from '../../support/wait.ts'
import { startWireProxy, type WireProxy } from '../../support/wireProxy.ts'

let server: ReturnType<typeof startLineServer>
let proxy: WireProxy
const clients: LineClient[] = []

beforeEach(() => {
  server = startLineServer()
  proxy = startWireProxy({ target: { hostname: '127.0.0.1', port: server.port } })
})

afterEach(async () => {
  for (const client of clients.splice(0)) client.close()
  await proxy.close()
  await server.close()
})

test('a wire proxy counts the start-up of a connection apart from its round trips', async () => {
  const client = await connect()
  expect(proxy.counts()).toMatchObject({ connections: 1, startupTrips: 1, roundTrips: 0 })
  await client.ask('one')
  await client.ask('two')
  expect(proxy.counts()).toMatchObject({ connections: 1, startupTrips: 1, roundTrips: 2 })
})

test('a wire proxy counts pipelined requests as one round trip', async () => {
  const client = await connect()
  proxy.reset()
  await client.send('one')
  await client.send('two')
  await client.send('three')
  await client.answers(3)
  expect(proxy.counts().roundTrips).toBe(1)
})

test('a wire proxy measures one piece of work', async () => {
  const client = await connect()
  await client.ask('before')
  const { value, counts } = await proxy.measure(() => client.ask('measured'))
  expect(value).toBe('measured')
  expect(counts).toMatchObject({ connections: 0, roundTrips: 1 })
  expect(counts.bytesUp).toBe('measured\n'.length)
})

test('a wire proxy does not count what is sent without an answer', async () => {
  const client = await connect()
  proxy.reset()
  await client.send('!silent')
  await waitFor(() => server.seen.includes('!silent'), { what: 'the server to see the message' })
  expect(proxy.counts().roundTrips).toBe(0)
})

test('a wire proxy adds its delay each way', async () => {
  const client = await connect()
  proxy.delay({ up: 30, down: 20 })
  const started = performance.now()
  await client.ask('slow')
  expect(performance.now() - started).toBeGreaterThanOrEqual(49)
})

test('a cut breaks open connections and lets new ones in', async () => {
  const client = await connect()
  proxy.cut()
  await expect(client.ask('lost')).rejects.toThrow()
  await waitFor(() => proxy.open === 0, { what: 'the cut connection to end' })
  expect(await (await connect()).ask('again')).toBe('again')
})

test('a refusing proxy closes new connections until it accepts again', async () => {
  proxy.refuse(true)
  await expect(connect()).rejects.toThrow()
  proxy.refuse(false)
  expect(await (await connect()).ask('back')).toBe('back')
})

test('a frozen proxy moves nothing, and everything once it thaws', async () => {
  const client = await connect()
  proxy.freeze()
  let answered = false
  const asked = client.ask('late').then((answer) => {
    answered = true
    return answer
  })
  // A second connection, opened around the proxy, shows that the server would have answered in this time.
  const direct = await LineClient.connect(server.port)
  clients.push(direct)
  await direct.ask('direct')
  expect(answered).toBe(false)
  expect(server.seen).not.toContain('late')
  proxy.thaw()
  expect(await asked).toBe('late')
})

test('a lost answer reaches the server and never the client', async () => {
  const client = await connect()
  const lost = proxy.loseAnswer('commit')
  expect(await client.ask('insert')).toBe('insert')
  await expect(client.ask('commit')).rejects.toThrow()
  await lost
  expect(server.seen).toContain('commit')
})

test('a client of a proxy whose server is away sees its connection end', async () => {
  await server.close()
  await expect(connect()).rejects.toThrow()
})

async function connect(): Promise<LineClient> {
  const client = await LineClient.connect(proxy.port)
  clients.push(client)
  await client.ask('hello')
  return client
}

const readyForQuery = new Uint8Array([0x5a, 0, 0, 0, 5, 0x49])

/** Answers each line by itself and ReadyForQuery; lines that begin with `!` get no answer. */
function startLineServer() {
  const listener = Deno.listen({ hostname: '127.0.0.1', port: 0 })
  const seen: string[] = []
  const connections = new Set<Deno.Conn>()
  const serve = async (connection: Deno.Conn) => {
    connections.add(connection)
    for await (const text of connection.readable.pipeThrough(new TextDecoderStream())) {
      for (const line of text.split('\n').filter(Boolean)) {
        seen.push(line)
        if (line.startsWith('!')) continue
        const answer = new TextEncoder().encode(`${line}\n`)
        await connection.write(new Uint8Array([...answer, ...readyForQuery]))
      }
    }
  }
  const accepting = (async () => {
    for await (const connection of listener) {
      // A connection that was cut ends with an error; that is what these tests do.
      serve(connection).catch(() => {}).finally(() => connections.delete(connection))
    }
  })().catch(() => {})
  let closed = false
  return {
    port: listener.addr.port,
    seen,
    async close() {
      if (closed) return
      closed = true
      listener.close()
      await accepting
      await waitFor(() => connections.size === 0, { what: 'the connections of the line server to end' })
    },
  }
}

class LineClient {
  #connection: Deno.Conn
  #received = ''

  private constructor(connection: Deno.Conn) {
    this.#connection = connection
  }

  static async connect(port: number): Promise<LineClient> {
    const connection = await Deno.connect({ hostname: '127.0.0.1', port })
    connection.setNoDelay(true)
    return new LineClient(connection)
  }

  async send(line: string): Promise<void> {
    await this.#connection.write(new TextEncoder().encode(`${line}\n`))
  }

  /** Reads until `count` answers have come. */
  async answers(count: number): Promise<string[]> {
    const buffer = new Uint8Array(1024)
    const complete = () => this.#received.split('Z\0\0\0\x05I')
    while (complete().length <= count) {
      const length = await this.#connection.read(buffer)
      if (length === null) throw new Error('The connection ended before the answer')
      this.#received += new TextDecoder().decode(buffer.subarray(0, length))
    }
    const lines = complete()
    this.#received = lines.slice(count).join('')
    return lines.slice(0, count).map((line) => line.trimEnd())
  }

  async ask(line: string): Promise<string> {
    await this.send(line)
    const [answer] = await this.answers(1)
    return answer ?? ''
  }

  close(): void {
    try {
      this.#connection.close()
    } catch {
      // Cut before by the test.
    }
  }
}

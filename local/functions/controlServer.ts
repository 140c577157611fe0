/** The host's end of the control socket: one connection an isolate, one JSON message a line. */
import { join } from 'node:path'
import type { FromIsolate, ToIsolate } from './protocol.ts'
import { asciiJson } from './protocol.ts'

export const controlSocketName = 'control'

/** What an isolate does with its connection. `closed` fires once, after the last message was handed over. */
export interface ControlListener {
  message(message: FromIsolate): void
  closed(): void
}

export interface ControlServer {
  path: string
  /** Hands over what isolate `id` says, from now until it hangs up. */
  register(id: string, listener: ControlListener): void
  /** False if that isolate is not (or no longer) connected. */
  send(id: string, message: ToIsolate): boolean
  /** Resolves when whoever has connected before this call is known by name, even if its process has ended since. */
  catchUp(): Promise<void>
  /** Forgets an isolate that never connected or whose end is settled. */
  forget(id: string): void
  close(): void
}

export function openControlServer(directory: string): ControlServer {
  const path = join(directory, controlSocketName)
  const listener = Deno.listen({ transport: 'unix', path })
  const listeners = new Map<string, ControlListener>()
  const connections = new Map<string, Deno.Conn>()
  /** Connections that have not said hello yet. */
  const strangers = new Set<Promise<void>>()
  void accept()

  async function accept(): Promise<void> {
    for await (const connection of listener) {
      const { promise, resolve } = Promise.withResolvers<void>()
      strangers.add(promise)
      void promise.then(() => strangers.delete(promise))
      void serve(connection, resolve).finally(resolve)
    }
  }

  /** Connections are accepted in their order: once a new one of ours is known, so are those before it. */
  async function catchUp(): Promise<void> {
    const known = Promise.withResolvers<void>()
    const id = `self-${crypto.randomUUID()}`
    listeners.set(id, { message: () => known.resolve(), closed: () => known.resolve() })
    const connection = await Deno.connect({ transport: 'unix', path })
    try {
      await connection.write(new TextEncoder().encode(asciiJson({ type: 'hello', id }) + '\n'))
      await known.promise
      await Promise.all(strangers)
    } finally {
      closeQuietly(connection)
      listeners.delete(id)
    }
  }

  async function serve(connection: Deno.Conn, introduced: () => void): Promise<void> {
    let id: string | undefined
    try {
      let text = ''
      const decoder = new TextDecoder()
      const buffer = new Uint8Array(16_384)
      for (let count = await connection.read(buffer); count !== null; count = await connection.read(buffer)) {
        const lines = (text + decoder.decode(buffer.subarray(0, count), { stream: true })).split('\n')
        text = lines.pop() ?? ''
        for (const line of lines) {
          const message: FromIsolate = JSON.parse(line)
          if (message.type === 'hello') connections.set(id = message.id, connection)
          if (id !== undefined) listeners.get(id)?.message(message)
          introduced()
        }
      }
    } catch {
      // A killed isolate resets its connection: the same as hanging up.
    } finally {
      closeQuietly(connection)
      if (id !== undefined) {
        connections.delete(id)
        listeners.get(id)?.closed()
      }
    }
  }

  return {
    path,
    register: (id, listener) => void listeners.set(id, listener),
    send(id, message) {
      const connection = connections.get(id)
      if (connection === undefined) return false
      // Messages are a few bytes and rare, far below a socket's buffer: one write takes all of it.
      connection.write(new TextEncoder().encode(`${JSON.stringify(message)}\n`)).catch(() => {})
      return true
    },
    catchUp,
    forget: (id) => void listeners.delete(id),
    close() {
      closeQuietly(listener)
      for (const connection of connections.values()) closeQuietly(connection)
    },
  }
}

function closeQuietly(resource: { close(): void }): void {
  try {
    resource.close()
  } catch (error) {
    if (!(error instanceof Deno.errors.BadResource)) throw error
  }
}

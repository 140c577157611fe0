/** resilience/retryFetch.ts sends once what may be sent once, whatever Deno does by itself. */
import { createServer } from 'node:http'
import { expect, test } from 'vitest'
import { createRetryFetch } from '../../../supabase/functions/_shared/resilience/retryFetch.ts'

/** Keeps connections open after a GET, and breaks them at whatever else has arrived. */
async function startBreakingServer() {
  const bodies: string[] = []
  const server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    if (request.method === 'GET') return void response.end('ok')
    bodies.push(body)
    request.socket.destroy()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  return {
    url: `http://127.0.0.1:${port}/`,
    bodies,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

test.each(['', 'x'])(
  'a POST without Idempotency-Key is sent once, though Deno repeats what it sent on a used connection: body %j',
  async (body) => {
    await using server = await startBreakingServer()
    const retryingFetch = createRetryFetch()
    for (let call = 0; call < 3; call++) {
      expect(await (await retryingFetch(server.url)).text()).toBe('ok')
      await expect(retryingFetch(server.url, { method: 'POST', body })).rejects.toThrow(TypeError)
    }
    expect(server.bodies).toEqual([body, body, body])
  },
)

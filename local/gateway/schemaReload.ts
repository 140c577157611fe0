/** Obeys `notify pgrst, 'reload schema'`, as PostgREST does. */
import { listen } from './listener.ts'

export interface SchemaFollower {
  close(): Promise<void>
}

/** Wait before a reload that failed is tried again. */
const retryMs = 1_000

/**
 * Calls `reload` after each notification, and after each reconnection, since what was said meanwhile is lost.
 * Reloads never overlap; notifications that come during one lead to one more. A reload that throws is tried again.
 */
export async function followSchema(
  databaseUrl: string,
  reload: () => Promise<void>,
): Promise<SchemaFollower> {
  let closed = false
  let wanted = false
  let running: Promise<void> | undefined
  let retry: ReturnType<typeof setTimeout> | undefined

  function request(): void {
    wanted = true
    clearTimeout(retry)
    running ??= run().finally(() => running = undefined)
  }

  async function run(): Promise<void> {
    while (wanted && !closed) {
      wanted = false
      try {
        await reload()
      } catch {
        // The database is away or restarting: the reconnection or the next try finds it.
        if (!closed) retry = setTimeout(request, retryMs)
        return
      }
    }
  }

  const listener = await listen({
    databaseUrl,
    channel: 'pgrst',
    name: 'holdfast-schema',
    heard(payload) {
      // An empty payload means everything; "reload config" has no counterpart here.
      if (payload === '' || payload === 'reload schema') request()
    },
    reconnected: request,
  })

  return {
    async close() {
      closed = true
      clearTimeout(retry)
      await listener.close()
      await running
    },
  }
}

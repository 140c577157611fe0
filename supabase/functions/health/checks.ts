/** What the platform needs to work, each asked for a sign of life. */

export interface Check {
  /** Without it the platform is not ready; otherwise it is degraded. */
  needed: boolean
  /** Resolves when it is up. Gets a signal that aborts when its time is up. */
  probe(signal: AbortSignal): Promise<unknown>
}

export interface CheckResult {
  state: 'up' | 'down'
  needed: boolean
  latencyMs: number
}

/** Runs all at once, each bounded. Never rejects; `onDown` learns why, for the log. */
export async function runChecks(
  checks: Record<string, Check>,
  options: { timeoutMs: number; onDown: (name: string, error: unknown) => void },
): Promise<Record<string, CheckResult>> {
  const results = await Promise.all(
    Object.entries(checks).map(async ([name, { needed, probe }]) => {
      const startedAt = performance.now()
      const state = await withTimeout(probe, options.timeoutMs).then(
        () => 'up' as const,
        (error) => {
          options.onDown(name, error)
          return 'down' as const
        },
      )
      const latencyMs = Math.round((performance.now() - startedAt) * 10) / 10
      return [name, { state, needed, latencyMs }] as const
    }),
  )
  return Object.fromEntries(results)
}

async function withTimeout(probe: Check['probe'], timeoutMs: number): Promise<void> {
  const controller = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = new Error(`no answer within ${timeoutMs} ms`)
      controller.abort(error)
      reject(error)
    }, timeoutMs)
  })
  try {
    await Promise.race([probe(controller.signal), timeout])
  } finally {
    clearTimeout(timer)
  }
}

/** Customers of the function `checkout`, and what becomes of each. */

export type Outcome = 'served' | 'failed' | 'probed' | 'refused'

export interface Seen {
  /** When the answer came, in milliseconds since 1970. */
  at: number
  ms: number
  /** `A`, `B`, … in the order in which they first answered. */
  isolate: string
  outcome: Outcome
  status: number
}

export interface Customers {
  readonly seen: readonly Seen[]
  /** Resolves when the last answer is there. */
  stop(): Promise<void>
}

/** As many at once as there are isolates, which take turns: so each isolate has one in each round. */
export function startCustomers(options: { url: string; isolates: number; everyMs: number }): Customers {
  const seen: Seen[] = []
  const names = new Map<string, string>()
  /** Isolates that have refused since the breaker opened; undefined while it is closed. */
  let refusing: Set<string> | undefined
  const underWay = new Set<Promise<void>>()

  async function order(): Promise<void> {
    const startedAt = performance.now()
    const response = await fetch(options.url, { method: 'POST' })
    const text = await response.text()
    const at = Date.now()
    const pid = response.headers.get('x-isolate') ?? 'none'
    if (!names.has(pid)) names.set(pid, String.fromCharCode(65 + names.size))
    const isolate = names.get(pid)!
    const outcome = judge(isolate, response.ok, text.includes('"CIRCUIT_OPEN"'))
    seen.push({ at, ms: performance.now() - startedAt, isolate, outcome, status: response.status })
  }

  /** Whoever reaches the provider although their isolate refuses was let through to look. */
  function judge(isolate: string, served: boolean, refused: boolean): Outcome {
    if (refused) {
      refusing ??= new Set()
      refusing.add(isolate)
      return 'refused'
    }
    const probed = refusing?.has(isolate) ?? false
    if (served) refusing = undefined
    return probed ? 'probed' : served ? 'served' : 'failed'
  }

  const timer = setInterval(() => {
    for (let each = 0; each < options.isolates; each++) {
      const running = order().finally(() => underWay.delete(running))
      underWay.add(running)
      // An answer that never came shows as one that is missing.
      running.catch(() => {})
    }
  }, options.everyMs)
  return {
    seen,
    async stop() {
      clearInterval(timer)
      await Promise.allSettled(underWay)
    },
  }
}

/** Traffic on guarded routes while what the guards share their state through is away for five seconds. */
import type { Guarded, GuardedAnswer } from '../../fixtures/guardsProject.ts'
import { waitFor } from '../../support/wait.ts'

export const outageMs = 5_000

export interface Outage {
  /** Answers by when they came. */
  before: GuardedAnswer[]
  during: GuardedAnswer[]
  /** From when all isolates answered as if nothing had been. */
  after: GuardedAnswer[]
  /** Those that were no success, at any time. */
  failed(): { status: number; code: string | undefined; isolate: number }[]
}

/** What an answer says of where its limit was decided; null: where it always is. */
export function storeOf({ headers }: GuardedAnswer): string | null {
  return headers.get('ratelimit-store')
}

/**
 * Calls the routes in turn, each time as another client and with another key, before, during and after. Resolves when
 * every isolate has answered without the store being away again; rejects when that takes longer than five seconds.
 */
export async function blowOver(
  guarded: Guarded,
  options: { leave(): unknown; return(): unknown; routes: string[] },
): Promise<Outage> {
  const { routes } = options
  const traffic = guarded.traffic({
    lanes: 8,
    pauseMs: 10,
    call(turn) {
      const [method, path] = routes[turn % routes.length]!.split(' ') as [string, string]
      return guarded.call(path, {
        method,
        headers: {
          'x-client': crypto.randomUUID(),
          ...(path === '/leased' && {
            'content-type': 'application/json',
            'idempotency-key': crypto.randomUUID(),
          }),
        },
        body: path === '/leased' ? '{}' : undefined,
      })
    },
  })
  const answers = traffic.answers
  await waitFor(() => answers.length >= 100, { what: 'the first answers', timeoutMs: 15_000 })
  const leftAt = Date.now()
  const leftFrom = answers.length
  await options.leave()
  await waitFor(() => Date.now() - leftAt >= outageMs, { what: 'the outage', timeoutMs: 2 * outageMs })
  const backFrom = answers.length
  await options.return()
  await waitFor(() => answers.slice(backFrom).some((answer) => storeOf(answer) === null), {
    what: 'the first shared decision',
    timeoutMs: outageMs,
  })
  // Every isolate has found out once the last forty answers all say so.
  await waitFor(
    () => answers.length > backFrom + 40 && answers.slice(-40).every((answer) => storeOf(answer) === null),
    { what: 'all decisions to be shared again', timeoutMs: outageMs },
  )
  const afterFrom = answers.length
  await waitFor(() => answers.length >= afterFrom + 60, { what: 'the last answers', timeoutMs: outageMs })
  await traffic.stop()
  return {
    before: answers.slice(0, leftFrom),
    during: answers.slice(leftFrom, backFrom),
    after: answers.slice(afterFrom),
    failed: () =>
      answers.filter(({ status }) => status >= 300)
        .map(({ status, code, isolate }) => ({ status, code, isolate })),
  }
}

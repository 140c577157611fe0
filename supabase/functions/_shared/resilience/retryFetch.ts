/** `fetch` that tries again what may be tried again. */
import { createRetry, type RetryOptions } from './retry.ts'
import type { Deadline } from './timeout.ts'
import { isTransient, mayRepeat } from './transient.ts'

export interface RetryFetchOptions extends RetryOptions {
  /** For each attempt, to the head of its answer. @default 10_000 */
  attemptTimeoutMs?: number
  /** @default the platform's, where a POST or PATCH without `Idempotency-Key` has a connection of its own */
  fetch?: (request: Request) => Promise<Response>
}

export type RetryFetch = (
  input: string | URL | Request,
  init?: RequestInit & { deadline?: Deadline },
) => Promise<Response>

/**
 * A `fetch` that resolves to the first answer that is not transient, or else to the last one; without an answer it
 * rejects as `fetch` does, or with `UPSTREAM_TIMEOUT`. A POST or PATCH without `Idempotency-Key` is sent once.
 * `init.signal` ends it at once. The body is kept in memory, to be sent again. `RangeError` for options out of range.
 */
export function createRetryFetch(options: RetryFetchOptions = {}): RetryFetch {
  const { fetch: send = platformFetch, attemptTimeoutMs = 10_000 } = options
  const policy = { ...options, attemptTimeoutMs }
  const repeat = createRetry(policy)
  const once = createRetry({ ...policy, attempts: 1 })
  const maySucceedLater = options.isTransient ?? isTransient

  return async (input, { deadline, ...init } = {}) => {
    const request = new Request(input, init)
    const repeatable = mayRepeat(request)
    let last: Response | undefined
    try {
      return await (repeatable ? repeat : once)(async ({ signal }) => {
        discard(last)
        last = undefined
        // The time limit ends with the head of the answer, the caller's signal goes on for its body.
        const signals = signal === undefined ? [request.signal] : [request.signal, signal]
        const attempt = new Request(repeatable ? request.clone() : request, {
          signal: AbortSignal.any(signals),
        })
        const response = await send(attempt)
        if (signal?.aborted) {
          // It was given up, and whoever sends does not look at signals.
          discard(response)
          throw signal.reason
        }
        last = response
        if (maySucceedLater(response)) throw response
        last = undefined
        return response
      }, { signal: request.signal, deadline })
    } catch (error) {
      if (last !== undefined && error === last) return last
      discard(last)
      throw error
    }
  }
}

/** One request with its own options. */
export async function retryFetch(
  input: string | URL | Request,
  init?: RequestInit & { deadline?: Deadline },
  options?: RetryFetchOptions,
): Promise<Response> {
  return await createRetryFetch(options)(input, init)
}

/**
 * Deno itself sends a request again, a POST too, when a connection that it had kept open breaks before the answer. What
 * must not be sent twice gets a connection of its own.
 */
function platformFetch(request: Request): Promise<Response> {
  if (mayRepeat(request)) return fetch(request)
  client ??= globalThis.Deno?.createHttpClient?.({ poolMaxIdlePerHost: 0 })
  return fetch(request, { client })
}

let client: Deno.HttpClient | undefined

/** An answer that nobody will get frees its connection. */
function discard(response: Response | undefined): void {
  response?.body?.cancel().catch(() => {})
}

/**
 * For clients: `supabase.functions.invoke` that sends an `Idempotency-Key` and tries again under it. Runs in browsers,
 * Node and Deno, and needs nothing at run time but what it is given.
 */
import { type Attempt, createRetry, type RetryOptions } from './retry.ts'
import { systemTimers, type Timers } from './timers.ts'
import { isTransient, isTransientStatus } from './transient.ts'

/** What it needs of supabase-js: `supabase.functions`. */
export interface FunctionsLike {
  // deno-lint-ignore no-explicit-any -- the options and the answer are supabase-js's own, handed through as they are
  invoke<T = any>(name: string, options?: any): Promise<InvokeAnswer<T>>
}

export type InvokeAnswer<T> =
  | { data: T; error: null; response?: Response }
  // deno-lint-ignore no-explicit-any -- as supabase-js declares it
  | { data: null; error: any; response?: Response }

export interface ActionOptions {
  /**
   * Names the intended action: `checkout-42`. Calls of the same function with the same action share one key until one
   * of them has a definite answer, so that a second click, or a later try, repeats the action instead of doing it twice.
   * @default every call is an action of its own
   */
  action?: string
}

type InvokeOptionsOf<Client extends FunctionsLike> =
  & NonNullable<Parameters<Client['invoke']>[1]>
  & ActionOptions

export interface IdempotentFunctions<Client extends FunctionsLike> {
  /** As `functions.invoke`, with a key for every call but GET. A key in `headers` is left as it is. */
  // deno-lint-ignore no-explicit-any -- as supabase-js declares it
  invoke<T = any>(name: string, options?: InvokeOptionsOf<Client>): Promise<InvokeAnswer<T>>
}

export interface IdempotencyKeyOptions {
  /** How a transient failure is tried again, under the same key. @default three attempts, from 100 ms */
  retry?: Omit<RetryOptions, 'isTransient'>
  /** Makes a key: 1 to 255 visible ASCII characters, never the same twice. @default crypto.randomUUID */
  newKey?: () => string
}

/** What it reads of the options; the rest is for supabase-js. */
interface KnownOptions {
  method?: string
  headers?: Record<string, string>
  body?: unknown
  signal?: AbortSignal
}

/**
 * `const functions = withIdempotencyKey(supabase.functions)`, once for an application since it remembers the keys of
 * actions, then `functions.invoke(…)` as before. Resolves as supabase-js does, also when all attempts failed or the
 * call was aborted. `RangeError` for retry options out of range.
 */
export function withIdempotencyKey<Client extends FunctionsLike>(
  functions: Client,
  options: IdempotencyKeyOptions = {},
): IdempotentFunctions<Client> {
  const retryOptions = {
    ...options.retry,
    isTransient: isWorthRepeating,
    onRetry: tellOnRetry(options.retry),
  }
  const repeat = createRetry(retryOptions)
  const once = createRetry({ ...retryOptions, attempts: 1 })
  const keys = new ActionKeys(options)

  return {
    async invoke<T>(
      name: string,
      { action, ...given }: InvokeOptionsOf<Client> = {} as InvokeOptionsOf<Client>,
    ) {
      const { method, headers, body, signal }: KnownOptions = given
      let sent: Omit<InvokeOptionsOf<Client>, 'action'> & KnownOptions = given
      let key: string | undefined
      if (method?.toUpperCase() !== 'GET' && !hasKey(headers)) {
        key = keys.take(name, action)
        sent = { ...given, headers: { ...headers, 'Idempotency-Key': key } }
      }

      let last: Promise<InvokeAnswer<T>> | undefined
      let refusal: Response | undefined
      // A stream can be read only once.
      const retry = body instanceof ReadableStream ? once : repeat
      try {
        await retry(async (attempt) => {
          discard(refusal)
          refusal = undefined
          last = functions.invoke<T>(name, { ...sent, ...signalOf(attempt, signal) })
          const { error, response } = await last
          if (error === null) return
          // Of an attempt that was given up nobody sees the answer.
          if (attempt.signal?.aborted) discard(response)
          else refusal = response
          throw new InvokeFailure(error, await isInProgress(error))
        }, { signal })
      } catch {
        // Answers of supabase-js do not reject: the last one is the answer, also to a call that was aborted.
      }
      const answer = await (last ?? functions.invoke<T>(name, sent))
      if (key !== undefined && await isDefinite(answer)) keys.release(name, action, key)
      return answer
    },
  }
}

/** Keys of actions without a definite answer, in this page's or process's memory. */
class ActionKeys {
  readonly #newKey: () => string
  readonly #timers: Timers
  readonly #keys = new Map<string, { key: string; takenAt: number }>()

  constructor({ newKey = () => crypto.randomUUID(), retry }: IdempotencyKeyOptions) {
    this.#newKey = newKey
    this.#timers = retry?.timers ?? systemTimers
  }

  take(name: string, action: string | undefined): string {
    if (action === undefined) return this.#newKey()
    this.#forgetOld()
    const slot = JSON.stringify([name, action])
    let entry = this.#keys.get(slot)
    if (entry === undefined) {
      this.#keys.set(slot, entry = { key: this.#newKey(), takenAt: this.#timers.now() })
    }
    return entry.key
  }

  /** The action has its answer. Another call may have begun it anew meanwhile, under another key. */
  release(name: string, action: string | undefined, key: string): void {
    const slot = JSON.stringify([name, action])
    if (this.#keys.get(slot)?.key === key) this.#keys.delete(slot)
  }

  /** The oldest stand first. */
  #forgetOld(): void {
    for (const [slot, { takenAt }] of this.#keys) {
      if (this.#timers.now() - takenAt < keptMs) return
      this.#keys.delete(slot)
    }
  }
}

/** As long as a server keeps an answer by default: under an older key it would run anew anyway. */
const keptMs = 86_400_000

/** Carries supabase-js's error through the retries, which look at what is behind it. */
class InvokeFailure extends Error {
  readonly inProgress: boolean
  readonly context: unknown

  constructor(error: { context?: unknown }, inProgress: boolean) {
    super('The function did not answer as hoped', { cause: error })
    this.inProgress = inProgress
    this.context = error.context
  }
}

/** An AbortError here is `timeout` of supabase-js: when the caller's signal is aborted nobody asks. */
function isWorthRepeating(failure: unknown): boolean {
  if (!(failure instanceof InvokeFailure)) return isTransient(failure)
  const { inProgress, cause, context } = failure
  return inProgress || isTransient(cause) || (context instanceof Error && context.name === 'AbortError')
}

/** Whether the action has happened, or will not: 2xx, or a 4xx that stays. All else may have happened. */
async function isDefinite({ error, response }: InvokeAnswer<unknown>): Promise<boolean> {
  if (error === null) return true
  if (response === undefined || error.name === 'FunctionsRelayError') return false
  const { status } = response
  return status >= 400 && status < 500 && !isTransientStatus(status) && !(await isInProgress(error))
}

/** 409 IDEMPOTENCY_KEY_IN_USE. Reads a copy: the caller may want to read the body. */
async function isInProgress({ context }: { context?: unknown }): Promise<boolean> {
  if (!(context instanceof Response) || context.status !== 409 || context.bodyUsed) return false
  try {
    const body = await context.clone().json()
    return (body?.error?.code ?? body?.code) === 'IDEMPOTENCY_KEY_IN_USE'
  } catch {
    return false
  }
}

/** A time limit ends with the answer, the caller's signal goes on for a body that is a stream of events. */
function signalOf({ signal: limit }: Attempt, given: AbortSignal | undefined): { signal?: AbortSignal } {
  if (limit === undefined || limit === given) return {}
  return { signal: given === undefined ? limit : AbortSignal.any([given, limit]) }
}

function hasKey(headers: Record<string, string> = {}): boolean {
  return Object.keys(headers).some((name) => name.toLowerCase() === 'idempotency-key')
}

/** Frees the connection of an answer that nobody will see. */
function discard(response: Response | undefined): void {
  if (response?.bodyUsed === false) response.body?.cancel().catch(() => {})
}

/** Observers get supabase-js's own errors. */
function tellOnRetry({ onRetry }: RetryOptions = {}): RetryOptions['onRetry'] {
  return onRetry && ((event) => {
    const { error } = event
    return onRetry({ ...event, error: error instanceof InvokeFailure ? error.cause : error })
  })
}

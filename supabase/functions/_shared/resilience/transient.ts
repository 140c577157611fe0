/** One answer, for everything that retries, to the question whether the same call may succeed later. */
import { isHoldfastError } from '../core/errors.ts'

/** Statuses that say "not now" rather than "no". 501 and 505 will not change. */
export function isTransientStatus(status: number): boolean {
  return status === 408 || status === 425 || status === 429 ||
    (status >= 500 && status <= 599 && status !== 501 && status !== 505)
}

/**
 * Whether what failed may succeed when it is tried again, unchanged. A `Response` counts by its status, a
 * `HoldfastError` by its own word, an error of supabase-js by what is behind it. What cannot be classified is not
 * transient. Says nothing about whether repeating is safe; `mayRepeat` does.
 */
export function isTransient(failure: unknown): boolean {
  let current = failure
  for (let depth = 0; depth < longestChain; depth++) {
    if (current instanceof Response) return isTransientStatus(current.status)
    if (!(current instanceof Error)) return false
    const verdict = classify(current)
    if (verdict !== undefined) return verdict
    current = current.cause ?? (current as Failure).context
  }
  return false
}

/** Chains of causes can be circles. */
const longestChain = 8

interface Failure extends Error {
  code?: unknown
  status?: unknown
  /** Where supabase-js keeps what is behind an error. */
  context?: unknown
}

/** Undefined where the error itself does not tell. */
function classify(failure: Failure): boolean | undefined {
  const { name, code, status } = failure
  // It may have happened: repeating it is for those who can tell.
  if (code === 'COMMIT_UNKNOWN') return false
  if (isHoldfastError(failure)) return failure.retryable
  if (name === 'AbortError') return false
  if (transientNames.has(name) || (typeof code === 'string' && isTransientCode(code))) return true
  if (typeof status === 'number') return isTransientStatus(status)
  if (failure instanceof TypeError && isNetworkMessage(failure.message)) return !isRefusal(failure.cause)
  return undefined
}

const transientNames = new Set([
  'TimeoutError', // AbortSignal.timeout()
  'FunctionsRelayError', // supabase-js: Supabase could not reach the function
  // Deno's classes of a failed connection, which do not exist elsewhere.
  'ConnectionRefused',
  'ConnectionReset',
  'ConnectionAborted',
  'BrokenPipe',
  'TimedOut',
  'NetworkUnreachable',
])

const transientCodes = new Set([
  // SQLSTATE: serialization failure, deadlock, the server goes down, comes up, has no room.
  ...['40001', '40P01', '57P01', '57P02', '57P03', '53300'],
  // Sockets and names.
  ...['ECONNRESET', 'ECONNREFUSED', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'ENETDOWN', 'ENETUNREACH'],
  ...['EHOSTDOWN', 'EHOSTUNREACH', 'EAI_AGAIN', 'ENOTFOUND'],
  // Node's fetch.
  ...['UND_ERR_SOCKET', 'UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT'],
  // The postgres package.
  ...['CONNECTION_CLOSED', 'CONNECTION_DESTROYED', 'CONNECT_TIMEOUT'],
])

/** Class 08 is the lost connection, but 08007 says that nobody knows how its transaction ended. */
function isTransientCode(code: string): boolean {
  return transientCodes.has(code) || (code !== '08007' && /^08[0-9A-Z]{3}$/.test(code))
}

/** A `fetch` that failed, and a body that broke off, are bare TypeErrors everywhere, each platform in its own words. */
const networkMessages = new Set([
  'fetch failed', // Deno, Node
  'terminated', // Node, in the body
  'Failed to fetch', // Chromium
  'network error', // Chromium, in the body
  'NetworkError when attempting to fetch resource.', // Firefox
  'Error in input stream', // Firefox, in the body
  'Load failed', // Safari, as the next ones
  'The network connection was lost.',
  'The Internet connection appears to be offline.',
  'Could not connect to the server.',
  'The request timed out.',
  'A server with the specified hostname could not be found.',
  'Network request failed', // React Native
])

/** With the address behind them: earlier Deno, in the body as well; Chromium; Safari. */
const networkBeginnings =
  /^(error sending request (for|from) |error reading a body from connection|Failed to fetch \(|Load failed \()/

function isNetworkMessage(message: string): boolean {
  return networkMessages.has(message) || networkBeginnings.test(message)
}

/** What Node's `fetch` will never send, told as a network error. */
function isRefusal(cause: unknown): boolean {
  return cause instanceof Error && (cause.message === 'unknown scheme' || cause.message === 'bad port')
}

const idempotentMethods = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/**
 * Whether a request may be sent again: by its method, or because it has an `Idempotency-Key`. A POST or PATCH without
 * one may not, since its first answer may just have been lost.
 */
export function mayRepeat({ method, headers }: { method: string; headers: Headers }): boolean {
  return idempotentMethods.has(method.toUpperCase()) || Boolean(headers.get('idempotency-key')?.trim())
}

/** The one shape of success and of failure, and problem details (RFC 9457) for those who ask for them. */
import { isoTime, systemClock } from '../core/clock.ts'
import type { HoldfastError } from '../core/errors.ts'
import type { StoredAnswer } from '../resilience/idempotency.ts'

export interface PagePagination {
  page: number
  perPage: number
  total: number
  totalPages: number
}

export interface CursorPagination {
  limit: number
  /** Null on the last page. */
  nextCursor: string | null
  hasMore: boolean
}

export type Pagination = PagePagination | CursorPagination

/** What a client learns of a failure. */
export interface PublicError {
  status: number
  code: string
  message: string
  details?: unknown
}

/** `{ success: true, data, meta }`, with `pagination` for lists. */
export function successBody(data: unknown, requestId: string, pagination?: Pagination): string {
  const { prefix, suffix } = successFrame(requestId, pagination)
  return prefix + (JSON.stringify(data) ?? 'null') + suffix
}

/** What stands around the data of a success, for data that is JSON text already. */
export function successFrame(requestId: string, pagination?: Pagination): { prefix: string; suffix: string } {
  // Put together from its parts: twice as fast as making an object of them first.
  const list = pagination === undefined ? '' : `,"pagination":${JSON.stringify(pagination)}`
  return { prefix: '{"success":true,"data":', suffix: `${list},"meta":${metaText(requestId)}}` }
}

/** `{ success: false, error: { code, message, details }, meta }`. */
export function errorBody(error: PublicError, requestId: string): string {
  const { code, message, details = null } = error
  return `{"success":false,"error":${JSON.stringify({ code, message, details })},"meta":${
    metaText(requestId)
  }}`
}

/** The same as `application/problem+json`. PD1: with `about:blank` the title is the status phrase. */
export function problemBody(error: PublicError, requestId: string): string {
  const { status, code, message, details } = error
  return JSON.stringify({
    type: 'about:blank',
    title: statusPhrases[status] ?? (status < 500 ? 'Bad Request' : 'Internal Server Error'),
    ...limitProblem(error),
    status,
    detail: message,
    instance: `urn:request:${encodeURIComponent(requestId)}`,
    code,
    details,
    requestId,
    timestamp: isoTime(systemClock()),
  })
}

/** RL5: a refusal that names the policies it was made by has a type of its own. */
function limitProblem({ status, details }: PublicError): Record<string, unknown> | undefined {
  const { policies } = (details ?? {}) as { policies?: unknown }
  const problem = limitProblems[status]
  if (problem === undefined || !Array.isArray(policies)) return undefined
  const { name, title } = problem
  return {
    type: `https://iana.org/assignments/http-problem-types#${name}`,
    title,
    'violated-policies': policies,
  }
}

const limitProblems: Record<number, { name: string; title: string }> = {
  429: { name: 'quota-exceeded', title: 'The quota is used up' },
  503: { name: 'temporary-reduced-capacity', title: 'Calls cannot be counted at the moment' },
}

/** The whole answer to a failure: in the envelope, or as problem details where `Accept` asks for them. */
export function errorAnswer(error: HoldfastError, requestId: string, accept: string | null): StoredAnswer {
  const shown = publicError(error)
  const problem = wantsProblem(accept)
  return {
    status: error.status,
    headers: Object.entries({
      'content-type': problem ? 'application/problem+json' : 'application/json; charset=utf-8',
      ...retryAfter(error),
      ...error.headers,
    }),
    body: problem ? problemBody(shown, requestId) : errorBody(shown, requestId),
  }
}

/** Whether the client prefers problem details; a plain JSON client gets the envelope. */
export function wantsProblem(accept: string | null): boolean {
  return accept !== null && accept.includes('application/problem+json')
}

/**
 * What may leave the house: all of a refusal, nothing of a failure of ours but its code. 502 to 504 also give the
 * details the error was made with, which are for the client by contract; their message is for the log.
 */
export function publicError(error: HoldfastError): PublicError {
  const { status, code, message, details } = error
  if (status < 500) return { status, code, message, details }
  if (status === 500) return { status, code: 'INTERNAL_ERROR', message: serverMessages.INTERNAL_ERROR }
  return { status, code, message: serverMessages[code] ?? serverMessages.INTERNAL_ERROR, details }
}

const serverMessages: Record<string, string> & { INTERNAL_ERROR: string } = {
  INTERNAL_ERROR: 'Something went wrong on our side; quote the request id',
  UPSTREAM_ERROR: 'A service this depends on failed',
  CIRCUIT_OPEN: 'A service this depends on is failing and is being left alone; try again later',
  BULKHEAD_FULL: 'Too many calls of a service this depends on are under way; try again later',
  SERVICE_UNAVAILABLE: 'A service this depends on is not available; try again later',
  UPSTREAM_TIMEOUT: 'A service this depends on took too long',
  TRANSACTION_TIMED_OUT: 'This took too long, and was taken back',
  COMMIT_UNKNOWN:
    'Whether this was carried out is not known; look before you repeat it, or repeat it with the same idempotency key',
}

const statusPhrases: Record<number, string> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  402: 'Payment Required',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  409: 'Conflict',
  413: 'Content Too Large',
  415: 'Unsupported Media Type',
  422: 'Unprocessable Content',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

/** `Retry-After` in whole seconds, rounded up (RA1), where there is something to wait for. */
export function retryAfter(error: HoldfastError): Record<string, string> {
  if (error.retryAfterMs === undefined) return {}
  return { 'retry-after': String(Math.max(0, Math.ceil(error.retryAfterMs / 1_000))) }
}

/** A request id has no character that JSON escapes: `requestIdOf` sees to it. */
function metaText(requestId: string): string {
  return `{"requestId":"${requestId}","timestamp":"${isoTime(systemClock())}"}`
}

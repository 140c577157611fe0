/**
 * A function's HTTP face. It declares routes; this file gives each request an id, a caller, validated input, a
 * logger and a deadline, and each answer its envelope, its headers and one line in the log. Nothing a handler
 * throws gets past it: expected refusals become their status, everything else a 500 that tells the client only
 * the request id.
 */
import type { Actor, Caller, RequestInfo } from '../core/caller.ts'
import { anonymousCaller } from '../core/caller.ts'
import { type Env, env } from '../core/env.ts'
import { HoldfastError, isHoldfastError } from '../core/errors.ts'
import { createLogger, type Logger } from '../observability/logger.ts'
import { takeKeyField } from '../resilience/idempotencyKey.ts'
import { createCredentialVerifier, type CredentialVerifier } from '../security/credentials.ts'
import { readJson } from './body.ts'
import { clientIp, preflightHeaders, requestIdOf, setCorsHeaders, setSecurityHeaders } from './headers.ts'
import type { IdempotencySettings, IdempotentAnswer, RunIdempotently } from './idempotency.ts'
import type { OpenGate } from './limit.ts'
import { type LimitOptions, type ResolvedLimit, resolveLimit } from './limitOptions.ts'
import { errorAnswer, successBody } from './responses.ts'
import { isIdempotent, type Reply, type Route } from './route.ts'
import { createRouter } from './router.ts'
import { validate } from './schema.ts'

export type { LeasedRequest } from './idempotencyOptions.ts'
export type { LimitBy, LimitedRequest, LimitOptions } from './limitOptions.ts'
export { type Reply, route, type RouteContext } from './route.ts'

export interface ApiOptions {
  /** The function's name: the first segment of every path it is called by. */
  name: string
  /** For the documentation. */
  title: string
  description?: string
  routes: readonly Route[]
  /** Where the log goes. @default JSON lines on standard output, at `LOG_LEVEL` */
  logger?: Logger
  /** For routes that declare `idempotency`. */
  idempotency?: IdempotencySettings
  /** Counts together the calls of all routes that say nothing of a limit. @default none */
  limit?: LimitOptions
}

/** What a function's `index.ts` exports. */
export interface Api {
  readonly name: string
  readonly title: string
  readonly description?: string
  readonly routes: readonly Route[]
  readonly limit?: LimitOptions
  /** Answers every request; never rejects. */
  fetch(request: Request): Promise<Response>
}

/** What all requests of an isolate share. */
interface Runtime {
  env: Env
  log: Logger
  verify: CredentialVerifier
  /** Both are loaded by the first request that needs them. */
  runIdempotently: () => Promise<RunIdempotently>
  openGate: () => Promise<OpenGate>
}

/** Reads nothing and starts nothing until the first request. `TypeError` or `RangeError` for a limit that makes no sense. */
export function defineApi(options: ApiOptions): Api {
  const limits = limitsOf(options)
  const findRoute = createRouter(`/${options.name}`, options.routes)
  let runtime: Runtime | undefined
  return {
    ...options,
    async fetch(request) {
      const exchange = new Exchange(request, options.name)
      try {
        runtime ??= startRuntime(options)
        exchange.begin(runtime)
        if (request.method === 'OPTIONS') return exchange.preflight()
        const { route, params } = findRoute(request)
        exchange.route = route
        const limit = limits.get(route)
        const gate = limit && (await runtime.openGate())(exchange, route, limit)
        await gate?.arrived()
        if (route.auth !== 'none') exchange.identify(await runtime.verify(request.headers, route.auth))
        await gate?.identified()
        if (route.params) exchange.params = await validate(route.params, 'params', params)
        if (route.query) exchange.query = await validate(route.query, 'query', queryOf(request))
        const body = route.body && await readJson(request, route.maxBodyBytes)
        const keyField = route.idempotency && takeKeyField(body)
        if (route.body) exchange.body = await validate(route.body, 'body', body)
        if (!isIdempotent(route)) return exchange.succeed(await route.handler(exchange))
        const run = await runtime.runIdempotently()
        return exchange.conclude(await run(exchange, route, { params, body, keyField }, gate))
      } catch (error) {
        return exchange.fail(error)
      }
    },
  }
}

function startRuntime({ name, logger, idempotency }: ApiOptions): Runtime {
  const current = env()
  const context = { function: name, isolate: current.isolateId }
  const log = logger?.with(context) ?? createLogger({ level: current.logLevel, context })
  let idempotent: Promise<RunIdempotently> | undefined
  let limited: Promise<OpenGate> | undefined
  return {
    env: current,
    log,
    verify: createCredentialVerifier({ keys: current }),
    runIdempotently: () =>
      idempotent ??= import('./idempotency.ts').then((module) =>
        module.createIdempotentRoutes(log, idempotency)
      ),
    openGate: () =>
      limited ??= import('./limit.ts').then((module) =>
        module.createLimits(log, { travels: idempotency?.store === undefined })
      ),
  }
}

/** What counts the calls of each route that has a limit. */
function limitsOf({ name, routes, limit }: ApiOptions): Map<Route, ResolvedLimit> {
  const common = limit && resolveLimit(limit, `Cannot define the function ${name}`, name)
  return new Map(routes.flatMap((route) => {
    const { method, path, limit = common } = route
    if (limit === undefined || limit === false) return []
    if (limit === common) return [[route, common]]
    const where = `Cannot declare the route ${method} ${path}`
    return [[route, resolveLimit(limit, where, `${method}:/${name}${path === '/' ? '' : path}`)]]
  }))
}

/** A parameter given once is a string; given twice it stays a list, which schemas of strings refuse. */
function queryOf(request: Request): Record<string, string | string[]> {
  const { searchParams } = new URL(request.url)
  const names = [...new Set(searchParams.keys())]
  return Object.fromEntries(names.map((name) => {
    const values = searchParams.getAll(name)
    return [name, values.length === 1 ? values[0]! : values]
  }))
}

/** One request and its answer; to the handler, its `RouteContext`. Reads headers only when they are asked for. */
class Exchange implements Actor, RequestInfo {
  readonly raw: Request
  readonly functionName: string
  readonly method: string
  readonly requestId: string
  readonly path: string
  runtime!: Runtime
  caller: Caller = anonymousCaller
  params: unknown
  query: unknown
  body: unknown
  route: Route | undefined
  log!: Logger
  ip: string | undefined
  limitHeaders: Record<string, string> | undefined
  readonly #startedAt = performance.now()
  #signal: AbortSignal | undefined
  #deadlineAt: number | undefined

  constructor(raw: Request, functionName: string) {
    this.raw = raw
    this.functionName = functionName
    this.method = raw.method
    this.requestId = requestIdOf(raw.headers)
    this.path = pathOf(raw.url)
  }

  get request(): RequestInfo {
    return this
  }

  get headers(): Headers {
    return this.raw.headers
  }

  get userAgent(): string | undefined {
    return this.raw.headers.get('user-agent') ?? undefined
  }

  /** Made when first asked for: most routes wait for nothing that can be aborted. */
  get signal(): AbortSignal {
    return this.#signal ??= AbortSignal.any([
      this.raw.signal,
      AbortSignal.timeout(this.route?.timeoutMs ?? 30_000),
    ])
  }

  get deadlineAt(): number {
    const takenMs = performance.now() - this.#startedAt
    return this.#deadlineAt ??= Math.round(Date.now() - takenMs + (this.route?.timeoutMs ?? 30_000))
  }

  begin(runtime: Runtime): void {
    this.runtime = runtime
    this.ip = clientIp(this.raw.headers, runtime.env.trustedProxyHops)
    this.log = runtime.log.with({ requestId: this.requestId, ip: this.ip })
  }

  identify(caller: Caller): void {
    this.caller = caller
    if (caller.userId !== undefined) this.log = this.log.with({ userId: caller.userId })
  }

  preflight(): Response {
    return this.#respond(null, 204, undefined, preflightHeaders)
  }

  succeed(reply: Reply): Response {
    const { data, status = this.route?.status ?? 200, headers, pagination } = reply
    this.#logAnswer('info', status)
    return this.#respond(
      successBody(data, this.requestId, pagination),
      status,
      'application/json; charset=utf-8',
      headers,
    )
  }

  fail(thrown: unknown): Response {
    const error = isHoldfastError(thrown) ? thrown : unexpected(thrown, this.raw.signal)
    this.#logAnswer(error.status >= 500 ? 'error' : 'info', error.status, {
      code: error.code,
      error: error.status >= 500 ? error : error.message,
    })
    const { status, headers, body } = errorAnswer(error, this.requestId, this.raw.headers.get('accept'))
    return this.#respond(body, status, undefined, Object.fromEntries(headers))
  }

  /** An answer as it was stored, byte for byte; what stands around it is this request's own. */
  conclude({ answer, replayed, local, resumed, refused }: IdempotentAnswer): Response {
    const { status, headers, body } = answer
    this.#logAnswer('info', status, {
      code: refused?.code,
      error: refused?.message,
      replayed: replayed || undefined,
      resumed: resumed || undefined,
      local,
    })
    const byName = Object.groupBy(headers, ([name]) => name.toLowerCase())
    return this.#respond(body, status, undefined, {
      ...Object.fromEntries(
        Object.entries(byName).map(([name, all]) => [name, all!.map(([, value]) => value)]),
      ),
      ...(replayed && { 'idempotency-replayed': 'true' }),
      ...(local && { 'idempotency-store': 'local' }),
    })
  }

  /** Headers are set one by one on a response made without: given to its constructor, they cost three times as much. */
  #respond(
    body: string | null,
    status: number,
    type: string | undefined,
    extra?: Record<string, string | readonly string[]>,
  ): Response {
    const response = new Response(this.method === 'HEAD' ? null : body, { status })
    const { headers } = response
    if (type !== undefined) headers.set('content-type', type)
    setSecurityHeaders(headers)
    setCorsHeaders(headers, this.raw.headers, this.runtime?.env.corsOrigins ?? [])
    headers.set('x-request-id', this.requestId)
    for (const name in this.limitHeaders) headers.set(name, this.limitHeaders[name]!)
    for (const name in extra) setHeader(headers, name, extra[name]!)
    return response
  }

  #logAnswer(level: 'info' | 'error', status: number, fields?: Record<string, unknown>): void {
    const log = this.log ??
      createLogger({ context: { function: this.functionName, requestId: this.requestId } })
    log[level](`${this.method} ${this.path} ${status}`, {
      method: this.method,
      route: this.route?.path,
      status,
      durationMs: Math.round((performance.now() - this.#startedAt) * 100) / 100,
      ...fields,
    })
  }
}

function setHeader(headers: Headers, name: string, value: string | readonly string[]): void {
  if (typeof value === 'string') return headers.set(name, value)
  headers.delete(name)
  for (const one of value) headers.append(name, one)
}

/** What nobody expected: a deadline that passed says so, everything else is a bug of ours. */
function unexpected(cause: unknown, client: AbortSignal): HoldfastError {
  if (client.aborted && cause instanceof DOMException && cause.name === 'AbortError') {
    // Nobody reads the answer; the log should not take it for a failure of ours.
    return new HoldfastError('CLIENT_CLOSED_REQUEST', 'The client left before it was answered', {
      status: 499,
      cause,
    })
  }
  return cause instanceof DOMException && cause.name === 'TimeoutError'
    ? new HoldfastError('UPSTREAM_TIMEOUT', 'The time of this request was up', { cause })
    : new HoldfastError(
      'INTERNAL_ERROR',
      cause instanceof Error ? cause.message : 'A value was thrown that is no error',
      {
        cause,
      },
    )
}

function pathOf(url: string): string {
  const start = url.indexOf('/', url.indexOf('//') + 2)
  const end = url.indexOf('?', start)
  return start < 0 ? '/' : url.slice(start, end < 0 ? undefined : end)
}

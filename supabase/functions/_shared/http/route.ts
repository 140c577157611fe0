/** What a route declares, and what its handler is given. */
import type { Actor, RequestInfo } from '../core/caller.ts'
import type { ErrorCode } from '../core/errors.ts'
import type { Logger } from '../observability/logger.ts'
import type { AuthMode, CallerOf } from '../security/credentials.ts'
import {
  type Idempotency,
  type IdempotentContext,
  type ReplyData,
  type ResolvedIdempotency,
  resolveIdempotency,
} from './idempotencyOptions.ts'
import { type LimitOptions, resolveLimit } from './limitOptions.ts'
import type { Pagination } from './responses.ts'
import type { Schema } from './schema.ts'

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

/** What a handler answers: the data, and whatever is not the default. */
export interface Reply<Data = unknown> {
  data: Data
  /** @default 200 */
  status?: 200 | 201 | 202
  /** A list is sent as that many headers, as `Set-Cookie` needs it. */
  headers?: Record<string, string | readonly string[]>
  /** Lists say which part of them this is. */
  pagination?: Pagination
}

/** One request, as its handler sees it: authenticated, validated, and an actor for `db().as(context)`. */
export interface RouteContext<
  Auth extends AuthMode = AuthMode,
  Params = unknown,
  Query = unknown,
  Body = unknown,
> extends Actor {
  caller: CallerOf<Auth>
  params: Params
  query: Query
  body: Body
  request: RequestInfo
  /** The raw request. Its body has been read where the route declares one. */
  raw: Request
  headers: Headers
  log: Logger
  /** Aborted when the client leaves or the route's time is up; pass it to whatever waits. */
  signal: AbortSignal
  /** When the route's time is up, in milliseconds since 1970 by this isolate's clock. */
  deadlineAt: number
}

export interface RouteOptions<
  Auth extends AuthMode,
  Params,
  Query,
  Body,
  Data,
  Declared extends Idempotency | undefined = undefined,
> {
  method: Method
  /** Below the function's own name: `/`, `/:id/cancel`. */
  path: string
  /** Who may call. */
  auth: Auth
  /** One line for the documentation. */
  summary: string
  description?: string
  /** Path parameters. @default none are read */
  params?: Schema<Params>
  /** Query parameters, each a string. @default any are ignored */
  query?: Schema<Query>
  /** JSON body. @default none is read */
  body?: Schema<Body>
  /** What success answers, for the documentation and for the handler's type. */
  response: Schema<Data>
  /** Status of success in the documentation. @default 200 */
  status?: 200 | 201 | 202
  /** The list's pagination in the documentation. */
  paginated?: boolean
  /** Codes this route answers besides those its declaration implies. */
  errors?: readonly ErrorCode[]
  /** @default 1_048_576 */
  maxBodyBytes?: number
  /** When `context.signal` aborts. @default 30_000 */
  timeoutMs?: number
  /** Requests with the same `Idempotency-Key` act once; docs/idempotency.md says how. @default keys are not read */
  idempotency?: Declared
  /**
   * How often the route may be called, by whom: `{}` is 60 a minute for each address; docs/rate-limits.md says more. false:
   * not counted. @default that of `defineApi`
   */
  limit?: LimitOptions | false
  handler(
    context: RouteContext<Auth, Params, Query, Body> & IdempotentContext<Declared, Data>,
  ): Promise<Reply<ReplyData<Declared, Data>>> | Reply<ReplyData<Declared, Data>>
}

/** A declared route, whatever its types. */
export interface Route {
  readonly method: Method
  readonly path: string
  readonly auth: AuthMode
  readonly summary: string
  readonly description?: string
  readonly params?: Schema
  readonly query?: Schema
  readonly body?: Schema
  readonly response: Schema
  readonly status: 200 | 201 | 202
  readonly paginated: boolean
  readonly errors: readonly ErrorCode[]
  readonly maxBodyBytes: number
  readonly timeoutMs: number
  readonly idempotency: ResolvedIdempotency | undefined
  readonly limit?: LimitOptions | false
  readonly handler: (context: RouteContext) => Promise<Reply> | Reply
}

export type IdempotentRoute = Route & { readonly idempotency: ResolvedIdempotency }

export function isIdempotent(route: Route): route is IdempotentRoute {
  return route.idempotency !== undefined
}

/**
 * Declares a route. `TypeError` for a path that does not begin with `/` and for options that contradict each other,
 * `RangeError` for limits out of range: at import, not at the first request.
 */
export function route<
  Auth extends AuthMode,
  Data,
  Params = undefined,
  Query = undefined,
  Body = undefined,
  const Declared extends Idempotency | undefined = undefined,
>(options: RouteOptions<Auth, Params, Query, Body, Data, Declared>): Route {
  const { maxBodyBytes = 1_048_576, timeoutMs = 30_000 } = options
  if (!options.path.startsWith('/')) {
    throw new TypeError(
      `Cannot declare the route ${options.method} "${options.path}": its path must begin with /`,
    )
  }
  for (const [name, value] of Object.entries({ maxBodyBytes, timeoutMs })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(
        `Cannot declare the route ${options.method} ${options.path}: ${name} must be a positive whole number, received ${value}`,
      )
    }
  }
  const { limit } = options
  // The name will be the route's own, if it has none.
  if (limit) resolveLimit(limit, `Cannot declare the route ${options.method} ${options.path}`, 'unnamed')
  return {
    ...options,
    status: options.status ?? 200,
    paginated: options.paginated ?? false,
    errors: options.errors ?? [],
    maxBodyBytes,
    timeoutMs,
    idempotency: resolveIdempotency(options.idempotency, options),
    // The caller and the inputs are made to these types by `api.ts`, from this very declaration.
    handler: options.handler as Route['handler'],
  }
}

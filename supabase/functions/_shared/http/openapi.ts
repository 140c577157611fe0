/** One OpenAPI 3.1 document from the declarations of every function. Used at build time only. */
import { z } from 'zod'
import { type ErrorCode, errorCodes } from '../core/errors.ts'
import { maxKeyLength } from '../resilience/idempotencyKey.ts'
import type { Api } from './api.ts'
import type { LimitOptions } from './limitOptions.ts'
import type { Route } from './route.ts'
import type { Schema } from './schema.ts'

type Json = Record<string, unknown>

/** `TypeError` for a schema that has no JSON Schema, naming the route. */
export function openApiDocument(apis: readonly Api[], info: { title: string; version: string }): Json {
  const paths: Record<string, Json> = {}
  for (const api of apis) {
    for (const route of api.routes) {
      const path = `/${api.name}${route.path === '/' ? '' : route.path}`.replaceAll(/:(\w+)/g, '{$1}')
      paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(api, route) }
    }
  }
  return {
    openapi: '3.1.0',
    info,
    servers: [
      { url: 'http://127.0.0.1:54321/functions/v1', description: 'npm start' },
      {
        url: 'https://{project}.supabase.co/functions/v1',
        description: 'Supabase',
        variables: { project: { default: 'project-ref' } },
      },
    ],
    tags: apis.map(({ name, title, description }) => ({ name, 'x-displayName': title, description })),
    paths,
    components: {
      securitySchemes: {
        accessToken: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'A signed-in user' },
        apikey: {
          type: 'apiKey',
          in: 'header',
          name: 'apikey',
          description: 'A publishable or a secret key',
        },
      },
      schemas: { Error: errorSchema, Problem: problemSchema, Meta: metaSchema },
    },
  }
}

function operation(api: Api, route: Route): Json {
  const where = `${route.method} /${api.name}${route.path}`
  const limit = (route.limit ?? api.limit) || undefined
  const failures = new Map<number, ErrorCode[]>()
  for (const code of impliedErrors(route, limit)) {
    const status = errorCodes[code]
    failures.set(status, [...(failures.get(status) ?? []), code])
  }
  return {
    operationId: `${api.name}${operationName(route)}`,
    tags: [api.name],
    summary: route.summary,
    description: route.description,
    security: security[route.auth],
    parameters: [
      ...parameters(route.params, 'path', where),
      ...parameters(route.query, 'query', where),
      ...keyParameter(route),
    ],
    requestBody: route.body && {
      required: true,
      content: { 'application/json': { schema: jsonSchema(route.body, 'input', where) } },
    },
    responses: {
      [route.status]: {
        description: 'Success',
        headers: {
          'X-Request-Id': {
            schema: { type: 'string' },
            description: 'Quote it when you ask about this call',
          },
          ...(route.idempotency && { 'Idempotency-Replayed': replayedHeader }),
          ...(limit && limitHeaders),
        },
        content: { 'application/json': { schema: successSchema(route, where) } },
      },
      ...Object.fromEntries(
        [...failures].sort(([a], [b]) => a - b).map(([status, codes]) => [
          status,
          failure(codes, limit && status === errorCodes.RATE_LIMITED ? refusedHeaders : undefined),
        ]),
      ),
    },
  }
}

const security: Record<Route['auth'], Json[]> = {
  user: [{ accessToken: [] }],
  publishable: [{ apikey: [] }],
  secret: [{ apikey: [] }],
  none: [],
}

/** What the declaration itself makes possible, and what the route adds. */
function impliedErrors(route: Route, limit: LimitOptions | undefined): Set<ErrorCode> {
  const codes = new Set<ErrorCode>(['INTERNAL_ERROR', ...route.errors])
  if (route.auth !== 'none') codes.add('UNAUTHENTICATED')
  if (route.auth === 'secret') codes.add('FORBIDDEN')
  if (route.params || route.query || route.body) codes.add('VALIDATION_ERROR')
  if (route.body) codes.add('PAYLOAD_TOO_LARGE').add('UNSUPPORTED_MEDIA_TYPE')
  if (route.idempotency) {
    if (route.idempotency.required) codes.add('IDEMPOTENCY_KEY_REQUIRED')
    codes.add('IDEMPOTENCY_KEY_INVALID').add('IDEMPOTENCY_KEY_IN_USE').add('IDEMPOTENCY_KEY_REUSED')
    codes.add('SERVICE_UNAVAILABLE')
  }
  if (limit) codes.add('RATE_LIMITED')
  if (limit?.onUnavailable === 'closed') codes.add('SERVICE_UNAVAILABLE')
  return codes
}

function failure(codes: ErrorCode[], headers?: Json): Json {
  return {
    description: codes.map((code) => `\`${code}\``).join(', '),
    headers,
    content: {
      'application/json': { schema: { $ref: '#/components/schemas/Error' } },
      'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
    },
  }
}

function parameters(schema: Schema | undefined, place: 'path' | 'query', where: string): Json[] {
  if (schema === undefined) return []
  const { properties = {}, required = [] } = jsonSchema(schema, 'input', where) as {
    properties?: Record<string, Json>
    required?: string[]
  }
  return Object.entries(properties).map(([name, property]) => ({
    name,
    in: place,
    required: place === 'path' || required.includes(name),
    schema: property,
  }))
}

/** IK6: the time to live is published, too. */
function keyParameter({ idempotency }: Route): Json[] {
  if (idempotency === undefined) return []
  return [{
    name: 'Idempotency-Key',
    in: 'header',
    required: idempotency.required,
    description: 'A new value for each intended action, the same one when the request is repeated. ' +
      `The answer is kept and replayed for ${idempotency.ttlMs / 1_000} seconds.`,
    schema: { type: 'string', minLength: 1, maxLength: maxKeyLength },
  }]
}

function successSchema(route: Route, where: string): Json {
  return {
    type: 'object',
    properties: {
      success: { const: true },
      data: jsonSchema(route.response, 'output', where),
      ...(route.paginated && { pagination: { oneOf: [pagePaginationSchema, cursorPaginationSchema] } }),
      meta: { $ref: '#/components/schemas/Meta' },
    },
    required: ['success', 'data', ...(route.paginated ? ['pagination'] : []), 'meta'],
  }
}

/** Zod tells its JSON Schema itself; another library's must be given by the one who brings it. */
function jsonSchema(schema: Schema, io: 'input' | 'output', where: string): Json {
  if (!(schema instanceof z.ZodType)) {
    throw new TypeError(
      `Cannot document ${where}: its ${schema['~standard'].vendor} schema has no JSON Schema`,
    )
  }
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' })
  return rest
}

/** `GET /:id` is `GetById`, `POST /:id/cancel` is `PostByIdCancel`. */
function operationName(route: Route): string {
  const words = route.path.split('/').filter(Boolean).map((part) =>
    part.startsWith(':') ? `by-${part.slice(1)}` : part
  )
  return [route.method.toLowerCase(), ...words].join('-')
    .replaceAll(/(?:^|[-_])(\w)/g, (_, letter: string) => letter.toUpperCase())
}

const replayedHeader = {
  schema: { const: 'true' },
  description: 'The answer to an earlier request with the same key',
}

const limitHeaders = {
  'RateLimit-Policy': {
    schema: { type: 'string' },
    description: 'The limits: calls (`q`) in so many seconds (`w`)',
  },
  'RateLimit': {
    schema: { type: 'string' },
    description: 'How they stand: calls that are left (`r`), and seconds until they are whole again (`t`)',
  },
}

const refusedHeaders = {
  ...limitHeaders,
  'Retry-After': { schema: { type: 'integer' }, description: 'Seconds until such a call is admitted again' },
}

const metaSchema = object({
  requestId: { type: 'string' },
  timestamp: { type: 'string', format: 'date-time' },
})

const errorSchema = object({
  success: { const: false },
  error: object({ code: { type: 'string' }, message: { type: 'string' }, details: {} }),
  meta: { $ref: '#/components/schemas/Meta' },
})

const problemSchema = object({
  type: { type: 'string', format: 'uri-reference' },
  title: { type: 'string' },
  status: { type: 'integer' },
  detail: { type: 'string' },
  instance: { type: 'string', format: 'uri-reference' },
  code: { type: 'string' },
  requestId: { type: 'string' },
  timestamp: { type: 'string', format: 'date-time' },
})

const pagePaginationSchema = object({
  page: { type: 'integer' },
  perPage: { type: 'integer' },
  total: { type: 'integer' },
  totalPages: { type: 'integer' },
})

const cursorPaginationSchema = object({
  limit: { type: 'integer' },
  nextCursor: { type: ['string', 'null'] },
  hasMore: { type: 'boolean' },
})

function object(properties: Record<string, Json>): Json {
  return { type: 'object', properties, required: Object.keys(properties) }
}

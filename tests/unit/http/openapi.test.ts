import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineApi, route } from '../../../supabase/functions/_shared/http/api.ts'
import { listQuery } from '../../../supabase/functions/_shared/http/pagination.ts'
import { openApiDocument } from '../../../supabase/functions/_shared/http/openapi.ts'
import type { Schema } from '../../../supabase/functions/_shared/http/schema.ts'

const info = { title: 'Shop', version: '1.0.0' }
const thing = z.object({ id: z.uuid(), count: z.int() })

function documentOf(...routes: ReturnType<typeof route>[]) {
  return openApiDocument([defineApi({ name: 'shop', title: 'Shop', routes })], info)
}

test('openApiDocument() has every route with its input, answers and kind of credential', () => {
  const document = documentOf(
    route({
      method: 'POST',
      path: '/things/:id',
      auth: 'user',
      summary: 'Change a thing',
      params: z.object({ id: z.uuid() }),
      body: z.strictObject({ count: z.int().min(1) }),
      response: thing,
      status: 201,
      errors: ['CONFLICT'],
      handler: () => ({ data: { id: crypto.randomUUID(), count: 1 } }),
    }),
  )
  expect(document).toMatchObject({
    openapi: '3.1.0',
    info,
    paths: {
      '/shop/things/{id}': {
        post: {
          operationId: 'shopPostThingsById',
          security: [{ accessToken: [] }],
          parameters: [{
            name: 'id',
            in: 'path',
            required: true,
            schema: { type: 'string', format: 'uuid' },
          }],
          requestBody: {
            content: {
              'application/json': { schema: { properties: { count: { minimum: 1 } }, required: ['count'] } },
            },
          },
          responses: {
            201: {
              content: { 'application/json': { schema: { properties: { data: { type: 'object' } } } } },
            },
            400: expect.anything(),
            401: expect.anything(),
            409: { description: '`CONFLICT`' },
            413: expect.anything(),
            415: expect.anything(),
            500: expect.anything(),
          },
        },
      },
    },
  })
})

test('openApiDocument() says how a list is asked for and paginated', () => {
  const document = documentOf(
    route({
      method: 'GET',
      path: '/',
      auth: 'none',
      summary: 'Things',
      query: listQuery,
      response: z.object({ things: z.array(thing) }),
      paginated: true,
      handler: () => ({ data: { things: [] } }),
    }),
  )
  expect(document).toMatchObject({
    paths: {
      '/shop': {
        get: {
          security: [],
          parameters: ['page', 'perPage', 'limit', 'cursor'].map((name) => ({
            name,
            in: 'query',
            required: false,
          })),
          responses: {
            200: {
              content: {
                'application/json': { schema: { required: ['success', 'data', 'pagination', 'meta'] } },
              },
            },
          },
        },
      },
    },
  })
})

test('IK6: openApiDocument() publishes the key, how long its answer is kept, and what can be wrong with it', () => {
  const valid = { path: '/', auth: 'none', summary: 'x', response: thing } as const
  const handler = () => ({ data: { id: '', count: 1 } })
  const paths = documentOf(
    route({ ...valid, method: 'POST', idempotency: 'atomic', handler }),
    route({
      ...valid,
      method: 'PUT',
      idempotency: { mode: 'leased', required: false, ttlMs: 60_000 },
      handler,
    }),
    route({ ...valid, method: 'DELETE', handler }),
  ).paths as Record<string, Record<string, { responses: Record<string, unknown>; parameters: unknown[] }>>
  const { post, put, delete: remove } = paths['/shop']!
  expect(post).toMatchObject({
    parameters: [{
      name: 'Idempotency-Key',
      in: 'header',
      required: true,
      description: expect.stringContaining('for 86400 seconds'),
      schema: { type: 'string', minLength: 1, maxLength: 255 },
    }],
    responses: {
      200: { headers: { 'Idempotency-Replayed': {} } },
      400: { description: '`IDEMPOTENCY_KEY_REQUIRED`, `IDEMPOTENCY_KEY_INVALID`' },
      409: { description: '`IDEMPOTENCY_KEY_IN_USE`' },
      422: { description: '`IDEMPOTENCY_KEY_REUSED`' },
      503: { description: '`SERVICE_UNAVAILABLE`' },
    },
  })
  expect(put).toMatchObject({
    parameters: [{ required: false, description: expect.stringContaining('for 60 seconds') }],
    responses: { 400: { description: '`IDEMPOTENCY_KEY_INVALID`' } },
  })
  expect([remove!.parameters, Object.keys(remove!.responses)]).toEqual([[], ['200', '500']])
})

describe('a schema of another library', () => {
  const foreign: Schema<string> = {
    '~standard': { version: 1, vendor: 'other', validate: (value) => ({ value: String(value) }) },
  }
  const declared = route({
    method: 'GET',
    path: '/',
    auth: 'none',
    summary: 'x',
    response: foreign,
    handler: () => ({ data: 'x' }),
  })

  test('validates', () => {
    expect(declared.response['~standard'].validate(1)).toEqual({ value: '1' })
  })

  test('is named where the document needs its JSON Schema', () => {
    expect(() => documentOf(declared)).toThrow(/GET \/shop\/.*other/)
  })
})

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

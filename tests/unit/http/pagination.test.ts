import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import {
  cursorPage,
  decodeCursor,
  encodeCursor,
  listQuery,
  pagePagination,
} from '../../../supabase/functions/_shared/http/pagination.ts'

describe('listQuery', () => {
  test.each([
    [{}, { kind: 'cursor', limit: 20 }],
    [{ limit: '5' }, { kind: 'cursor', limit: 5 }],
    [{ cursor: 'abc' }, { kind: 'cursor', limit: 20, cursor: 'abc' }],
    [{ page: '3' }, { kind: 'page', page: 3, perPage: 20, offset: 40 }],
    [{ perPage: '100', page: '1' }, { kind: 'page', page: 1, perPage: 100, offset: 0 }],
  ])('%j means %j', (query, window) => {
    expect(listQuery.parse(query)).toEqual(window)
  })

  test.each([
    { limit: '0' },
    { limit: '101' },
    { limit: '-1' },
    { limit: '1.5' },
    { limit: '1e1' },
    { limit: 'NaN' },
    { limit: ' 1' },
    { page: '0' },
    { page: '99999999999999999999' },
    { perPage: '101' },
    { page: '1', limit: '1' },
    { perPage: '1', cursor: 'abc' },
    { cursor: '' },
    { limit: ['1', '2'] },
    { unknown: '1' },
  ])('refuses %j', (query) => {
    expect(listQuery.safeParse(query).success).toBe(false)
  })
})

test.each([[0, 0], [1, 1], [20, 1], [21, 2]])('%i rows in pages of 20 are %i pages', (total, totalPages) => {
  expect(pagePagination({ page: 1, perPage: 20 }, total)).toEqual({ page: 1, perPage: 20, total, totalPages })
})

test('cursorPage() shows at most the limit, and points behind the last row it shows', () => {
  const position = (row: string) => [row]
  expect(cursorPage(['a', 'b', 'c'], 2, position)).toEqual({
    rows: ['a', 'b'],
    pagination: { limit: 2, nextCursor: encodeCursor(['b']), hasMore: true },
  })
  expect(cursorPage(['a', 'b'], 2, position).pagination).toEqual({
    limit: 2,
    nextCursor: null,
    hasMore: false,
  })
  expect(cursorPage([], 2, position).pagination).toEqual({ limit: 2, nextCursor: null, hasMore: false })
})

describe('a cursor', () => {
  test('decodes to the position it was made of, and is safe in a URL', () => {
    fc.assert(fc.property(fc.array(fc.string({ unit: 'binary' })), (position) => {
      const cursor = encodeCursor(position)
      expect(cursor).toMatch(/^[\w-]+$/)
      expect(decodeCursor(cursor, z.array(z.string()))).toEqual(position)
    }))
  })

  test('that was tampered with or invented is a VALIDATION_ERROR, whatever it holds', () => {
    fc.assert(fc.property(fc.string(), (cursor) => {
      expect(() => decodeCursor(cursor, z.tuple([z.uuid(), z.literal('never')]))).toThrow(
        expect.objectContaining({ code: 'VALIDATION_ERROR' }),
      )
    }))
  })
})

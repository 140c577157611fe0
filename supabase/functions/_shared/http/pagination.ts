/** Lists in pages (`?page=&perPage=`) or from a cursor on (`?limit=&cursor=`), newest first. */
import { z } from 'zod'
import type { CursorPagination, PagePagination } from './responses.ts'
import { validationError } from './schema.ts'

export const defaultLimit = 20
export const maxLimit = 100

const wholeNumber = (max: number) =>
  z.string().regex(/^\d{1,9}$/, 'must be a whole number').transform(Number).pipe(
    z.number().int().min(1).max(max),
  )

/** Which part of a list is wanted. */
export type ListWindow =
  | { kind: 'page'; page: number; perPage: number; offset: number }
  | { kind: 'cursor'; limit: number; cursor?: string }

/** Query parameters of a list. `page` chooses pages; without it the list goes by cursor. The two do not mix. */
export const listQuery = z.strictObject({
  page: wholeNumber(1_000_000).optional(),
  perPage: wholeNumber(maxLimit).optional(),
  limit: wholeNumber(maxLimit).optional(),
  cursor: z.string().min(1).max(512).optional(),
}).superRefine((query, context) => {
  const paged = query.page !== undefined || query.perPage !== undefined
  if (paged && (query.limit !== undefined || query.cursor !== undefined)) {
    context.addIssue({ code: 'custom', message: 'page and perPage do not go with limit and cursor' })
  }
}).transform(({ page, perPage, limit, cursor }): ListWindow => {
  if (page === undefined && perPage === undefined) {
    return { kind: 'cursor', limit: limit ?? defaultLimit, cursor }
  }
  const [pageNumber, size] = [page ?? 1, perPage ?? defaultLimit]
  return { kind: 'page', page: pageNumber, perPage: size, offset: (pageNumber - 1) * size }
})

export function pagePagination(window: { page: number; perPage: number }, total: number): PagePagination {
  const { page, perPage } = window
  return { page, perPage, total, totalPages: Math.ceil(total / perPage) }
}

/**
 * The page of a list read with `limit + 1` rows: the extra row only tells that there is more.
 * `position` names a row's place in the list, in strings that the database compares exactly.
 */
export function cursorPage<Row>(
  rows: Row[],
  limit: number,
  position: (row: Row) => string[],
): { rows: Row[]; pagination: CursorPagination } {
  const hasMore = rows.length > limit
  const shown = hasMore ? rows.slice(0, limit) : rows
  const last = shown.at(-1)
  return {
    rows: shown,
    pagination: {
      limit,
      nextCursor: hasMore && last !== undefined ? encodeCursor(position(last)) : null,
      hasMore,
    },
  }
}

/** Opaque to clients: a place in a list, safe in a URL. */
export function encodeCursor(position: readonly string[]): string {
  const bytes = new TextEncoder().encode(JSON.stringify(position))
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')
}

/** The place a cursor names, checked by `shape`; throws `VALIDATION_ERROR` for one we cannot have made. */
export function decodeCursor<Position>(cursor: string, shape: z.ZodType<Position>): Position {
  try {
    const binary = atob(cursor.replaceAll('-', '+').replaceAll('_', '/'))
    const text = new TextDecoder('utf-8', { fatal: true }).decode(
      Uint8Array.from(binary, (c) => c.charCodeAt(0)),
    )
    return shape.parse(JSON.parse(text))
  } catch {
    throw validationError([{ in: 'query', path: 'cursor', message: 'not a cursor this list has given' }])
  }
}

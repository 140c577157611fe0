/**
 * Reading the audit trail as an admin. The SQL runs as the caller: `audit.find_changes` asks by their claims, once
 * more, whether they may, and records what they asked for.
 */
import { z } from 'zod'
import { db, sql } from '../_shared/db/client.ts'
import type { UserCaller } from '../_shared/core/caller.ts'
import { HoldfastError } from '../_shared/core/errors.ts'
import type { RouteContext } from '../_shared/http/api.ts'
import { cursorPage, decodeCursor } from '../_shared/http/pagination.ts'
import type { Pagination } from '../_shared/http/responses.ts'
import { validationError } from '../_shared/http/schema.ts'
import { parseExactly } from './exactJson.ts'
import type { AuditQuery, Change } from './schemas.ts'

type Admin = Pick<RouteContext<'user'>, 'caller' | 'request'>

const defaultLimit = 50
const maxDetailsBytes = 65_536

/** Whoever was made an admin meanwhile needs a new token, and whoever no longer is one is one until theirs ends. */
export function requireAdmin({ claims }: UserCaller): void {
  if (claims.app_metadata?.role === 'admin') return
  throw new HoldfastError(
    'FORBIDDEN',
    'This needs an admin: app_metadata.role is not "admin" in the access token',
  )
}

/** The newest changes that match, or those behind the cursor. `VALIDATION_ERROR` for a cursor of other filters. */
export async function findChanges(
  admin: Admin,
  { limit = defaultLimit, cursor, ...filters }: AuditQuery,
): Promise<{ changes: Change[]; pagination: Pagination }> {
  const question = await digest(filters)
  const before = cursor === undefined ? null : positionOf(cursor, question)
  const found = await db().as(admin).query<{ id: string; change: string }>(sql`
    select c.id, jsonb_build_object(
      'id', c.id::text,
      'occurredAt', c.occurred_at,
      'operation', c.operation,
      'table', c.object_identity,
      'key', c.primary_key,
      'actor', jsonb_build_object(
        'name', c.actor, 'id', c.actor_id, 'email', c.actor_email, 'role', c.actor_role
      ),
      'request', jsonb_build_object(
        'id', c.request_id, 'ip', c.ip, 'userAgent', c.user_agent, 'function', c.function_name
      ),
      'transactionId', c.transaction_id::text,
      'changed', c.changed,
      'details', case when octet_length(c.details::text) <= ${maxDetailsBytes}::integer then c.details end
    )::text as change
    from audit.find_changes(${filters}::jsonb, ${limit + 1}::integer, ${before}::bigint) as c
    order by c.id desc`)
  const { rows, pagination } = cursorPage(found, limit, ({ id }) => [id, question])
  return { changes: rows.map((row) => parseExactly(row.change) as Change), pagination }
}

const maxId = 2n ** 63n - 1n
const position = z.tuple([
  z.string().regex(/^[1-9]\d{0,18}$/).refine((id) => BigInt(id) <= maxId),
  z.string(),
])

function positionOf(cursor: string, question: string): string {
  const [id, asked] = decodeCursor(cursor, position)
  if (asked === question) return id
  throw validationError([{ in: 'query', path: 'cursor', message: 'belongs to other filters' }])
}

/** Short, and the same for the same filters in whatever order. Guards against mistakes: a position is no secret. */
async function digest(filters: Partial<Record<string, string>>): Promise<string> {
  const sorted = Object.entries(filters).filter(([, value]) => value !== undefined).sort()
  const bytes = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(JSON.stringify(sorted)))
  return [...new Uint8Array(bytes, 0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

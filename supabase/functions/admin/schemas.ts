/** What can be asked of the trail, and what a change looks like from outside. */
import { z } from 'zod'

export const maxChanges = 200

export const operations = ['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'DDL', 'EVENT'] as const

const filter = (meaning: string, max = 200) =>
  z.string().min(1).max(max).refine((text) => !text.includes('\0'), 'no text of the trail holds a NUL')
    .optional()
    .describe(meaning)

const time = (meaning: string) => z.iso.datetime({ offset: true }).optional().describe(meaning)

/** Every filter narrows; none gives the whole trail, newest first. */
export const auditQuery = z.strictObject({
  table: filter('As `public.orders`, quoted where SQL would need it; of an event its type of resource'),
  key: filter('Primary key; a JSON array of texts where it has several columns', 1_000),
  operation: z.enum(operations).optional(),
  actor: filter('Id or e-mail of a user; or the role, for what nobody signed in has changed', 320),
  requestId: filter('All that one request changed'),
  action: filter('Of an event, as `audit.record` was told'),
  from: time('Inclusive'),
  to: time('Exclusive'),
  limit: z.string().regex(/^\d{1,9}$/, 'must be a whole number').transform(Number)
    .pipe(z.number().int().min(1).max(maxChanges)).optional(),
  cursor: z.string().min(1).max(512).optional(),
})

export type AuditQuery = z.infer<typeof auditQuery>

const json = z.record(z.string(), z.unknown())

export const change = z.object({
  /** Larger than what JSON numbers hold safely, one day. */
  id: z.string(),
  occurredAt: z.iso.datetime({ offset: true }),
  operation: z.enum(operations),
  table: z.string(),
  key: z.string().nullable(),
  actor: z.object({
    /** What to show: e-mail, else id, else the role. */
    name: z.string().nullable(),
    id: z.uuid().nullable(),
    email: z.string().nullable(),
    role: z.string().nullable(),
  }),
  request: z.object({
    id: z.string().nullable(),
    ip: z.string().nullable(),
    userAgent: z.string().nullable(),
    function: z.string().nullable(),
  }),
  /** Equal for all that was committed together. */
  transactionId: z.string(),
  /** Columns that an UPDATE changed; null for other operations. */
  changed: z.array(z.string()).nullable(),
  /** Null where they are longer than 64 KiB: `select details from audit.changes where id = …` has them. */
  details: json.nullable(),
})

export type Change = z.infer<typeof change>

export const changeList = z.object({ changes: z.array(change) })

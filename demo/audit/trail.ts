/** What the trail says of an order, read as its owner reads it, and shown: each deed, and the changes it made. */
import type { Sql } from '../../local/postgres/connect.ts'
import type { Cell, Row, Screen } from '../support/screen.ts'

type Values = Record<string, unknown>

export interface Change {
  id: number
  at: Date
  email: string | null
  role: string
  ip: string | null
  functionName: string | null
  requestId: string | null
  transactionId: string
  operation: string
  table: string
  changed: string[] | null
  old: Values | null
  new: Values | null
}

const columnsOf = (sql: Sql) =>
  sql`
    c.id::int, c.occurred_at as at, c.actor_email as email, c.actor_role as role, c.ip,
    c.function_name as "functionName", c.request_id as "requestId", c.transaction_id as "transactionId",
    c.operation, c.object_identity as table, c.changed, c.old, c.new`

/** Of the row in `public.orders`, oldest first. */
export async function rowHistory(sql: Sql, orderId: string): Promise<Change[]> {
  return await sql<Change[]>`
    select ${columnsOf(sql)} from audit.row_history('public.orders', ${orderId}::uuid) as c order by c.id`
}

/** What these transactions and requests changed in the shop, the order itself and all else, oldest first. */
export async function changesWith(sql: Sql, history: readonly Change[]): Promise<Change[]> {
  const requests = history.flatMap(({ requestId }) => requestId ?? [])
  return await sql<Change[]>`
    select ${columnsOf(sql)}
    from audit.changes as c
    where c.id >= ${history[0]?.id ?? 0}
    and c.object_identity like 'public.%'
    and (
      c.transaction_id = any (${history.map(({ transactionId }) => transactionId)}::bigint[])
      or c.request_id = any (${requests}::text[])
    )
    order by c.id`
}

/** How many changes, of whatever table, say that they came with this request. */
export async function countOfRequest(sql: Sql, requestId: string): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    select count(*)::int as count from audit.changes where request_id = ${requestId}`
  return row!.count
}

/** One row for each deed, its changes below it. */
export function showTrail(screen: Screen, changes: readonly Change[]): void {
  screen.columns(
    { 'time UTC': 10, who: 17, role: 13, from: 9, through: 15, request: 8 },
    { did: 6, to: 11, 'what changed': 60 },
  )
  const deeds = Map.groupBy(changes, ({ requestId, transactionId }) => requestId ?? transactionId)
  for (const deed of deeds.values()) screen.row(headOf(deed[0]!), deed.map(lineOf))
}

function headOf(change: Change): Row {
  const { at, email, role, ip, functionName, requestId } = change
  const none = (text: string, style: Cell['style'] = 'dim'): Cell => ({ text, style, value: null })
  return {
    'time UTC': [{ text: at.toISOString().slice(11, 21), style: 'dim', value: at }],
    who: [email === null ? none('nobody signed in', 'yellow') : { text: email, style: 'bold', value: email }],
    role: [{ text: role }],
    from: [ip === null ? none('-') : { text: ip }],
    through: [
      functionName === null ? none('SQL') : { text: `function ${functionName}`, value: functionName },
    ],
    request: [requestId === null ? none('-') : { text: requestId.slice(0, 8), value: requestId }],
  }
}

const styles: Record<string, Cell['style']> = { INSERT: 'green', UPDATE: 'yellow', DELETE: 'red' }

function lineOf(change: Change): Row {
  const { id, operation, table, old, new: fresh } = change
  return {
    did: [{ text: operation, style: styles[operation] }],
    to: [{ text: table.replace('public.', ''), value: table }],
    'what changed': [{ text: '', value: { id, old, new: fresh } }, ...whatChanged(change)],
  }
}

/** Without ids and times: those are in the table above, or speak to nobody. */
export function whatChanged({ changed, old, new: fresh }: Change): Cell[] {
  const names = (changed ?? Object.keys(fresh ?? {})).filter((name) => !/(^|_)id$|_at$/.test(name))
  return names.filter((name) => fresh?.[name] !== null).flatMap((name, index): Cell[] => [
    { text: `${index > 0 ? ', ' : ''}${name} `, style: 'dim' },
    ...(changed === null ? [] : [{ text: `${old?.[name]}` }, { text: ' -> ', style: 'dim' } as const]),
    { text: `${fresh?.[name]}` },
  ])
}

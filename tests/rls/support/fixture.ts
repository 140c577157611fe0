/**
 * The rows on which the matrix is proved, as plain data: the owner's and the other's, a soft-deleted one, and one of
 * each table that only the secret key reads. A table that any role may reach needs rows here; without rows "reaches
 * no row" would mean nothing.
 */
import type { RoleName } from '../matrix.ts'

export type Value = string | number | boolean | null
export type Values = Record<string, Value>

export interface FixtureRow {
  /** Whose it is; absent where rows have no owner. */
  of?: 'owner' | 'other'
  deleted?: true
  values: Values
}

export interface TableFixture {
  /** Columns that name a row. */
  key: string[]
  rows: FixtureRow[]
  /** Over the first row's values, makes a row that can be inserted. */
  fresh: Values
  /** The column that says whose a row is. */
  ownerColumn?: string
  /** Over a fresh row's values, makes one that refers to nothing that exists. */
  orphan?: Values
  /** What an update sets; a constant, so that nothing needs to be read. */
  change: Values
  /** What REST is asked to embed, as `select`. */
  embeds?: string[]
}

/** Three of the users that supabase/seed.sql creates. */
export const people: Record<'owner' | 'other' | 'admin', string> = {
  owner: '00000000-0000-4000-8000-00000000000a',
  other: '00000000-0000-4000-8000-00000000000b',
  admin: '00000000-0000-4000-8000-00000000000c',
}

const sold = '00000000-0000-4000-8000-0000000000a1'
const gone = '00000000-0000-4000-8000-0000000000a2'
const fresh = '00000000-0000-4000-8000-0000000000ff'
const missing = '00000000-0000-4000-8000-00000000dead'

/** The order that functions and routes are tried on. */
export const ownersOrder = '00000000-0000-4000-8000-0000000000b1'
export const ownersPayment = '00000000-0000-4000-8000-0000000000c1'

/** An order that nobody has paid, for a payment to be inserted. */
const unpaid = uuid('b5')

interface Order extends Pick<FixtureRow, 'of' | 'deleted'> {
  id: string
  user: string | null
  payment?: string
}

const orders: (Order & { payment: string })[] = [
  { id: ownersOrder, user: people.owner, payment: ownersPayment, of: 'owner' },
  { id: uuid('b2'), user: people.owner, payment: uuid('c2'), of: 'owner', deleted: true },
  { id: uuid('b3'), user: people.other, payment: uuid('c3'), of: 'other' },
  // The customer has deleted their account.
  { id: uuid('b4'), user: null, payment: uuid('c4') },
]

export const fixture: Record<string, TableFixture> = {
  'public.products': {
    key: ['id'],
    rows: [
      { values: { id: sold, sku: 'ROPE-10', name: 'Rope', price_minor: 2450, currency: 'EUR', stock: 1000 } },
      {
        deleted: true,
        values: {
          ...{ id: gone, sku: 'OLD-1', name: 'Old lamp', price_minor: 1, currency: 'EUR', stock: 0 },
          deleted_at: '2026-01-01T00:00:00Z',
        },
      },
    ],
    fresh: { id: fresh, sku: 'FRESH-1' },
    change: { stock: 7 },
    embeds: [
      'id,order_items(order_id,product_id,orders(id,user_id,payments(id)))',
      'id,order_items!inner(*)',
    ],
  },
  'public.orders': {
    key: ['id'],
    rows: [...orders, { id: unpaid, user: null }].map(({ id, user, of, deleted }: Order) => ({
      of,
      deleted,
      values: {
        ...{ id, user_id: user, status: 'paid', total_minor: 2450, currency: 'EUR' },
        deleted_at: deleted ? '2026-01-01T00:00:00Z' : null,
      },
    })),
    fresh: { id: fresh },
    ownerColumn: 'user_id',
    orphan: { user_id: missing },
    change: { total_minor: 1 },
    embeds: ['id,order_items(*),payments(*)', 'id,order_items(order_id,product_id,products(id,sku))'],
  },
  'public.order_items': {
    key: ['order_id', 'product_id'],
    rows: orders.map(({ id, of, deleted }) => ({
      of,
      deleted,
      values: {
        ...{ order_id: id, product_id: sold, sku: 'ROPE-10', name: 'Rope' },
        ...{ quantity: 1, unit_price_minor: 2450 },
      },
    })),
    fresh: { product_id: gone },
    orphan: { order_id: missing },
    change: { quantity: 9 },
    embeds: [
      'order_id,product_id,orders(id,payments(id)),products(id)',
      'order_id,product_id,orders!inner(*)',
    ],
  },
  'public.payments': {
    key: ['id'],
    rows: orders.map(({ id, payment, of, deleted }) => ({
      of,
      deleted,
      values: {
        ...{ id: payment, order_id: id, provider_charge_id: `ch_${payment}`, status: 'succeeded' },
        ...{ amount_minor: 2450, currency: 'EUR' },
      },
    })),
    fresh: { id: fresh, provider_charge_id: 'ch_fresh', order_id: unpaid },
    orphan: { order_id: missing },
    change: { amount_minor: 1 },
    embeds: ['id,orders(id,order_items(order_id,product_id))'],
  },
  'holdfast.transactions': {
    key: ['id'],
    rows: [{
      values: {
        ...{ id: sold, status: 'committed', caller_role: 'authenticated', caller_id: people.owner },
        ...{ isolation: 'read committed', attempt: 1, operations: 1, tables: '{public.orders}' },
        ...{ started_at: '2026-01-01', deadline_at: '2026-01-02', ended_at: '2026-01-01' },
      },
    }],
    fresh: { id: fresh },
    change: { operations: 9 },
  },
  'holdfast.compensations': {
    key: ['id'],
    rows: [{
      values: {
        ...{ id: sold, transaction_id: sold, position: 1, function_name: 'orders', name: 'refund' },
        ...{ args: '{}', due_at: '2126-01-01', caller_role: 'authenticated', caller_id: people.owner },
      },
    }],
    fresh: { id: fresh },
    change: { attempts: 0 },
  },
  'holdfast.idempotency_keys': {
    key: ['id'],
    rows: [{
      values: {
        ...{ id: digest('a'), fingerprint: digest('b'), expires_at: '2126-01-01', route: 'POST /orders' },
        ...{ caller_id: people.owner, status: 201, headers: '{}', body: '{"of":"the owner"}' },
      },
    }],
    fresh: { id: digest('c') },
    change: { request_id: 'changed' },
  },
  'holdfast.circuit_breakers': {
    key: ['name'],
    rows: [{ values: { name: 'payments' } }, { values: { name: 'uncounted' } }],
    fresh: { name: 'fresh' },
    change: { epoch: 9 },
  },
  'holdfast.circuit_breaker_counts': {
    key: ['name'],
    rows: [{ values: { name: 'payments', epoch: 1, rules: '{"windowMs": 30000}' } }],
    fresh: { name: 'uncounted' },
    orphan: { name: 'missing' },
    change: { epoch: 9 },
  },
  'holdfast.circuit_breaker_events': {
    key: ['reported_by'],
    rows: [{
      values: {
        ...{ name: 'payments', epoch: 1, from_state: 'open', to_state: 'closed' },
        ...{ reason: 'a probe succeeded', reported_by: 'orders' },
      },
    }],
    fresh: { reported_by: 'fresh' },
    change: { reason: 'changed' },
  },
  'holdfast.rate_limits': {
    key: ['key'],
    rows: [{ values: { key: `orders|60/min|user:${people.owner}`, forget_at: 1, state: '{1}' } }],
    fresh: { key: 'fresh' },
    change: { forget_at: 2 },
  },
  'holdfast.cache_entries': {
    key: ['cache', 'key'],
    rows: [{
      values: {
        ...{ cache: 'users', key: people.owner, version: '1', value: '{"of":"the owner"}', fence: 1 },
        ...{ fresh_until: '2126-01-01', expires_at: '2126-01-01' },
      },
    }],
    fresh: { key: 'fresh' },
    change: { fence: 9 },
  },
}

/** How a function that some role may call is tried: on what is the owner's. */
export interface Call {
  args: string
  /** Run by the superuser first. */
  before?: string
  /**
   * - `reads`: the owner's order comes back to those whose select of orders reaches it, and to nobody else.
   * - `writes`: rows change when the owner calls, and not one when anybody else does.
   * - `creates`: orders are made, each of them the caller's own.
   * - `tells`: nothing changes, whoever calls.
   */
  effect: 'reads' | 'writes' | 'creates' | 'tells'
}

export const calls: Record<string, Call> = {
  'private.order_as_json(uuid)': { args: `'${ownersOrder}'`, effect: 'reads' },
  'private.place_order(uuid,jsonb,text,uuid,text,bigint)': {
    args: `'${fresh}', '[{"sku": "ROPE-10", "quantity": 1}]', 'EUR', '${fresh}', 'ch_fresh', 2450`,
    effect: 'creates',
  },
  'private.cancel_order(uuid)': { args: `'${ownersOrder}'`, effect: 'writes' },
  'private.record_refund(uuid,text)': {
    args: `'${ownersPayment}', 're_forged'`,
    before: `update public.payments set status = 'refund_due' where id = '${ownersPayment}'`,
    effect: 'writes',
  },
  'private.delete_order(uuid)': { args: `'${ownersOrder}'`, effect: 'writes' },
  'holdfast.is_admin()': { args: '', effect: 'tells' },
  ...tells({
    'audit.head()': '',
    'audit.verify(timestamp with time zone,timestamp with time zone,bytea)': 'now(), now(), null',
    'audit.record(text,text,text,jsonb,jsonb)': `'order.shown', 'orders', '${ownersOrder}', null, null`,
    'audit.by_actor(uuid,timestamp with time zone,timestamp with time zone,integer)':
      `'${people.owner}'::uuid, '-infinity', 'infinity', 10`,
    'audit.by_actor(text,timestamp with time zone,timestamp with time zone,integer)':
      `'ada@example.com'::text, '-infinity', 'infinity', 10`,
    'audit.row_history(text,text)': `'public.orders'::text, '${ownersOrder}'::text`,
    'audit.row_history(regclass,text)': `'public.orders'::regclass, '${ownersOrder}'::text`,
    'audit.row_history(regclass,anyelement)': `'public.orders'::regclass, '${ownersOrder}'::uuid`,
    'audit.diff(bigint)': '1',
    'audit.diff(text,text,timestamp with time zone,timestamp with time zone)':
      `'public.orders'::text, '${ownersOrder}'::text, '-infinity', 'infinity'`,
    'audit.diff(regclass,anyelement,timestamp with time zone,timestamp with time zone)':
      `'public.orders'::regclass, '${ownersOrder}'::uuid, '-infinity', 'infinity'`,
    'audit.find_changes(jsonb,integer,bigint)': `'{}', 10, null`,
  }),
}

function tells(functions: Record<string, string>): Record<string, Call> {
  return Object.fromEntries(
    Object.entries(functions).map(([name, args]) => [name, { args, effect: 'tells' }]),
  )
}

/** The user of a role, if it has one. */
export function personOf(role: RoleName): string | undefined {
  return (people as Partial<Record<RoleName, string>>)[role]
}

function uuid(end: string): string {
  return `00000000-0000-4000-8000-0000000000${end}`
}

function digest(digit: string): string {
  return `\\x${digit.repeat(64)}`
}

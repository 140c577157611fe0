/** What callers ask for, and the same with the predicate written by hand for who is under no policy. */
import { customerId } from '../../tests/support/manyOrders.ts'
import { type Caller, user } from '../../tests/support/sql.ts'

export interface Question {
  name: string
  caller: Caller
  statement: string
  byHand: string
  /** Rows that come back. */
  rows: number
  /** By the soft-deleted ones of the customer's own, or the one row that was named. */
  mostInVain: number
  /** Without a filter of its own, so that a policy that has no index reads everything. */
  unfiltered?: true
}

/** Orders of each customer. */
export const perCustomer = 100
/** Of these. */
const deletedPerCustomer = 2

const customer = customerId(7)
const owned = `user_id = '${customer}' and deleted_at is null`
const columns = 'id, status, total_minor, currency, created_at'
const newestFirst = 'order by created_at desc, id desc limit 20'

export function questions(orders: { own: string; others: string }): Question[] {
  const as = user(customer, { email: 'ada@example.com', app_metadata: { provider: 'email' } })
  const stranger = user('00000000-0000-4000-8000-00000000dead')
  const itemsByHand = (id: string) => `
    select * from public.order_items as i where order_id = '${id}'
    and exists (select from public.orders where id = i.order_id and ${owned})`
  return [
    {
      name: 'own page',
      caller: as,
      statement: `select ${columns} from public.orders ${newestFirst}`,
      byHand: `select ${columns} from public.orders where ${owned} ${newestFirst}`,
      rows: 20,
      mostInVain: deletedPerCustomer,
      unfiltered: true,
    },
    {
      name: 'own page, filtered by user',
      caller: as,
      statement: `select ${columns} from public.orders where user_id = '${customer}' ${newestFirst}`,
      byHand: `select ${columns} from public.orders where ${owned} ${newestFirst}`,
      rows: 20,
      mostInVain: deletedPerCustomer,
    },
    {
      name: 'own count',
      caller: as,
      statement: 'select count(*) from public.orders',
      byHand: `select count(*) from public.orders where ${owned}`,
      rows: 1,
      mostInVain: deletedPerCustomer,
      unfiltered: true,
    },
    {
      name: 'own order by id',
      caller: as,
      statement: `select ${columns} from public.orders where id = '${orders.own}'`,
      byHand: `select ${columns} from public.orders where id = '${orders.own}' and ${owned}`,
      rows: 1,
      mostInVain: 0,
    },
    {
      name: 'items of an own order',
      caller: as,
      statement: `select * from public.order_items where order_id = '${orders.own}'`,
      byHand: itemsByHand(orders.own),
      rows: 1,
      mostInVain: 0,
    },
    {
      name: 'denied, order by id',
      caller: as,
      statement: `select ${columns} from public.orders where id = '${orders.others}'`,
      byHand: `select ${columns} from public.orders where id = '${orders.others}' and ${owned}`,
      rows: 0,
      mostInVain: 1,
    },
    {
      name: 'denied, items by order',
      caller: as,
      statement: `select * from public.order_items where order_id = '${orders.others}'`,
      byHand: itemsByHand(orders.others),
      rows: 0,
      mostInVain: 2,
    },
    {
      name: 'denied, everything to a stranger',
      caller: stranger,
      statement: `select ${columns} from public.orders ${newestFirst}`,
      byHand: `select ${columns} from public.orders
        where user_id = '00000000-0000-4000-8000-00000000dead' and deleted_at is null ${newestFirst}`,
      rows: 0,
      mostInVain: 0,
      unfiltered: true,
    },
  ]
}

interface Statement {
  name: string
  caller: Caller
  statement: string
}

/** Refused by the rights of the role, before any row is looked at. */
export const refusals: Statement[] = [
  {
    name: 'refused, update',
    caller: user(customer),
    statement: 'update public.orders set total_minor = 1',
  },
  { name: 'refused, anon', caller: { role: 'anon' }, statement: 'select * from public.orders' },
]

const admin = user(customerId(9), { app_metadata: { role: 'admin' } })

export const adminQuestions: Statement[] = [
  { name: 'admin counts all', caller: admin, statement: 'select count(*) from public.orders' },
  {
    name: 'admin, newest page of all',
    caller: admin,
    statement: `select * from public.orders ${newestFirst}`,
  },
  {
    name: "admin, a customer's newest page",
    caller: admin,
    statement: `select * from public.orders where user_id = '${customer}' ${newestFirst}`,
  },
]

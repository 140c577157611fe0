/**
 * What the shop does with orders. All SQL runs as the customer. Reading goes under row level security; the writes
 * are the functions of the schema `private`, each of which acts for the customer alone and changes all or nothing.
 */
import { z } from 'zod'
import { db, type Row, sql, sqlArray } from '../_shared/db/client.ts'
import type { ManagedTx } from '../_shared/db/transactionManager.ts'
import { HoldfastError, isHoldfastError } from '../_shared/core/errors.ts'
import type { LeasedRequest, Reply, RouteContext } from '../_shared/http/api.ts'
import { cursorPage, decodeCursor, type ListWindow, pagePagination } from '../_shared/http/pagination.ts'
import type { Pagination } from '../_shared/http/responses.ts'
import type { Charge, ChargeRequest, PaymentProvider } from './payments.ts'
import type { Order, PlaceOrder } from './schemas.ts'
import { transactions } from './transactions.ts'

type Customer = Pick<RouteContext<'user'>, 'caller' | 'request' | 'log' | 'signal'>

interface Item {
  sku: string
  quantity: number
}

/**
 * Charges the customer and writes the order, once for each idempotency key. What cannot be sold or paid now is refused
 * before anything is charged. The order, its stored answer and the end of the duty to refund commit together; whatever goes
 * wrong before, the charge is refunded, or taken up by the next attempt.
 */
export async function placeOrder(
  customer: Customer & Pick<RouteContext<'user'>, 'deadlineAt'> & {
    idempotency: LeasedRequest<{ order: Order }>
  },
  payments: PaymentProvider,
  wanted: PlaceOrder,
): Promise<Reply<{ order: Order }>> {
  payments.requireAvailable()
  const items = mergeItems(wanted.items)
  const { totalMinor, currency } = await quote(customer, items, wanted.currency)
  const orderId = crypto.randomUUID()
  const { idempotency, deadlineAt } = customer
  return await transactions.run(
    { as: customer, timeoutMs: Math.max(1, deadlineAt - Date.now()) },
    async (tx) => {
      const charge = await chargeOnce(tx, payments, `charge-${idempotency.effectId}`, {
        amountMinor: totalMinor,
        currency,
        token: wanted.payment.token,
      })
      return idempotency.complete(tx, {
        status: 201,
        headers: { location: `/functions/v1/orders/${orderId}` },
        data: sql`
        select jsonb_build_object('order', private.place_order(
          ${orderId}::uuid, ${items}::jsonb, ${charge.currency}, ${crypto.randomUUID()}::uuid, ${charge.id},
          ${charge.amountMinor}::bigint
        ))`,
      })
    },
  )
}

/** The provider was not asked by this attempt. What an earlier one has asked may still reach its ledger. */
const notAsked = ['CIRCUIT_OPEN', 'BULKHEAD_FULL']

/**
 * The refund is on record before the charge is made. An attempt that takes over from one that died asks the provider
 * for the earlier charge before it makes one; both carry the same key, so there is never a second.
 */
async function chargeOnce(
  tx: ManagedTx,
  payments: PaymentProvider,
  name: string,
  charge: Omit<ChargeRequest, 'idempotencyKey'>,
): Promise<Charge> {
  const effect = await tx.compensate('refund', null, { resumeKey: name })
  const earlier = effect.resumed ? await payments.findCharge(effect.effectKey, tx.signal) : undefined
  if (earlier !== undefined) return earlier
  try {
    // Not the customer's signal: a charge is not left half-way because they closed the page.
    return await payments.charge({ ...charge, idempotencyKey: effect.effectKey }, tx.signal)
  } catch (error) {
    const code = isHoldfastError(error) ? error.code : ''
    const isCertain = code === 'PAYMENT_DECLINED' || (!effect.resumed && notAsked.includes(code))
    if (isCertain) await tx.withdraw(effect)
    throw error
  }
}

export async function listOrders(
  customer: Customer,
  window: ListWindow,
): Promise<{ orders: Order[]; pagination: Pagination }> {
  const mine = sql`from public.orders where user_id = (select auth.uid()) and deleted_at is null`
  if (window.kind === 'page') {
    return await db().as(customer).transaction(async (tx) => {
      const [counts, rows] = await Promise.all([
        tx.query<{ total: string }>(sql`select count(*) as total ${mine}`),
        tx.query<{ order: Order }>(sql`
          select private.order_as_json(id) as order ${mine}
          order by created_at desc, id desc
          limit ${window.perPage} offset ${window.offset}`),
      ])
      const orders = rows.map((row) => row.order)
      return { orders, pagination: pagePagination(window, Number(counts[0]?.total)) }
    })
  }
  const after = window.cursor === undefined
    ? sql``
    : afterPosition(decodeCursor(window.cursor, z.tuple([z.iso.datetime({ offset: true }), z.uuid()])))
  const found = await db().as(customer).query<{ order: Order; id: string; position: string }>(sql`
    select private.order_as_json(id) as order, id, to_json(created_at) #>> '{}' as position
    ${mine} ${after}
    order by created_at desc, id desc
    limit ${window.limit + 1}`)
  const { rows, pagination } = cursorPage(found, window.limit, (row) => [row.position, row.id])
  return { orders: rows.map((row) => row.order), pagination }
}

function afterPosition([createdAt, id]: [string, string]) {
  return sql`and (created_at, id) < (${createdAt}::timestamptz, ${id}::uuid)`
}

/** Somebody else's order is as absent as one that never was. */
export async function findOrder(customer: Customer, id: string): Promise<Order> {
  const [row] = await db().as(customer).query<{ order: Order }>(sql`
    select private.order_as_json(id) as order
    from public.orders
    where id = ${id}::uuid and user_id = (select auth.uid()) and deleted_at is null`)
  if (row === undefined) throw new HoldfastError('NOT_FOUND', 'There is no such order')
  return row.order
}

/**
 * Returns the stock and notes the refund as due in one transaction, then asks the provider for it. Safe to call
 * again: the stock goes back once, the provider refunds once, and a refund still due is asked for again.
 */
export async function cancelOrder(
  customer: Customer,
  payments: PaymentProvider,
  id: string,
): Promise<{ order: Order; refund: 'refunded' | 'due' }> {
  const [row] = await db().as(customer).query<
    { order: Order; payment: { id: string; chargeId: string; status: string } }
  >(
    sql`select result -> 'order' as order, result -> 'payment' as payment
        from private.cancel_order(${id}::uuid) as result`,
  )
  const { order, payment } = row!
  if (payment.status === 'refunded') return { order, refund: 'refunded' }
  try {
    const refund = await payments.refund(
      { chargeId: payment.chargeId, idempotencyKey: `refund-${payment.id}` },
      customer.signal,
    )
    await db().as(customer).query(sql`select private.record_refund(${payment.id}::uuid, ${refund.id})`)
    return { order, refund: 'refunded' }
  } catch (error) {
    // The order is cancelled all the same: what is owed stands in payments with status refund_due.
    customer.log.warn('A refund is still due', { paymentId: payment.id, orderId: id, error })
    return { order, refund: 'due' }
  }
}

export async function deleteOrder(
  customer: Customer,
  id: string,
): Promise<{ id: string; deletedAt: string }> {
  const [row] = await db().as(customer).query<{ deletedAt: Date }>(
    sql`select private.delete_order(${id}::uuid) as "deletedAt"`,
  )
  return { id, deletedAt: row!.deletedAt.toISOString() }
}

/** The same sku twice is one item with the sum of the quantities. */
function mergeItems(items: readonly Item[]): Item[] {
  const quantities = new Map<string, number>()
  for (const { sku, quantity } of items) quantities.set(sku, (quantities.get(sku) ?? 0) + quantity)
  return [...quantities].map(([sku, quantity]) => ({ sku, quantity }))
}

interface Product extends Row {
  sku: string
  priceMinor: string
  currency: string
  stock: number
}

/** The price of the items now; refuses with `CONFLICT` what is not sold, not in stock, or in another currency. */
async function quote(customer: Customer, items: Item[], wantedCurrency: string | undefined) {
  const products = await db().as(customer).query<Product>(sql`
    select sku, price_minor as "priceMinor", currency, stock
    from public.products
    where sku = any(${sqlArray(items.map((item) => item.sku))}::text[]) and deleted_at is null`)
  const bySku = new Map(products.map((product) => [product.sku, product]))

  const unknownSkus = items.map((item) => item.sku).filter((sku) => !bySku.has(sku)).sort()
  if (unknownSkus.length > 0) {
    throw conflict('it names products that are not sold here', { unknownSkus })
  }
  const insufficientStock = items
    .map(({ sku, quantity }) => ({ sku, requested: quantity, available: bySku.get(sku)!.stock }))
    .filter(({ requested, available }) => requested > available)
  if (insufficientStock.length > 0) {
    throw conflict('there is too little stock', { insufficientStock })
  }
  const currencies = [...new Set(products.map((product) => product.currency))].sort()
  const currency = wantedCurrency ?? currencies[0]!
  if (currencies.length > 1 || currencies[0] !== currency) {
    throw conflict('its products are not priced in one currency', {
      currencies,
      requested: wantedCurrency ?? null,
    })
  }
  const totalMinor = items.reduce(
    (sum, { sku, quantity }) => sum + Number(bySku.get(sku)!.priceMinor) * quantity,
    0,
  )
  if (!Number.isSafeInteger(totalMinor)) throw conflict('its total is too large', { totalMinor })
  return { totalMinor, currency }
}

function conflict(found: string, details: Record<string, unknown>): HoldfastError {
  return new HoldfastError('CONFLICT', `Cannot place the order: ${found}`, { details })
}

/** What the shop's tables and the provider's ledger must say of the wishes, once all of them are answered. */
import { z } from 'zod'
import type { Sql } from '../../support/sql.ts'
import type { Wish } from './customers.ts'

const placed = z.object({ data: z.object({ order: z.object({ id: z.uuid(), totalMinor: z.int() }) }) })

/** Every list names what is wrong; all are empty where nothing is. */
export interface ShopFindings {
  /** Keys without a definite answer. */
  unanswered: string[]
  /** Keys with two answers that differ in a byte. */
  differing: string[]
  /** Keys answered with 201 that have not exactly one order, with its items and its payment. */
  orders: string[]
  /** Orders that no key was answered with. */
  strangers: string[]
  /** Keys whose charges are not as their answer says, by the provider's own ledger. */
  charges: string[]
  /** Products whose stock is not what was sold of them. */
  stock: string[]
}

interface StoredOrder {
  id: string
  total: number
  user: string
  items: Record<string, number> | null
  payments: { charge: string; amount: number; status: string }[] | null
}

export async function auditShop(
  admin: Sql,
  paymentsUrl: string,
  wishes: readonly Wish[],
  stockBefore: Record<string, number>,
): Promise<{ findings: ShopFindings; counts: Record<string, number> }> {
  const stored = new Map((await readOrders(admin)).map((order) => [order.id, order]))
  const charges = await readLedger(paymentsUrl)
  const bought = wishes.flatMap((wish) => {
    const answer = wish.answers.at(0)
    return answer?.status === 201 ? [{ wish, order: placed.parse(JSON.parse(answer.body)).data.order }] : []
  })
  const orderOfKey = new Map(bought.map(({ wish, order }) => [wish.key, stored.get(order.id)]))
  const answeredIds = new Set(bought.map(({ order }) => order.id))
  const findings: ShopFindings = {
    unanswered: wishes.filter((wish) => wish.answers.length === 0).map(({ key }) => key),
    differing: wishes.filter(({ answers }) =>
      new Set(answers.map(({ status, body }) => `${status} ${body}`)).size > 1
    ).map(({ key, answers }) =>
      `${key}: ${answers.map(({ status, body }) => `${status} ${body}`).join('\n')}`
    ),
    orders: [
      ...bought.filter(({ wish, order }) => !isWhole(wish, order, stored.get(order.id))).map(({ wish }) =>
        `${wish.key}: ${JSON.stringify(stored.get(wish.key))}`
      ),
      ...answeredIds.size === bought.length ? [] : ['two keys were answered with one order'],
    ],
    strangers: [...stored.keys()].filter((id) => !answeredIds.has(id)),
    charges: [
      ...wishes.flatMap((wish) => {
        const mine = charges.filter(({ token }) => token === wish.token)
        const kept = mine.filter(({ refunded }) => !refunded).map(({ id }) => id)
        const due = orderOfKey.get(wish.key)?.payments?.map(({ charge }) => charge) ?? []
        return String(kept) === String(due) ? [] : [`${wish.key}: kept [${kept}], paid by [${due}]`]
      }),
      ...charges.filter(({ refunded, token }) => !refunded && !wishes.some((wish) => wish.token === token))
        .map(({ id }) => `${id} is nobody's`),
    ],
    stock: await wrongStock(admin, stockBefore),
  }
  const [resumed] = await admin`select count(*)::int from holdfast.idempotency_keys where attempt > 1`
  const [discarded] = await admin`select count(*)::int from holdfast.compensations where status = 'discarded'`
  const counts = {
    keys: wishes.length,
    ordered: bought.length,
    resumed: resumed?.count,
    discarded: discarded?.count,
    refunded: charges.filter(({ refunded }) => refunded).length,
  }
  return { findings, counts }

  function isWhole(wish: Wish, answered: { totalMinor: number }, order: StoredOrder | undefined): boolean {
    const charge = charges.find(({ id }) => id === order?.payments?.[0]?.charge)
    return order !== undefined && order.user === wish.who.userId && order.total === answered.totalMinor &&
      sameItems(order.items ?? {}, wish.items) && order.payments?.length === 1 &&
      order.payments[0]?.status === 'succeeded' && order.payments[0].amount === order.total &&
      charge?.amountMinor === order.total
  }
}

function sameItems(a: Record<string, number>, b: Record<string, number>): boolean {
  return Object.keys(a).length === Object.keys(b).length &&
    Object.entries(a).every(([sku, quantity]) => b[sku] === quantity)
}

async function readLedger(paymentsUrl: string) {
  const charge = z.object({ id: z.string(), amountMinor: z.int(), token: z.string(), refunded: z.boolean() })
  const response = await fetch(new URL('/charges', paymentsUrl))
  return z.object({ data: z.array(charge) }).parse(await response.json()).data
}

async function readOrders(admin: Sql): Promise<StoredOrder[]> {
  return [
    ...await admin<StoredOrder[]>`
    select o.id, o.total_minor::int as total, o.user_id as user,
      (select jsonb_object_agg(i.sku, i.quantity) from public.order_items i where i.order_id = o.id) as items,
      (select jsonb_agg(jsonb_build_object(
          'charge', p.provider_charge_id, 'amount', p.amount_minor, 'status', p.status))
        from public.payments p where p.order_id = o.id) as payments
    from public.orders o`,
  ]
}

async function wrongStock(admin: Sql, before: Record<string, number>): Promise<string[]> {
  const rows = await admin<{ sku: string; stock: number; sold: number }[]>`
    select p.sku, p.stock, coalesce(sum(i.quantity), 0)::int as sold
    from public.products p
    left join public.order_items i on i.product_id = p.id
    group by p.sku, p.stock`
  return rows.filter(({ sku, stock, sold }) => stock + sold !== before[sku])
    .map(({ sku, stock, sold }) => `${sku}: ${before[sku]} before, ${sold} sold, ${stock} left`)
}

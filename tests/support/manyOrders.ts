/** A shop with many customers and orders, made in a few statements: for what only shows in numbers. */
import type { Queries } from './sql.ts'

export interface ManyOrders {
  customers: number
  /** Dealt out to the customers in turn, thirty seconds apart; one in fifty is soft-deleted. */
  orders: number
}

/**
 * Fills orders, items and payments, and tells the planner. Takes the superuser: no trigger stamps times and no key is
 * checked, so that a million rows take seconds. Every order has one item.
 */
export async function fillOrders(admin: Queries, { customers, orders }: ManyOrders): Promise<void> {
  await admin.unsafe(`
    set session_replication_role = replica;
    insert into auth.users (id, aud, role)
    select ${customerSql('n')}, 'authenticated', 'authenticated' from generate_series(0, ${
    customers - 1
  }) as n;
    insert into public.orders (id, user_id, status, total_minor, currency, created_at, deleted_at)
    select
      gen_random_uuid(), ${customerSql(`(n % ${customers})`)}, 'paid', 890, 'EUR',
      now() - (${orders} - n) * interval '30 seconds',
      case when n / ${customers} % 50 = 7 then now() end
    from generate_series(0, ${orders - 1}) as n;
    insert into public.order_items (order_id, product_id, sku, name, quantity, unit_price_minor)
    select o.id, p.id, p.sku, p.name, 1, p.price_minor
    from public.orders as o cross join (select * from public.products order by sku limit 1) as p;
    insert into public.payments (id, order_id, provider_charge_id, status, amount_minor, currency)
    select o.id, o.id, 'ch_' || o.id, 'succeeded', o.total_minor, o.currency from public.orders as o;
    reset session_replication_role`)
  for (const table of ['orders', 'order_items', 'payments']) {
    await admin.unsafe(`vacuum (analyze) public.${table}`)
  }
}

/** The user of the n-th customer, from 0. */
export function customerId(n: number): string {
  return `00000000-0000-4000-9000-${n.toString(16).padStart(12, '0')}`
}

function customerSql(n: string): string {
  return `('00000000-0000-4000-9000-' || lpad(to_hex(${n}), 12, '0'))::uuid`
}

/** Policies at a size where it matters: each stays on its index, for every caller, and asks once who that is. */
import { beforeAll, describe, expect, test } from 'vitest'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { customerId, fillOrders } from '../support/manyOrders.ts'
import { explainQuery, type QueryPlan } from '../support/queryPlan.ts'
import { asCaller, type Caller, openSql, type Sql, user } from '../support/sql.ts'

const customers = 1_000
const orders = 20_000
const newestFirst = 'order by created_at desc, id desc limit 20'

onEachPostgres('of 20,000 orders', (pg) => {
  let sql: Sql
  let admin: Sql
  let others: string

  const customer = user(customerId(7))
  const stranger = user('00000000-0000-4000-8000-00000000dead')
  const administrator = user(customerId(8), { app_metadata: { role: 'admin' } })

  beforeAll(async () => {
    const db = await freshDatabase(pg.major)
    sql = openSql(db.url)
    admin = openSql(db.adminUrl)
    await fillOrders(admin, { customers, orders })
    const [row] = await admin`select id from public.orders where user_id = ${customerId(9)} limit 1`
    others = row!.id
  })

  const plan = (caller: Caller, statement: string) =>
    asCaller(sql, caller, (tx) => explainQuery(tx, statement))

  const statements: [what: string, statement: () => string, index: string][] = [
    ['their newest orders', () => `select * from public.orders ${newestFirst}`, 'orders_by_customer'],
    [
      'their newest orders, by a filter of their own',
      () => `select * from public.orders where user_id = '${customerId(7)}' ${newestFirst}`,
      'orders_by_customer',
    ],
    ['the count of their orders', () => 'select count(*) from public.orders', 'orders_by_customer'],
    ["somebody else's order", () => `select * from public.orders where id = '${others}'`, 'orders_pkey'],
    [
      "somebody else's orders",
      () => `select * from public.orders where user_id = '${customerId(9)}' ${newestFirst}`,
      'orders_by_customer',
    ],
    [
      "the items of somebody else's order",
      () => `select * from public.order_items where order_id = '${others}'`,
      'order_items_pkey',
    ],
    [
      "the payment of somebody else's order",
      () => `select * from public.payments where order_id = '${others}'`,
      'an_order_is_paid_once',
    ],
    [
      'their orders with their items, as the API embeds them',
      () =>
        `select o.id, i.items from public.orders as o left join lateral (
          select json_agg(i) as items from public.order_items as i where i.order_id = o.id
        ) as i on true ${newestFirst.replaceAll(/(created_at|id) desc/g, 'o.$1 desc')}`,
      'order_items_pkey',
    ],
  ]

  describe.each([['a customer', customer], ['a stranger without an order', stranger]])(
    '%s',
    (who, caller) => {
      test.each(statements)('asks for %s by an index', async (_, statement, index) => {
        const { indexes, ...rest } = await plan(caller, statement())
        expect(rest).toMatchObject({ wholeTables: [], askedPerRow: [] })
        // Who has no orders never gets as far as their items.
        if (who === 'a customer') expect(indexes).toContain(index)
        // Their own that are soft-deleted, or the one that they named.
        expect(rest.rowsInVain).toBeLessThanOrEqual(orders / customers)
      })
    },
  )

  test('an admin finds one order, and one customer, by an index as well', async () => {
    for (const where of [`id = '${others}'`, `user_id = '${customerId(9)}'`]) {
      const found = await plan(administrator, `select * from public.orders where ${where}`)
      expect(found).toMatchObject({ wholeTables: [], askedPerRow: [], rowsInVain: 0 })
    }
  })

  test('each reads what the policy means, and nothing else', async () => {
    const seen = (caller: Caller) =>
      asCaller(sql, caller, async (tx) => {
        const [row] = await tx`
          select
            (select count(*)::int from public.orders) as orders,
            (select count(*)::int from public.order_items) as items,
            (select count(*)::int from public.payments) as payments`
        return row
      })
    const all = (count: number) => ({ orders: count, items: count, payments: count })
    const perCustomer = orders / customers
    // One of the twenty is soft-deleted.
    expect(await seen(customer)).toEqual(all(perCustomer - 1))
    expect(await seen(stranger)).toEqual(all(0))
    expect(await seen(administrator)).toEqual(all(orders))
    await admin`update public.orders set user_id = null where user_id = ${customerId(7)}`
    expect(await seen(customer)).toEqual(all(0))
    expect(await seen(administrator)).toEqual(all(orders))
    await admin`update public.orders set user_id = ${customerId(7)} where user_id is null`
  })

  describe('these tests notice', () => {
    const policies: [what: string, policy: string, seen: (plan: QueryPlan) => void][] = [
      [
        'that the whole table is read where a policy says "or is_admin()"',
        '(user_id = (select auth.uid()) and deleted_at is null) or (select holdfast.is_admin())',
        ({ wholeTables, rowsInVain }) => {
          expect(wholeTables).toEqual(['orders'])
          expect(rowsInVain).toBeGreaterThan(orders / 2)
        },
      ],
      [
        'that the caller is asked for once a row where auth.uid() is not wrapped',
        'user_id = auth.uid() and deleted_at is null',
        ({ askedPerRow }) => expect(askedPerRow).not.toEqual([]),
      ],
    ]

    test.each(policies)('%s', async (_, policy, look) => {
      await expect(sql.begin(async (tx) => {
        await tx.unsafe(
          `alter policy "Customers see their own orders, admins see all" on public.orders using (${policy})`,
        )
        await tx`select
          set_config('role', 'authenticated', true),
          set_config('request.jwt.claims', ${JSON.stringify({ sub: customerId(7) })}, true)`
        look(await explainQuery(tx, 'select count(*) from public.orders'))
        throw new Error('taken back')
      })).rejects.toThrow('taken back')
    })
  })
})

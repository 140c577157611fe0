/** Who has to do with the order, and what each of them does to it, by a way of their own. */
import { decodeJwt } from 'jose'
import { z } from 'zod'
import type { Sql } from '../../local/postgres/connect.ts'
import type { SignedIn } from '../../tests/support/client.ts'

/** In cents: what the lamp costs, what support meant, and what support typed. */
export const price = { full: 5600, reduced: 4600, mistyped: 460 }

export interface Answer {
  status: number
  /** As the client received it. */
  requestId: string
}

const envelope = z.object({ meta: z.object({ requestId: z.string() }) })
const placed = z.object({ data: z.object({ order: z.object({ id: z.uuid() }) }) })
const cancelled = z.object({ data: z.object({ refund: z.string() }) })

/** One storm lamp, paid at once. */
export async function place(ada: SignedIn): Promise<Answer & { orderId: string }> {
  const { body, status, requestId } = await call(ada, 'orders', {
    headers: { 'Idempotency-Key': crypto.randomUUID() },
    body: { items: [{ sku: 'LAMP-1', quantity: 1 }], payment: { token: 'tok_visa' } },
  })
  const orderId = placed.safeParse(body).data?.data.order.id
  if (orderId === undefined) throw new Error(`Ada cannot order: the function orders answers ${status}`)
  return { status, requestId, orderId }
}

/** Also for whoever may not: then it is the answer that says so, and there is no refund. */
export async function cancel(person: SignedIn, orderId: string): Promise<Answer & { refund?: string }> {
  const { body, status, requestId } = await call(person, `orders/${orderId}/cancel`)
  return { status, requestId, refund: cancelled.safeParse(body).data?.data.refund }
}

/** From a console of the database: no request, and nobody who is signed in. */
export async function mistype(sql: Sql, orderId: string): Promise<void> {
  await sql.begin(async (tx) => {
    await tx`update public.order_items set unit_price_minor = ${price.mistyped} where order_id = ${orderId}`
    await tx`update public.orders set total_minor = ${price.mistyped} where id = ${orderId}`
  })
}

/** As a tool of the shop's own would: with the rights of the service, in the name of whoever is signed in there. */
export async function correct(sql: Sql, admin: SignedIn, orderId: string): Promise<void> {
  const claims = JSON.stringify(decodeJwt(admin.accessToken))
  await sql.begin(async (tx) => {
    await tx`select set_config('role', 'service_role', true), set_config('request.jwt.claims', ${claims}, true)`
    await tx`update public.order_items set unit_price_minor = ${price.reduced} where order_id = ${orderId}`
    await tx`update public.orders set total_minor = ${price.reduced} where id = ${orderId}`
  })
}

async function call(
  person: SignedIn,
  path: string,
  request: { headers?: Record<string, string>; body?: Record<string, unknown> } = {},
) {
  const { data, error, response } = await person.client.functions.invoke(path, { method: 'POST', ...request })
  if (response === undefined) throw new Error(`The function ${path} does not answer`, { cause: error })
  const body: unknown = data ?? await response.json()
  return { status: response.status, requestId: envelope.parse(body).meta.requestId, body }
}

/** Calling the sample shop over HTTP, and looking at what it has stored. */
import { localKeys } from '../../local/keys.ts'
import type { Sql } from './sql.ts'

export interface CallOptions {
  method?: string
  /** Access token of the caller. */
  token?: string
  body?: unknown
  headers?: Record<string, string>
}

export interface Answer {
  status: number
  headers: Headers
  // deno-lint-ignore no-explicit-any -- whatever the API answers is looked at by its assertions
  json: any
}

/** One call of a function as a plain HTTP client makes it: with the publishable key, a POST with a key of its own. */
export async function callFunction(
  stack: { functionsUrl: string },
  path: string,
  options: CallOptions = {},
): Promise<Answer> {
  const { method = 'GET', token, body, headers = {} } = options
  const response = await fetch(`${stack.functionsUrl}${path}`, {
    method,
    headers: {
      apikey: localKeys.publishable,
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...(method === 'POST' && { 'idempotency-key': crypto.randomUUID() }),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  })
  const text = await response.text()
  return {
    status: response.status,
    headers: response.headers,
    json: text === '' ? undefined : JSON.parse(text),
  }
}

/** The body of an order of one piece of each sku, or of the quantities given. */
export function orderOf(items: Record<string, number>, token = 'tok_visa') {
  return {
    items: Object.entries(items).map(([sku, quantity]) => ({ sku, quantity })),
    payment: { token },
  }
}

/** All that an order could change, to compare before and after. */
export async function shopState(admin: Sql) {
  const [state] = await admin`
    select
      (select jsonb_object_agg(sku, stock) from public.products) as stock,
      (select count(*)::int from public.orders) as orders,
      (select count(*)::int from public.orders where status = 'cancelled') as cancelled,
      (select count(*)::int from public.orders where deleted_at is not null) as deleted,
      (select count(*)::int from public.order_items) as items,
      (select count(*)::int from public.payments) as payments`
  return state as {
    stock: Record<string, number>
    orders: number
    cancelled: number
    deleted: number
    items: number
    payments: number
  }
}

/** The payment provider's own book and how it is told to behave. */
export function provider(stack: { paymentsUrl: string }) {
  const get = async (path: string) => await (await fetch(new URL(path, stack.paymentsUrl))).json()
  return {
    charges: async (): Promise<{ id: string; amountMinor: number; refunded: boolean }[]> =>
      (await get('/charges')).data,
    calls: async (): Promise<{ method: string; path: string; key: string | null; mode: string }[]> =>
      (await get('/_control/log')).data,
    async behave(
      control: { mode: 'ok' | 'fail' | 'hang' | 'slow'; status?: number; delayMs?: number; next?: number },
    ) {
      const response = await fetch(new URL('/_control', stack.paymentsUrl), {
        method: 'POST',
        body: JSON.stringify(control),
      })
      if (!response.ok) {
        throw new Error(`The provider refused ${JSON.stringify(control)}: ${await response.text()}`)
      }
      await response.body?.cancel()
    },
  }
}

/** Whether a charge that was not confirmed stays on record, to be refunded by whoever comes after. */
import { beforeEach, expect, test } from 'vitest'
import { HoldfastError } from '../../supabase/functions/_shared/core/errors.ts'
import { db } from '../../supabase/functions/_shared/db/client.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import type { PaymentProvider } from '../../supabase/functions/orders/payments.ts'
import { placeOrder } from '../../supabase/functions/orders/shop.ts'
import { freshDatabase } from '../support/database.ts'
import { closeAfterFile } from '../support/leftovers.ts'
import { orderOf } from '../support/shop.ts'
import { openSql } from '../support/sql.ts'

const database = await freshDatabase()
Deno.env.set('SUPABASE_DB_URL', database.url)
closeAfterFile({ name: 'the database of the orders', close: () => db().close() })
const admin = openSql(database.adminUrl)

let effectId: string

beforeEach(async () => {
  effectId = crypto.randomUUID()
  await admin`truncate holdfast.compensations`
})

/** One attempt to place the order, with a provider that has booked nothing yet. Gives the code that it ends with. */
async function attempt(code: string): Promise<string> {
  const userId = '00000000-0000-4000-8000-000000000001'
  const customer = {
    caller: { kind: 'user', role: 'authenticated', userId, claims: { sub: userId, role: 'authenticated' } },
    request: { requestId: 'one', functionName: 'orders', method: 'POST', path: '/orders' },
    log: createLogger({ write: () => {} }),
    signal: new AbortController().signal,
    deadlineAt: Date.now() + 30_000,
    idempotency: { effectId },
  }
  const provider: PaymentProvider = {
    requireAvailable: () => {},
    findCharge: () => Promise.resolve(undefined),
    charge: () => Promise.reject(new HoldfastError(code, 'Cannot charge')),
    refund: () => Promise.reject(new Error('Nothing to refund')),
  }
  const placed = placeOrder(customer as never, provider, orderOf({ 'ROPE-10': 1 }) as never)
  return await placed.then(() => 'placed', (error) => error.code)
}

const onRecord = async () =>
  (await admin`select id from holdfast.compensations where status = 'pending'`).length

test.each(['PAYMENT_DECLINED', 'CIRCUIT_OPEN', 'BULKHEAD_FULL'])(
  'an attempt that ends with %s leaves no duty to refund: nothing was charged',
  async (code) => {
    expect([await attempt(code), await onRecord()]).toEqual([code, 0])
  },
)

// The provider did not answer the first attempt in time. When the second one asked, the charge was not booked yet, and
// then the breaker opened: the duty was withdrawn, and the charge, booked a moment later, nobody's.
test.each(['CIRCUIT_OPEN', 'BULKHEAD_FULL'])(
  'a retry that ends with %s leaves the duty of the attempt before it, whose charge may still arrive',
  async (code) => {
    expect([await attempt('UPSTREAM_TIMEOUT'), await onRecord()]).toEqual(['UPSTREAM_TIMEOUT', 1])
    expect([await attempt(code), await onRecord()]).toEqual([code, 1])
  },
)

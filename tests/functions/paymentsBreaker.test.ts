/** What of the payment provider's answers makes all isolates leave it alone. */
import { expect, test } from 'vitest'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import { createCircuitBreakers } from '../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { createPaymentProvider, paymentBreaker } from '../../supabase/functions/orders/payments.ts'
import { serve } from '../support/adapters.ts'

/** Six charges, each answered so; the codes they end with. */
async function charges(status: number): Promise<string[]> {
  const url = serve(() => Response.json({ error: { code: 'so_it_is' } }, { status }))
  const breakers = createCircuitBreakers({ log: createLogger({ write() {} }) })
  const provider = createPaymentProvider(url, paymentBreaker(breakers))
  const codes: string[] = []
  for (let i = 0; i < 6; i++) {
    const request = { amountMinor: 100, currency: 'EUR', token: 'tok', idempotencyKey: crypto.randomUUID() }
    await provider.charge(request).catch((error) => codes.push(error.code))
  }
  return codes
}

test.each([408, 429, 500, 503])('five answers of %i stop the sixth charge', async (status) => {
  expect(await charges(status)).toEqual([...Array(5).fill('UPSTREAM_ERROR'), 'CIRCUIT_OPEN'])
})

test.each([
  [400, 'UPSTREAM_ERROR'],
  [402, 'PAYMENT_DECLINED'],
  [404, 'UPSTREAM_ERROR'],
  [422, 'UPSTREAM_ERROR'],
])('answers of %i are the request’s own fault, and stop nobody else’s charge', async (status, code) => {
  expect(await charges(status)).toEqual(Array(6).fill(code))
})

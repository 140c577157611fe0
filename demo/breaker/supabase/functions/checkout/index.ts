/** Charges a card through a circuit breaker. Each answer says which isolate it is from, and what it found. */
import { HoldfastError } from '../../../../../supabase/functions/_shared/core/errors.ts'
import { defineApi, route } from '../../../../../supabase/functions/_shared/http/api.ts'
import { circuitBreakers } from '../../../../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { z } from 'zod'

const options = {
  failureThreshold: 6,
  windowMs: 10_000,
  cooldownMs: 2_000,
  halfOpenProbes: 1,
  timeoutMs: 2_000,
}

let charges = 0

const api = defineApi({
  name: 'checkout',
  title: 'Checkout',
  routes: [route({
    method: 'POST',
    path: '/',
    auth: 'none',
    summary: 'Charge a card',
    response: z.object({ charge: z.string() }),
    errors: ['CIRCUIT_OPEN', 'UPSTREAM_ERROR'],
    async handler() {
      const charge = await circuitBreakers.get('payments', options).execute(chargeCard)
      return { data: { charge } }
    },
  })],
})

async function chargeCard(signal: AbortSignal): Promise<string> {
  const response = await fetch(new URL('/charges', Deno.env.get('PAYMENTS_URL')), {
    method: 'POST',
    signal,
    headers: { 'idempotency-key': `${Deno.pid}-${++charges}` },
    body: JSON.stringify({ amountMinor: 1_999, currency: 'EUR', token: 'tok_visa' }),
  })
  const { id } = await response.json()
  if (!response.ok) throw new HoldfastError('UPSTREAM_ERROR', `The provider answered ${response.status}`)
  return id
}

export default {
  async fetch(request: Request): Promise<Response> {
    const { status, headers, body } = await api.fetch(request)
    const named = new Headers(headers)
    named.set('x-isolate', String(Deno.pid))
    return new Response(body, { status, headers: named })
  },
}

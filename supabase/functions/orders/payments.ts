/**
 * The payment provider, over HTTP. Each call that moves money carries an idempotency key, so asking twice charges
 * once; a charge is also found again by that key, for whoever died before they heard the answer.
 */
import { z } from 'zod'
import { HoldfastError } from '../_shared/core/errors.ts'
import {
  type CircuitBreaker,
  type CircuitBreakers,
  circuitBreakers,
  isFailure,
} from '../_shared/resilience/circuitBreaker.ts'

export interface Charge {
  id: string
  amountMinor: number
  currency: string
}

export interface ChargeRequest {
  amountMinor: number
  currency: string
  token: string
  idempotencyKey: string
}

export interface RefundRequest {
  chargeId: string
  idempotencyKey: string
}

export interface PaymentProvider {
  /** Throws `CIRCUIT_OPEN` while the provider is being left alone: whoever needs it can stop before doing anything. */
  requireAvailable(): void
  /** The charge made with that idempotency key, if the provider has booked one. */
  findCharge(idempotencyKey: string, signal?: AbortSignal): Promise<Charge | undefined>
  /**
   * Rejects with `PAYMENT_DECLINED` (402), `UPSTREAM_ERROR` when the provider failed, and `UPSTREAM_TIMEOUT` when it
   * did not answer: only then it is not known whether the money moved. With `CIRCUIT_OPEN` and `BULKHEAD_FULL` it was
   * not asked.
   */
  charge(request: ChargeRequest, signal?: AbortSignal): Promise<Charge>
  refund(request: RefundRequest, signal?: AbortSignal): Promise<{ id: string }>
}

/** Everything but a refusal of the card counts against the provider; how long it may take is the breaker's to say. */
export function createPaymentProvider(url: string, breaker: CircuitBreaker): PaymentProvider {
  async function call(path: string, init: RequestInit): Promise<Response> {
    try {
      return await fetch(new URL(path, url), init)
    } catch (cause) {
      if (init.signal?.aborted) throw init.signal.reason
      throw new HoldfastError('UPSTREAM_ERROR', 'The payment provider could not be reached', { cause })
    }
  }

  function post(path: string, idempotencyKey: string, body: unknown, signal: AbortSignal) {
    const headers = { 'content-type': 'application/json', 'idempotency-key': idempotencyKey }
    return call(path, { method: 'POST', headers, body: JSON.stringify(body), signal })
  }

  return {
    requireAvailable: () => breaker.requireAvailable(),

    findCharge: (idempotencyKey, signal) =>
      breaker.execute(async (signal) => {
        const response = await call(`/charges?reference=${encodeURIComponent(idempotencyKey)}`, { signal })
        const { data } = await answerOf(response, 'question for a charge', chargeList)
        return data[0]
      }, { signal }),

    charge: ({ idempotencyKey, ...request }, signal) =>
      breaker.execute(async (signal) => {
        const charge = { ...request, reference: idempotencyKey }
        const response = await post('/charges', idempotencyKey, charge, signal)
        if (response.status === 402) {
          const answer = await response.json().catch(() => ({}))
          throw new HoldfastError('PAYMENT_DECLINED', 'The payment was declined', {
            status: 402,
            details: { reason: answer?.error?.code ?? 'declined' },
          })
        }
        return await answerOf(response, 'charge', chargeAnswer)
      }, { signal }),

    refund: ({ idempotencyKey, chargeId }, signal) =>
      breaker.execute(async (signal) => {
        const response = await post('/refunds', idempotencyKey, { chargeId }, signal)
        return await answerOf(response, 'refund', z.object({ id: z.string() }))
      }, { signal }),
  }
}

const chargeAnswer = z.object({ id: z.string(), amountMinor: z.int(), currency: z.string() })
const chargeList = z.object({ data: z.array(chargeAnswer) })

/** What all who pay share. */
export function paymentBreaker(breakers: CircuitBreakers): CircuitBreaker {
  return breakers.get('payments', {
    failureThreshold: 5,
    windowMs: 30_000,
    cooldownMs: 10_000,
    timeoutMs: 5_000,
    maxConcurrent: 50,
    maxQueued: 200,
    isFailure: speaksAgainstProvider,
  })
}

let shared: PaymentProvider | undefined

/** This isolate's provider, at `PAYMENTS_URL`. */
export function paymentProvider(): PaymentProvider {
  if (shared !== undefined) return shared
  const url = Deno.env.get('PAYMENTS_URL')
  if (url === undefined || !URL.canParse(url)) {
    throw new HoldfastError('INTERNAL_ERROR', 'Cannot take payments: PAYMENTS_URL is not set to a URL')
  }
  return shared = createPaymentProvider(url, paymentBreaker(circuitBreakers))
}

async function answerOf<T>(response: Response, what: string, schema: z.ZodType<T>): Promise<T> {
  const text = await response.text()
  const answer = response.ok ? schema.safeParse(json(text)).data : undefined
  if (answer !== undefined) return answer
  throw new HoldfastError(
    'UPSTREAM_ERROR',
    `The payment provider answered a ${what} with ${response.status}`,
    { cause: { status: response.status, text: text.slice(0, 500) } },
  )
}

/** A request that the provider takes for wrong says nothing against it: one customer's must not stop all others'. */
function speaksAgainstProvider(error: unknown): boolean {
  const { status } = ((error as Error | undefined)?.cause ?? {}) as { status?: unknown }
  const isRefusal = typeof status === 'number' && status >= 400 && status < 500 && status !== 408 &&
    status !== 429
  return isFailure(error) && !isRefusal
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

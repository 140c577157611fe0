/** The payment provider, over HTTP. Each call carries an idempotency key, so asking twice charges once. */
import { HoldfastError } from '../_shared/core/errors.ts'

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
  /**
   * Rejects with `PAYMENT_DECLINED` (402), `UPSTREAM_ERROR` when the provider failed, and `UPSTREAM_TIMEOUT` when
   * it did not answer: only then it is not known whether the money moved.
   */
  charge(request: ChargeRequest, signal?: AbortSignal): Promise<Charge>
  refund(request: RefundRequest, signal?: AbortSignal): Promise<{ id: string }>
}

export interface PaymentProviderOptions {
  url: string
  /** Longest wait for an answer. @default 5_000 */
  timeoutMs?: number
}

export function createPaymentProvider({ url, timeoutMs = 5_000 }: PaymentProviderOptions): PaymentProvider {
  async function post(
    path: string,
    idempotencyKey: string,
    body: unknown,
    signal?: AbortSignal,
  ): Promise<Response> {
    const timeout = AbortSignal.timeout(timeoutMs)
    try {
      return await fetch(new URL(path, url), {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'idempotency-key': idempotencyKey },
        body: JSON.stringify(body),
        signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
      })
    } catch (cause) {
      throw timeout.aborted
        ? new HoldfastError(
          'UPSTREAM_TIMEOUT',
          `The payment provider did not answer within ${timeoutMs} ms`,
          { cause },
        )
        : new HoldfastError('UPSTREAM_ERROR', 'The payment provider could not be reached', { cause })
    }
  }

  return {
    async charge({ idempotencyKey, ...request }, signal) {
      const response = await post('/charges', idempotencyKey, request, signal)
      if (response.status === 402) {
        const answer = await response.json().catch(() => ({}))
        throw new HoldfastError('PAYMENT_DECLINED', 'The payment was declined', {
          status: 402,
          details: { reason: answer?.error?.code ?? 'declined' },
        })
      }
      const { id } = await answerOf(response, 'charge')
      return { id, amountMinor: request.amountMinor, currency: request.currency }
    },

    async refund({ idempotencyKey, chargeId }, signal) {
      return await answerOf(await post('/refunds', idempotencyKey, { chargeId }, signal), 'refund')
    },
  }
}

let shared: PaymentProvider | undefined

/** This isolate's provider, at `PAYMENTS_URL`. */
export function paymentProvider(): PaymentProvider {
  if (shared !== undefined) return shared
  const url = Deno.env.get('PAYMENTS_URL')
  if (url === undefined || !URL.canParse(url)) {
    throw new HoldfastError('INTERNAL_ERROR', 'Cannot take payments: PAYMENTS_URL is not set to a URL')
  }
  return shared = createPaymentProvider({ url })
}

async function answerOf(response: Response, what: string): Promise<{ id: string }> {
  const text = await response.text()
  if (response.ok) {
    const answer: unknown = JSON.parse(text)
    if (typeof answer === 'object' && answer !== null && 'id' in answer && typeof answer.id === 'string') {
      return { id: answer.id }
    }
  }
  throw new HoldfastError(
    'UPSTREAM_ERROR',
    `The payment provider answered a ${what} with ${response.status}`,
    {
      cause: text.slice(0, 500),
    },
  )
}

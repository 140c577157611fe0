/** What the payment provider's stand-in knows: charges, refunds, and which key led to what. In memory only. */
import { z } from 'zod'

export const chargeSchema = z.strictObject({
  amountMinor: z.int().positive(),
  currency: z.string().regex(/^[A-Z]{3}$/, 'must be a three-letter code in capitals'),
  token: z.string().min(1),
  reference: z.string().optional(),
})
export const refundSchema = z.strictObject({ chargeId: z.string().min(1) })

export type ChargeRequest = z.infer<typeof chargeSchema>
export type RefundRequest = z.infer<typeof refundSchema>

export interface Charge extends ChargeRequest {
  id: string
  status: 'succeeded'
  createdAt: string
}

export interface Refund {
  id: string
  status: 'succeeded'
  chargeId: string
  amountMinor: number
  currency: string
  createdAt: string
}

/** A status and body that can be sent again, byte for byte. */
export interface Answer {
  status: number
  body: unknown
  replayed?: boolean
}

/** The card that is always refused. */
const declinedToken = 'tok_declined'

export class Ledger {
  readonly #charges = new Map<string, Charge>()
  /** By charge: a charge is refunded once. */
  readonly #refunds = new Map<string, Refund>()
  readonly #keys = new Map<string, { fingerprint: string; answer: Answer }>()

  /** Newest last, each with whether it was refunded; all, or those made under one reference. */
  charges(reference: string | null = null): (Charge & { refunded: boolean })[] {
    return [...this.#charges.values()]
      .filter((charge) => reference === null || charge.reference === reference)
      .map((charge) => ({ ...charge, refunded: this.#refunds.has(charge.id) }))
  }

  /**
   * Does `work` once for each key and gives its answer again afterwards. The same key with another request is 422.
   * Without a key the work is done each time.
   */
  once(key: string | null, request: unknown, work: () => Answer): Answer {
    if (key === null) return work()
    const fingerprint = JSON.stringify(request)
    const known = this.#keys.get(key)
    if (known === undefined) {
      const answer = work()
      this.#keys.set(key, { fingerprint, answer })
      return answer
    }
    if (known.fingerprint === fingerprint) return { ...known.answer, replayed: true }
    return refusal(422, 'idempotency_key_reused', 'This Idempotency-Key was used with another request')
  }

  charge(request: ChargeRequest): Answer {
    if (request.token === declinedToken) return refusal(402, 'card_declined', 'The card was declined')
    const charge: Charge = {
      id: `ch_${crypto.randomUUID()}`,
      status: 'succeeded',
      ...request,
      createdAt: new Date().toISOString(),
    }
    this.#charges.set(charge.id, charge)
    return { status: 201, body: charge }
  }

  refund({ chargeId }: RefundRequest): Answer {
    const charge = this.#charges.get(chargeId)
    if (charge === undefined) return refusal(404, 'charge_not_found', `There is no charge ${chargeId}`)
    const before = this.#refunds.get(chargeId)
    if (before !== undefined) return { status: 200, body: before }
    const refund: Refund = {
      id: `re_${crypto.randomUUID()}`,
      status: 'succeeded',
      chargeId,
      amountMinor: charge.amountMinor,
      currency: charge.currency,
      createdAt: new Date().toISOString(),
    }
    this.#refunds.set(chargeId, refund)
    return { status: 201, body: refund }
  }
}

export function refusal(status: number, code: string, message: string): Answer {
  return { status, body: { error: { code, message } } }
}

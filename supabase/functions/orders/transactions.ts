/** The shop's transactions, and how what they do outside the database is undone. */
import { HoldfastError } from '../_shared/core/errors.ts'
import { db } from '../_shared/db/client.ts'
import type { CompensationHandler } from '../_shared/db/compensations.ts'
import { createTransactionManager } from '../_shared/db/transactionManager.ts'
import { paymentProvider } from './payments.ts'

/** Within this time a charge that was sent has reached the provider's ledger, or never will. */
const settledAfterMs = 60_000

/**
 * Gives back the money of an order that was not written. `effectKey` is the idempotency key the charge was made with.
 * Safe to run twice: the provider refunds a charge once.
 */
const refund: CompensationHandler = async (_args, { effectKey, ageMs, signal }) => {
  const payments = paymentProvider()
  const charge = await payments.findCharge(effectKey, signal)
  if (charge !== undefined) {
    await payments.refund({ chargeId: charge.id, idempotencyKey: `refund-${effectKey}` }, signal)
  } else if (ageMs < settledAfterMs) {
    throw new HoldfastError(
      'UPSTREAM_ERROR',
      `The charge ${effectKey} may still be on its way to the provider`,
    )
  }
}

export const transactions = createTransactionManager(db, { compensations: { refund } })

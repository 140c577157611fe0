/** What an order looks like from outside. */
import { z } from 'zod'

export const placeOrderBody = z.strictObject({
  items: z.array(z.strictObject({
    sku: z.string().min(1).max(64),
    quantity: z.int().min(1).max(1_000),
  })).min(1).max(100),
  currency: z.string().regex(/^[A-Z]{3}$/, 'must be an ISO 4217 code such as EUR').optional(),
  payment: z.strictObject({ token: z.string().min(1).max(255) }),
})

export type PlaceOrder = z.infer<typeof placeOrderBody>

export const order = z.object({
  id: z.uuid(),
  status: z.enum(['paid', 'cancelled']),
  totalMinor: z.int(),
  currency: z.string(),
  items: z.array(z.object({
    sku: z.string(),
    name: z.string(),
    quantity: z.int(),
    unitPriceMinor: z.int(),
  })),
  createdAt: z.iso.datetime({ offset: true }),
  cancelledAt: z.iso.datetime({ offset: true }).nullable(),
})

export type Order = z.infer<typeof order>

export const oneOrder = z.object({ order })

export const orderList = z.object({ orders: z.array(order) })

export const cancelledOrder = z.object({
  order,
  /** `due`: the provider has not confirmed yet; cancelling again asks it again. */
  refund: z.enum(['refunded', 'due']),
})

export const deletedOrder = z.object({
  order: z.object({ id: z.uuid(), deletedAt: z.iso.datetime({ offset: true }) }),
})

export const orderParams = z.object({ id: z.uuid() })

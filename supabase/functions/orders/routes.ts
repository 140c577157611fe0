/** The routes of `orders`: what they take and answer, and which function of the shop does it. */
import { route } from '../_shared/http/api.ts'
import { listQuery } from '../_shared/http/pagination.ts'
import { undoRoute } from '../_shared/http/undoRoute.ts'
import { paymentProvider } from './payments.ts'
import { cancelledOrder, deletedOrder, oneOrder, orderList, orderParams, placeOrderBody } from './schemas.ts'
import { cancelOrder, deleteOrder, findOrder, listOrders, placeOrder } from './shop.ts'
import { transactions } from './transactions.ts'

/** What asks the payment provider is counted together. */
const paying = { name: 'orders', policy: '60/min', by: 'user' } as const

export const routes = [
  route({
    method: 'POST',
    path: '/',
    auth: 'user',
    summary: 'Place and pay an order',
    body: placeOrderBody,
    response: oneOrder,
    status: 201,
    idempotency: 'leased',
    limit: paying,
    errors: ['CONFLICT', 'UPSTREAM_ERROR', 'UPSTREAM_TIMEOUT', 'CIRCUIT_OPEN', 'SERVICE_UNAVAILABLE'],
    handler: (context) => placeOrder(context, paymentProvider(), context.body),
  }),

  route({
    method: 'GET',
    path: '/',
    auth: 'user',
    summary: "The caller's orders, newest first",
    query: listQuery,
    response: orderList,
    paginated: true,
    async handler(context) {
      const { orders, pagination } = await listOrders(context, context.query)
      return { data: { orders }, pagination }
    },
  }),

  route({
    method: 'GET',
    path: '/:id',
    auth: 'user',
    summary: "One of the caller's orders",
    params: orderParams,
    response: oneOrder,
    errors: ['NOT_FOUND'],
    handler: async (context) => ({ data: { order: await findOrder(context, context.params.id) } }),
  }),

  route({
    method: 'POST',
    path: '/:id/cancel',
    auth: 'user',
    summary: 'Cancel an order: the stock is returned once, the payment refunded',
    params: orderParams,
    response: cancelledOrder,
    limit: paying,
    errors: ['NOT_FOUND'],
    handler: async (context) => ({ data: await cancelOrder(context, paymentProvider(), context.params.id) }),
  }),

  route({
    method: 'DELETE',
    path: '/:id',
    auth: 'user',
    summary: "Remove an order from the caller's sight",
    params: orderParams,
    response: deletedOrder,
    errors: ['NOT_FOUND'],
    handler: async (context) => ({ data: { order: await deleteOrder(context, context.params.id) } }),
  }),

  undoRoute(transactions),
]

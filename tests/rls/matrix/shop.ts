/** Schema `public`, which the API serves, `private`, which it does not, and the routes of the edge functions. */
import {
  type Cells,
  each,
  onlyService,
  type RouteRules,
  serviceWrites,
  signedIn,
  type TableRules,
  type Uses,
} from './rules.ts'

const ownOrAdmin: Cells = { ...onlyService, owner: 'own', other: 'own', admin: 'all' }

export const shopTables: Record<string, TableRules> = {
  'public.products': {
    about: 'Anybody reads what is sold; admins also what no longer is. Nobody writes through the API.',
    select: { anon: 'visible', owner: 'visible', other: 'visible', admin: 'all', service_role: 'all' },
    ...serviceWrites,
  },
  'public.orders': {
    about: 'Customers read their own orders, admins all. Orders change by functions of private alone.',
    select: ownOrAdmin,
    ...serviceWrites,
  },
  'public.order_items': {
    about: 'Read by whoever reads their order.',
    select: ownOrAdmin,
    ...serviceWrites,
  },
  'public.payments': {
    about: 'Read by whoever reads their order.',
    select: ownOrAdmin,
    ...serviceWrites,
  },
}

export const shopFunctions: Record<string, Uses> = each(signedIn, [
  'private.order_as_json(uuid)',
  'private.place_order(uuid,jsonb,text,uuid,text,bigint)',
  'private.cancel_order(uuid)',
  'private.record_refund(uuid,text)',
  'private.delete_order(uuid)',
])

const ownResource = { anon: 401, owner: 200, other: 404, admin: 404, service_role: 401 }
const ownList = { anon: 401, owner: 200, other: 200, admin: 200, service_role: 401 }

export const shopRoutes: Record<string, RouteRules> = {
  'POST /orders': {
    about: "Places an order of the caller's own. The secret key is nobody, so it orders nothing.",
    writes: true,
    status: { anon: 401, owner: 201, other: 201, admin: 201, service_role: 401 },
  },
  'GET /orders': { about: "Lists the caller's own orders, an admin's too.", writes: false, status: ownList },
  'GET /orders/:id': { about: "Shows one of the caller's own.", writes: false, status: ownResource },
  'POST /orders/:id/cancel': { about: "Cancels one of the caller's own.", writes: true, status: ownResource },
  'DELETE /orders/:id': { about: "Hides one of the caller's own.", writes: true, status: ownResource },
  'POST /orders/compensations': {
    about: 'The sweep of the database calls it with the secret key; it undoes what is due, if anything is.',
    writes: false,
    status: { anon: 403, owner: 403, other: 403, admin: 403, service_role: 200 },
  },
}

const open = { anon: 200, owner: 200, other: 200, admin: 200, service_role: 200 }

export const healthRoutes: Record<string, RouteRules> = {
  'GET /health': { about: 'Says that the function runs.', writes: false, status: open },
  'GET /health/ready': { about: 'Says whether the database can be reached.', writes: false, status: open },
}

/** The routes of the edge functions: the status each role gets, and whether a row has changed. */
import { localKeys } from '../../../local/keys.ts'
import { callFunction, orderOf } from '../../support/shop.ts'
import type { Sql } from '../../support/sql.ts'
import type { TestStack } from '../../support/stack.ts'
import { type RoleName, roles } from '../matrix.ts'
import { personOf } from './fixture.ts'
import { type Declaration, declared, Report } from './report.ts'
import type { Credentials } from './rest.ts'
import { digestOf, seed } from './rows.ts'

/** What is sent where a route takes a body. */
const bodies: Record<string, unknown> = { 'POST /orders': orderOf({ 'ROPE-10': 1 }) }

export interface RouteRun {
  stack: TestStack
  admin: Sql
  credentials: Credentials
}

/** A route that names a row gets an order that the owner has just placed. */
export async function runRouteMatrix(run: RouteRun, { routes }: Declaration = declared): Promise<Report> {
  const report = new Report()
  const tables = (await seed(run.admin)).filter((name) => name.startsWith('public.'))
  for (const [route, { writes, status }] of Object.entries(routes)) {
    for (const role of roles) {
      const cell = `${route} as ${role}`
      report.ran(cell)
      const orderId = route.includes(':id') ? await placeOrder(run) : undefined
      const before = await digestOf(run.admin, tables)
      const answer = await call(run, route, role, orderId)
      const changed = await digestOf(run.admin, tables) !== before
      if (answer.status !== status[role]) {
        report.fail(cell, `must be ${status[role]}, found ${answer.status} ${JSON.stringify(answer.json)}`)
      }
      if (changed !== (writes && answer.status < 300)) {
        report.fail(cell, `${answer.status} ${changed ? 'has changed rows' : 'has changed no row'}`)
      }
      if (answer.status >= 300 && orderId && JSON.stringify(answer.json).includes('totalMinor')) {
        report.fail(cell, 'the refusal shows the order')
      }
      if (route === 'GET /orders' && answer.status === 200) {
        await expectOwn(run, cell, role, answer.json, report)
      }
    }
  }
  return report
}

async function call({ stack, credentials }: RouteRun, route: string, role: RoleName, orderId?: string) {
  const [method = 'GET', path = '/'] = route.split(' ')
  return await callFunction(stack, path.replace(':id', orderId ?? ''), {
    method,
    headers: credentials[role],
    body: bodies[route],
  })
}

async function placeOrder({ stack, credentials }: RouteRun): Promise<string> {
  const { status, json } = await callFunction(stack, '/orders', {
    method: 'POST',
    headers: { ...credentials.owner, apikey: localKeys.publishable },
    body: bodies['POST /orders'],
  })
  if (status !== 201) throw new Error(`Cannot place the owner's order: ${status} ${JSON.stringify(json)}`)
  return json.data.order.id
}

/** The list is exactly the caller's own, deleted ones left out. */
async function expectOwn(
  { admin }: RouteRun,
  cell: string,
  role: RoleName,
  json: { data: { orders: { id: string }[] } },
  report: Report,
): Promise<void> {
  const rows = await admin`
    select id from public.orders where user_id = ${personOf(role) ?? null} and deleted_at is null order by id`
  const listed = json.data.orders.map(({ id }) => id).sort()
  const own = rows.map(({ id }) => id)
  if (JSON.stringify(listed) !== JSON.stringify(own)) report.fail(cell, `lists ${listed} instead of ${own}`)
}

/** `npm run demo -- audit`: what the trail says of an order that three people had to do with, and what it is worth. */
import type { Sql } from '../../local/postgres/connect.ts'
import { demoClient } from '../../tests/support/client.ts'
import type { Demo, DemoContext } from '../support/demo.ts'
import { openSql } from '../support/sql.ts'
import { openStage, type Stage } from '../support/stage.ts'
import { cancel, correct, mistype, place, price } from './people.ts'
import {
  type Refusal,
  seal,
  sealOf,
  tamperAsOwner,
  tamperAsService,
  tamperAsSuperuser,
  verify,
} from './tampering.ts'
import { type Change, changesWith, countOfRequest, rowHistory, showTrail, whatChanged } from './trail.ts'
import { judge } from './verdicts.ts'

export const demo: Demo = {
  summary: 'who did what to an order, and a superuser who alters the record of it',
  async run(context) {
    const { screen } = context
    const stage = await openStage(context, { isolates: 1 })
    const owner = openSql(context, stage.databaseUrl)
    const superuser = openSql(context, stage.adminUrl)
    await seal(owner)

    screen.title('One order and three people: who did what, and what the record of it is worth', [
      'triggers record every change of the shop, whichever way it takes to the table',
      'each minute what was recorded is sealed by a chain of hashes; audit.verify() reads it all again',
    ])
    const { orderId, answers } = await live(context, stage, owner)
    const history = await showHistory(context, owner, orderId)
    const order = await orderAsItIs(owner, orderId)
    const refusedChanges = await countOfRequest(owner, answers.refused.requestId)
    const attack = await attackTrail(context, owner, superuser, orderId)
    judge(screen, { history, order, answers, refusedChanges, ...attack })
  },
}

async function live({ screen, signal }: DemoContext, stage: Stage, owner: Sql) {
  const [ada, grace, admin] = await Promise.all([
    demoClient(stage, 'ada'),
    demoClient(stage, 'grace'),
    demoClient(stage, 'admin'),
  ])
  const note = (text: string, facts?: object) => {
    signal.throwIfAborted()
    screen.note(text, { ...facts })
  }
  screen.section('The life of an order')
  const { orderId, ...placed } = await place(ada)
  note(`Ada orders a storm lamp by the function orders, for ${euros(price.full)}: ${placed.status}`, placed)
  await mistype(owner, orderId)
  note(`Support takes 10 EUR off for a scratch, by SQL as postgres, and mistypes: ${euros(price.mistyped)}`)
  await correct(owner, admin, orderId)
  note(
    `The admin corrects it in the back office, as service_role and in her own name: ${euros(price.reduced)}`,
  )
  const refused = await cancel(grace, orderId)
  note(`Grace tries to cancel it, although it is not hers: ${refused.status}`, refused)
  const cancelled = await cancel(ada, orderId)
  const refund = cancelled.refund === 'refunded' ? 'made' : 'still due'
  note(`Ada cancels it: ${cancelled.status}, the lamp is back in stock and the refund ${refund}`, cancelled)
  return { orderId, answers: { placed, refused, cancelled } }
}

async function showHistory(
  { screen, signal }: DemoContext,
  owner: Sql,
  orderId: string,
): Promise<Change[]> {
  signal.throwIfAborted()
  const history = await rowHistory(owner, orderId)
  screen.section('What the trail says')
  screen.note(`select * from audit.row_history('public.orders', '${orderId}')`)
  screen.note('beside it, what else came with the same transactions and requests:')
  showTrail(screen, await changesWith(owner, history))
  return history
}

/** Whoever mistyped would rather not have. */
async function attackTrail({ screen, signal }: DemoContext, owner: Sql, superuser: Sql, orderId: string) {
  const find = async (isIt: (change: Change) => boolean) => {
    const change = (await rowHistory(owner, orderId)).find(isIt)
    if (change === undefined) throw new Error('The history of the order lacks what support did to it')
    return change
  }
  screen.section('Somebody would rather not have mistyped')
  await seal(owner)
  const before = await verify(owner)
  const found = before.problem ?? `intact, ${before.changes} changes in ${before.seals} seals`
  screen.note(`audit.seal(), as each minute; audit.verify(): ${found}`, { verified: before })
  const { id } = await find(({ new: values }) => values?.total_minor === price.mistyped)
  screen.note(`Change ${id} has the ${price.mistyped}; it shall say ${price.reduced}`)
  const service = await tamperAsService(owner, id)
  screen.note(`service_role tries: ${said(service)}`, { refusal: service })
  const ownerRefusal = await tamperAsOwner(owner, id)
  screen.note(`postgres, who owns the trail, tries: ${said(ownerRefusal)}`, { refusal: ownerRefusal })
  signal.throwIfAborted()
  const altered = await tamperAsSuperuser(superuser, id)
  const reads = whatChanged(await find((change) => change.id === id)).map(({ text }) => text).join('')
  screen.note(`A superuser, for whom no trigger fires, does it; the history now reads ${reads}`, { altered })
  const startedAt = performance.now()
  const after = await verify(owner)
  const tookMs = performance.now() - startedAt
  screen.note(`audit.verify(): ${after.problem ?? 'intact'}`, { verified: after })
  const covering = await sealOf(owner, id)
  return { before, target: id, service, owner: ownerRefusal, altered, after, tookMs, covering }
}

async function orderAsItIs(sql: Sql, orderId: string): Promise<Record<string, unknown>> {
  const [row] = await sql<{ order: Record<string, unknown> }[]>`
    select to_jsonb(o) as order from public.orders as o where id = ${orderId}`
  return row!.order
}

function said(refusal: Refusal | undefined): string {
  return refusal === undefined ? 'nobody stops it' : `${refusal.code} ${refusal.message}`
}

function euros(minor: number): string {
  return `${(minor / 100).toFixed(2)} EUR`
}

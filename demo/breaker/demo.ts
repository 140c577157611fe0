/** `npm run demo -- breaker`: three isolates of one function and a payment provider that breaks and comes back. */
import { fileURLToPath } from 'node:url'
import type { Demo, DemoContext } from '../support/demo.ts'
import { openSql } from '../support/sql.ts'
import { openStage } from '../support/stage.ts'
import { until } from '../support/until.ts'
import { type Customers, type Seen, startCustomers } from './customers.ts'
import { type BreakerEvent, tellEvents } from './events.ts'
import { providerAt } from './provider.ts'
import { marks, showTimeline } from './timeline.ts'
import { judge } from './verdicts.ts'

const isolates = 3
const names = ['A', 'B', 'C']
/** Between two rounds of customers, one for each isolate. */
const everyMs = 125
const rowMs = 500
/** Half-open periods to be seen before the provider is mended. */
const periods = 2

export const demo: Demo = {
  summary: 'three isolates open, refuse and heal together while a payment provider is broken',
  async run(context) {
    const { screen, resources, signal } = context
    const stage = await openStage(context, {
      functions: fileURLToPath(new URL('.', import.meta.url)),
      isolates,
    })
    const sql = openSql(context, stage.adminUrl)
    const provider = providerAt(stage.paymentsUrl)
    await wake(stage.functionsUrl)

    screen.title('One circuit breaker for all isolates of a function', [
      `${isolates} isolates charge cards through circuitBreakers.get('payments', …).execute(…)`,
      'it opens at 6 failures within 10 s, looks again after 2 s, and is told every second what the others know',
      Object.values(marks).map(({ text, means }) => `${text} ${means}`).join('   '),
    ])
    const customers = startCustomers({ url: `${stage.functionsUrl}/checkout`, isolates, everyMs })
    resources.defer(() => customers.stop())
    const timeline = showTimeline(screen, {
      isolates: names,
      rowMs,
      seen: customers.seen,
      calls: async () => (await provider.calls()).length,
    })
    resources.defer(() => timeline.stop())
    const told = tellEvents(sql, screen)
    resources.defer(() => told.stop())
    const times = await play(context, customers.seen, told.events, provider)
    await customers.stop()
    await told.stop()
    await timeline.stop()
    signal.throwIfAborted()
    judge(screen, {
      ...times,
      seen: customers.seen,
      events: told.events,
      calls: await provider.calls(),
      isolates: names,
    })
  },
}

/** Breaks the provider, waits until it was looked at a few times, and mends it. Gives up on what does not come. */
async function play(
  { screen, signal }: DemoContext,
  seen: Customers['seen'],
  events: readonly BreakerEvent[],
  provider: ReturnType<typeof providerAt>,
): Promise<{ brokenAt: number; backAt: number }> {
  const everybody = (what: (each: Seen) => boolean) =>
    names.every((name) => seen.some((each) => each.isolate === name && what(each)))
  const wait = (condition: () => boolean, withinMs: number) => until(condition, { withinMs, signal })

  const startedAt = Date.now()
  const served = await wait(
    () => Date.now() - startedAt > 1_500 && everybody(({ outcome }) => outcome === 'served'),
    15_000,
  )
  if (!served) {
    throw new Error(`The function does not serve: its last answer has status ${seen.at(-1)?.status}`)
  }
  await provider.behave('fail')
  const brokenAt = Date.now()
  screen.note('The provider breaks: it fails every call from now on')
  const reopened = () => events.filter(({ to }) => to === 'open').length > periods
  await wait(() => everybody(({ outcome }) => outcome === 'refused') && reopened(), 20_000)
  await provider.behave('ok')
  const backAt = Date.now()
  screen.note('The provider is mended; nobody tells the isolates')
  await wait(() => everybody(({ at, outcome }) => at > backAt && outcome === 'served'), 10_000)
  const healedAt = Date.now()
  await wait(() => Date.now() - healedAt > 1_000, 2_000)
  return { brokenAt, backAt }
}

/** Isolates start with their first request; that is not what is shown. */
async function wake(functionsUrl: string): Promise<void> {
  await Promise.all(Array.from({ length: isolates }, async () => {
    const response = await fetch(`${functionsUrl}/checkout`, { method: 'OPTIONS' })
    await response.body?.cancel()
  }))
}

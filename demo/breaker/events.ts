/** What the database records of the breaker, told as it happens. */
import type postgres from 'postgres'
import type { Screen } from '../support/screen.ts'

export interface BreakerEvent {
  to: 'closed' | 'open' | 'half_open'
  reason: string | null
  epoch: number
  /** Milliseconds since 1970. */
  at: number
}

export async function readEvents(sql: postgres.Sql): Promise<BreakerEvent[]> {
  const rows = await sql<{ to: BreakerEvent['to']; reason: string | null; epoch: string; at: Date }[]>`
    select to_state as to, reason, epoch, occurred_at as at
    from holdfast.circuit_breaker_events
    where name = 'payments'
    order by id`
  return rows.map(({ to, reason, epoch, at }) => ({ to, reason, epoch: Number(epoch), at: at.getTime() }))
}

function sentenceOf({ to, reason }: BreakerEvent): string {
  switch (to) {
    case 'open':
      return `the breaker is open for all isolates: ${reason}`
    case 'half_open':
      return 'the cooldown is over, and one isolate has the right to look'
    case 'closed':
      return 'the breaker is closed for all isolates: the provider answered'
  }
}

/** Notes each event on the screen until it is stopped. Keeps what it has seen in `events`. */
export function tellEvents(
  sql: postgres.Sql,
  screen: Screen,
): { events: BreakerEvent[]; stop(): Promise<void> } {
  const events: BreakerEvent[] = []
  let running: Promise<void> | undefined

  async function look(): Promise<void> {
    const found = await readEvents(sql)
    for (const event of found.slice(events.length)) {
      events.push(event)
      screen.note(`Epoch ${event.epoch}: ${sentenceOf(event)}`, { event })
    }
  }

  const timer = setInterval(() => running ??= look().finally(() => running = undefined), 50)
  async function stop(): Promise<void> {
    clearInterval(timer)
    await running
    await look()
  }
  let stopping: Promise<void> | undefined
  return { events, stop: () => stopping ??= stop() }
}

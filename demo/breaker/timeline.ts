/** Half a second in a row: what became of the customers of each isolate, how often the provider was called. */
import type { Style } from '../../local/terminal/output.ts'
import type { Cell, Screen } from '../support/screen.ts'
import type { Outcome, Seen } from './customers.ts'

export const marks: Record<Outcome, { text: string; style: Style; means: string }> = {
  served: { text: 'o', style: 'green', means: 'served' },
  failed: { text: 'x', style: 'red', means: 'the provider failed it' },
  probed: { text: '?', style: 'yellow', means: 'let through to look' },
  refused: { text: '-', style: 'dim', means: 'refused at once' },
}

/** Shows a row for each `rowMs` until it is stopped. */
export function showTimeline(
  screen: Screen,
  options: {
    isolates: readonly string[]
    rowMs: number
    seen: readonly Seen[]
    /** Of the provider, in all. */
    calls(): Promise<number>
  },
): { stop(): Promise<void> } {
  const { isolates, rowMs, seen } = options
  const startedAt = Date.now()
  let shown = seen.length
  let callsShown = 0
  let running: Promise<void> | undefined
  const columns = isolates.map((name) => [`isolate ${name}`, 12])
  screen.columns({ time: 7, ...Object.fromEntries(columns), provider: 10 })

  async function show(): Promise<void> {
    const calls = await options.calls()
    const fresh = seen.slice(shown)
    shown += fresh.length
    const byIsolate = isolates.map((name) => [`isolate ${name}`, cellsOf(fresh, name)])
    const seconds = (Date.now() - startedAt) / 1_000
    const called = calls - callsShown
    callsShown = calls
    screen.row({
      time: [{ text: `${seconds.toFixed(1).padStart(5)} s`, style: 'dim', value: seconds }],
      ...Object.fromEntries(byIsolate),
      provider: [{ text: callsText(called), value: called }],
    })
  }

  const timer = setInterval(() => running ??= show().finally(() => running = undefined), rowMs)
  async function stop(): Promise<void> {
    clearInterval(timer)
    await running
    await show()
  }
  let stopping: Promise<void> | undefined
  return { stop: () => stopping ??= stop() }
}

function callsText(count: number): string {
  if (count === 0) return 'left alone'
  return count === 1 ? '1 call' : `${count} calls`
}

function cellsOf(seen: readonly Seen[], isolate: string): Cell[] {
  return seen.filter((each) => each.isolate === isolate).map(({ outcome }) => ({
    text: marks[outcome].text,
    style: marks[outcome].style,
    value: outcome,
  }))
}

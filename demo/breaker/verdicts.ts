/** What was promised, and whether it was seen. */
import type { Screen } from '../support/screen.ts'
import type { Seen } from './customers.ts'
import type { BreakerEvent } from './events.ts'
import type { ProviderCall } from './provider.ts'

export interface Observed {
  brokenAt: number
  backAt: number
  seen: readonly Seen[]
  events: readonly BreakerEvent[]
  /** By the provider's own log. */
  calls: readonly ProviderCall[]
  isolates: readonly string[]
}

/** As in the function. */
const threshold = 6
const cooldownMs = 2_000
/** What an isolate knows is at most this old. */
const refreshMs = 1_000
/** The trip by which it hears more, on a machine that does other things as well. */
const tripMs = 1_000

export function judge(screen: Screen, observed: Observed): void {
  const { brokenAt, backAt, seen, events, calls, isolates } = observed
  const openedAt = events.find(({ to }) => to === 'open')?.at ?? Infinity
  const first = (what: (each: Seen) => boolean) =>
    isolates.map((name) => seen.find((each) => each.isolate === name && what(each))?.at ?? Infinity)
  screen.section('What was seen')

  const refusedAfterMs = Math.max(...first(({ outcome }) => outcome === 'refused')) - openedAt
  screen.verdict(
    refusedAfterMs <= refreshMs + tripMs,
    `All ${isolates.length} isolates refused ${
      time(refusedAfterMs)
    } after it opened (the bound: the refresh of ${time(refreshMs)} and one trip)`,
    { refusedAfterMs },
  )

  const failures = isolates.map((name) =>
    seen.filter((each) => each.isolate === name && each.outcome === 'failed').length
  )
  screen.verdict(
    openedAt < Infinity && Math.min(...failures) < threshold,
    `Their failures were added up: ${
      isolates.map((name, index) => `${name} ${failures[index]}`).join(', ')
    }; ${threshold} open it`,
    { failures },
  )

  const halfOpen = events.filter(({ to, at }) => to === 'half_open' && at < backAt)
  const probes = calls.filter(({ at, mode }) => mode === 'fail' && at >= openedAt + cooldownMs)
  screen.verdict(
    halfOpen.length > 0 && probes.length === halfOpen.length,
    `The provider was called ${probes.length} times in ${halfOpen.length} half-open periods, by its own log`,
    { probes: probes.length, halfOpenPeriods: halfOpen.length },
  )

  const refusals = seen.filter(({ outcome }) => outcome === 'refused').map(({ ms }) => ms).sort((a, b) =>
    a - b
  )
  const medianMs = refusals[refusals.length >> 1] ?? Infinity
  screen.verdict(
    medianMs < 100,
    `${refusals.length} customers were refused, the median in ${medianMs.toFixed(1)} ms`,
    { refusals: refusals.length, medianMs },
  )

  const healed = first(({ at, outcome }) => at > backAt && outcome !== 'refused').map((at) => at - backAt)
  const [firstMs, lastMs] = [Math.min(...healed), Math.max(...healed)]
  screen.verdict(
    firstMs <= cooldownMs + tripMs && lastMs <= cooldownMs + refreshMs + tripMs,
    `The first isolate served again ${time(firstMs)} after the provider was back, the last ${time(lastMs)} ` +
      `(the bound: the cooldown of ${time(cooldownMs)}; for the others the refresh, too)`,
    { firstMs, lastMs },
  )
  const lasted = time(backAt - brokenAt)
  screen.note(`The provider was broken for ${lasted}; the full story is in holdfast.circuit_breaker_events`)
}

function time(ms: number): string {
  return ms === Infinity || Number.isNaN(ms) ? 'never' : `${(ms / 1_000).toFixed(1)} s`
}

/** What there is to say about a breaker, for people and for health checks. */
import type { BreakerView } from './breakerView.ts'
import type { BreakerState } from '../stores/breakerStore.ts'

export interface BreakerHealth {
  /** Calls flow. */
  healthy: boolean
  state: BreakerState
  forced: 'open' | 'closed' | null
  /** Of the calls within `windowMs`; 0 where there were none. */
  failureRate: number
  successes: number
  failures: number
  /** ISO 8601; null while it is closed. */
  openedAt: string | null
  /** Until a call may look whether the service is back; 0 when it is closed. */
  retryInMs: number
  /** All this in a sentence. */
  message: string
  /** What it says is this isolate's alone: there is no store, it is away, or it was not asked yet. */
  local: boolean
  /** Calls that are running, and waiting for their turn. Undefined without `maxConcurrent`. */
  running?: number
  queued?: number
}

export interface HealthFacts {
  now: number
  isLocal: boolean
  running: number | undefined
  queued: number | undefined
}

export function healthOf(view: BreakerView, { now, isLocal, running, queued }: HealthFacts): BreakerHealth {
  const { machine } = view
  const { successes, failures } = isLocal ? machine.window.sum(now) : view.counts(now)
  const { state, forced } = machine
  const retryInMs = Math.ceil(machine.retryInMs(now))
  return {
    healthy: state === 'closed',
    state,
    forced,
    failureRate: failures === 0 ? 0 : failures / (successes + failures),
    successes,
    failures,
    openedAt: view.openedAt,
    retryInMs,
    message: messageOf(view, retryInMs, failures),
    local: isLocal,
    ...(running === undefined ? {} : { running, queued }),
  }
}

function messageOf({ machine, rules, openedAt }: BreakerView, retryInMs: number, failures: number): string {
  const { state, forced, reason } = machine
  const because = reason === null ? '' : `: ${reason}`
  if (forced !== null) return `Held ${forced} by hand${because}`
  if (state === 'closed') {
    return failures === 0 ? 'Calls flow' : `Calls flow; ${failures} failed within ${rules.windowMs} ms`
  }
  const next = retryInMs > 0 ? `the next probe is due in ${retryInMs} ms` : 'the next call probes'
  return state === 'open'
    ? `Calls are refused since ${openedAt}${because}; ${next}`
    : `Calls are refused since ${openedAt} while probes look whether the service is back`
}

/** Stores of circuit breakers for tests: their time, reports to exchange, and breakers in each state. */
import { expect } from 'vitest'
import type {
  BreakerReport,
  BreakerRules,
  BreakerStatus,
  BreakerStore,
} from '../../supabase/functions/_shared/resilience/stores/breakerStore.ts'

/** A store, and its time: it passes when a test says so. */
export interface BreakersUnderTest {
  store: BreakerStore
  /** A second isolate's view of the same breakers; absent where there is none. */
  other?: BreakerStore
  /** Lets time pass for this breaker: its cooldown, its leases and its window. */
  elapse(name: string, ms: number): Promise<void>
}

export const rules: BreakerRules = {
  failureThreshold: 5,
  consecutiveFailures: null,
  failureRate: null,
  minimumVolume: 10,
  windowMs: 60_000,
  cooldownMs: 120_000,
  halfOpenProbes: 1,
  probeLeaseMs: 60_000,
}

/** What is said of a breaker nobody has heard of, but for its name. */
export const untouched = {
  state: 'closed',
  epoch: 1,
  forced: null,
  reason: null,
  openedAt: null,
  retryInMs: 0,
  successes: 0,
  failures: 0,
  probeToken: null,
}

/** Another breaker at every call. */
export function newName(): string {
  return `breaker-${crypto.randomUUID()}`
}

/** With nothing to say, unless it is given. */
export function report(name: string, given: Partial<BreakerReport> = {}): BreakerReport {
  return { name, rules, epoch: 1, successes: 0, failures: 0, trailingFailures: given.failures ?? 0, ...given }
}

export async function exchange(
  store: BreakerStore,
  name: string,
  given: Partial<BreakerReport> = {},
): Promise<BreakerStatus> {
  const [status] = await store.exchange([report(name, given)])
  return status!
}

/** Opens a new breaker by failures and returns its name; its epoch is 2. */
export async function openBreaker(store: BreakerStore, given: Partial<BreakerRules> = {}): Promise<string> {
  const name = newName()
  const opened = await exchange(store, name, { failures: 5, rules: { ...rules, ...given } })
  expect(opened).toMatchObject({ state: 'open', epoch: 2 })
  return name
}

/** Opens a new breaker, lets its cooldown pass and takes the right to probe; its epoch is 3. */
export async function probedBreaker(
  { store, elapse }: BreakersUnderTest,
  given: Partial<BreakerRules> = {},
): Promise<{ name: string; token: number }> {
  const name = await openBreaker(store, given)
  await elapse(name, rules.cooldownMs)
  const status = await exchange(store, name, { wantsProbe: true, rules: { ...rules, ...given } })
  expect(status).toMatchObject({ state: 'half_open', epoch: 3, probeToken: expect.any(Number) })
  return { name, token: status.probeToken! }
}

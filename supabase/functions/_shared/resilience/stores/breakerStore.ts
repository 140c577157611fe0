/** Where the isolates of all functions keep what they know together about a dependency. */

export type BreakerState = 'closed' | 'open' | 'half_open'

/** When a breaker trips and heals. A rule that is null is not used; of the others, the first that is reached trips it. */
export interface BreakerRules {
  /** Failures within `windowMs`. */
  failureThreshold: number | null
  /** Failures with no success in between. */
  consecutiveFailures: number | null
  /** Failures for each call within `windowMs`, in (0, 1], once there are `minimumVolume` calls. */
  failureRate: number | null
  minimumVolume: number
  windowMs: number
  /** How long an open breaker refuses before somebody may probe. */
  cooldownMs: number
  /** Probes that must succeed, and that may be under way at once. */
  halfOpenProbes: number
  /** How long a probe may stay unreported before its place is free again. */
  probeLeaseMs: number
}

/** What one isolate has to say about one breaker. */
export interface BreakerReport {
  name: string
  rules: BreakerRules
  /** The epoch in which these calls began. Counts of another epoch count for nothing. 0: none is known yet. */
  epoch: number
  /** Calls since the last report. */
  successes: number
  failures: number
  /** Failures after the last success among them; all of them where there was no success. */
  trailingFailures: number
  /** Asks for the right to probe. */
  wantsProbe?: boolean
  /** What became of a right that was granted. A token that is no longer valid changes nothing. */
  probe?: { token: number; outcome: 'succeeded' | 'failed' | 'abandoned' }
}

/** What all isolates together know about one breaker. */
export interface BreakerStatus {
  name: string
  state: BreakerState
  /** Grows with each transition, also by hand. At least 1. */
  epoch: number
  /** Held so by hand, until it is forced otherwise or reset. */
  forced: 'open' | 'closed' | null
  /** Why it is open, or forced. */
  reason: string | null
  /** ISO 8601, by the store's clock. */
  openedAt: string | null
  /** Until a probe may be asked for: the rest of the cooldown, or of a probe's lease; 0 when it is closed. */
  retryInMs: number
  /** Of all isolates within `windowMs`. */
  successes: number
  failures: number
  /** Granted to this report: the right to make one probe. */
  probeToken: number | null
}

export interface BreakerStore {
  /**
   * Takes what the reports say and answers with the state after it, in their order. One trip; atomic for each breaker,
   * not for all of them together. Reports that were taken although the answer was lost may be counted twice when they
   * are sent again.
   */
  exchange(reports: BreakerReport[]): Promise<BreakerStatus[]>
  /** Holds it open or closed; null: closed, by its rules again, what was counted forgotten. Always a new epoch. */
  force(
    name: string,
    to: 'open' | 'closed' | null,
    reason: string,
    rules: BreakerRules,
  ): Promise<BreakerStatus>
  close(): Promise<void>
}

/**
 * The wrapper around work that succeeds at once, beside p-retry and cockatiel: what every call pays so that a few can
 * be repeated. Each with a policy that means the same: three attempts, from 100 ms on, doubled, with jitter; made once
 * where the package can do that, as its own documentation has it. Only ours have a budget, and reject as soon as the
 * signal is aborted, whatever the work does.
 */
import { ExponentialBackoff, handleAll, retry as cockatielRetry } from 'cockatiel'
import pRetry from 'p-retry'
import { createRetry, retry } from '../../supabase/functions/_shared/resilience/retry.ts'
import { RetryBudget } from '../../supabase/functions/_shared/resilience/retryBudget.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'

const name = 'immediate success'
const rounds = 40
const callsPerRound = 20_000

/** A policy that is made once, and options that are given with each call, which is all that p-retry has. */
const comparisons = [['createRetry', 'p-retry'], ['createRetry', 'cockatiel'], ['retry', 'p-retry']] as const

type Subjects = Record<string, () => Promise<unknown>>

export const immediateSuccess: Measure = {
  name,
  async run(bench) {
    await compare(bench, name, plain())
    await compare(bench, `${name}, with a signal and a budget`, withSignal())
  },
}

const work = () => Promise.resolve(1)

function plain(): Subjects {
  const policy = createRetry({ attempts: 3, initialDelayMs: 100 })
  const peer = cockatielRetry(handleAll, {
    maxAttempts: 2,
    backoff: new ExponentialBackoff({ initialDelay: 100 }),
  })
  return {
    createRetry: () => policy(work),
    retry: () => retry(work, { attempts: 3, initialDelayMs: 100 }),
    'p-retry': () => pRetry(work, { retries: 2, minTimeout: 100, randomize: true }),
    cockatiel: () => peer.execute(work),
    'no wrapper': work,
  }
}

function withSignal(): Subjects {
  const { signal } = new AbortController()
  const budget = new RetryBudget()
  const policy = createRetry({ attempts: 3, initialDelayMs: 100, budget })
  const peer = cockatielRetry(handleAll, {
    maxAttempts: 2,
    backoff: new ExponentialBackoff({ initialDelay: 100 }),
  })
  return {
    createRetry: () => policy(work, { signal }),
    retry: () => retry(work, { attempts: 3, initialDelayMs: 100, budget, signal }),
    'p-retry': () => pRetry(work, { retries: 2, minTimeout: 100, randomize: true, signal }),
    cockatiel: () => peer.execute(work, signal),
    'no wrapper': work,
  }
}

async function compare({ report, signal }: Bench, measure: string, subjects: Subjects): Promise<void> {
  const names = Object.keys(subjects)
  const nanoseconds = (subject: string) => nanosecondsPerCall(subjects[subject]!, signal)
  // The first rounds are the compiler's.
  await interleaved(names, 5, nanoseconds)
  const results = await interleaved(names, rounds, nanoseconds)
  const found = (subject: string) => median(results.get(subject)!)

  for (const subject of names) report.figure({ measure, subject, value: found(subject), unit: 'ns' })
  for (const [ours, against] of comparisons) {
    const ratio = found(ours) / found(against)
    report.verdict({ measure: `${measure}, ${ours}`, against, ratio, aim: '<=1' })
  }
}

async function nanosecondsPerCall(call: () => Promise<unknown>, signal: AbortSignal): Promise<number> {
  signal.throwIfAborted()
  const startedAt = performance.now()
  for (let calls = 0; calls < callsPerRound; calls++) await call()
  return (performance.now() - startedAt) * 1e6 / callsPerRound
}

/** A store of rate limits that isolates share, as far away as a test wants it. */
import { HoldfastError } from '../../supabase/functions/_shared/core/errors.ts'
import type { Logger } from '../../supabase/functions/_shared/observability/logger.ts'
import {
  createRateLimiter,
  type RateLimiter,
  type RateLimiterOptions,
} from '../../supabase/functions/_shared/resilience/rateLimit.ts'
import { MemoryRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/memoryRateLimits.ts'
import type {
  RateLimitQuestion,
  RateLimitStore,
} from '../../supabase/functions/_shared/resilience/stores/rateLimitStore.ts'
import type { Timers } from '../../supabase/functions/_shared/resilience/timers.ts'
import { FakeTimers } from './fakeTimers.ts'

export class RemoteRateLimits implements RateLimitStore {
  /** Every question, in the order in which they came. */
  readonly asked: RateLimitQuestion[] = []
  /** `away`: refuses at once. `silent`: never answers. An error: fails with it. */
  state: 'here' | 'away' | 'silent' | Error = 'here'
  readonly #memory: MemoryRateLimitStore

  constructor(timers: Timers) {
    this.#memory = new MemoryRateLimitStore({ timers })
  }

  /** Questions since the last look. */
  get trips(): number {
    return this.asked.splice(0).length
  }

  async decide(questions: RateLimitQuestion[]) {
    this.asked.push(...questions)
    await this.#arrive()
    return await this.#memory.decide(questions)
  }

  async penalize(question: RateLimitQuestion) {
    this.asked.push(question)
    await this.#arrive()
    return await this.#memory.penalize(question)
  }

  async block(key: string, ms: number) {
    await this.#arrive()
    await this.#memory.block(key, ms)
  }

  async reset(key: string) {
    await this.#arrive()
    await this.#memory.reset(key)
  }

  close() {
    return this.#memory.close()
  }

  async #arrive(): Promise<void> {
    await undefined
    const { state } = this
    if (state === 'away') throw new HoldfastError('SERVICE_UNAVAILABLE', 'Cannot reach the store: it is away')
    if (state === 'silent') await new Promise<never>(() => {})
    if (state instanceof Error) throw state
  }
}

export interface LogLine {
  level: 'info' | 'warn' | 'error'
  message: string
}

export interface LimitedFleet {
  timers: FakeTimers
  store: RemoteRateLimits
  /** What the isolates have logged. */
  lines: LogLine[]
  /** Another isolate's limiter, with the same name and policy unless something else is said. */
  isolate(options?: Partial<RateLimiterOptions>): RateLimiter
}

/** Isolates that limit together, at the time of one fake clock. */
export function limitedFleet(common: Partial<RateLimiterOptions> = {}): LimitedFleet {
  const timers = new FakeTimers()
  const store = new RemoteRateLimits(timers)
  const lines: LogLine[] = []
  const line = (level: LogLine['level']): Logger[LogLine['level']] => (message) =>
    lines.push({ level, message })
  const log = { info: line('info'), warn: line('warn'), error: line('error') }
  return {
    timers,
    store,
    lines,
    // Each isolate knows of an outage by itself.
    isolate: (options) =>
      createRateLimiter({
        name: 'calls',
        policy: '10/min',
        store: () => Promise.resolve(store),
        log,
        timers,
        ...common,
        ...options,
      }),
  }
}

/** So many calls, one after another. */
export async function allowed(limiter: RateLimiter, key: string, calls: number): Promise<number> {
  let count = 0
  for (let call = 0; call < calls; call++) {
    if ((await limiter.consume(key)).allowed) count++
  }
  return count
}

/** Circuit breakers in the memory of one process: the suite that every store passes. */
import { describe } from 'vitest'
import { MemoryBreakerStore } from '../../../supabase/functions/_shared/resilience/stores/memoryBreakers.ts'
import { describeBreakerStore } from '../../support/breakerStore.ts'

describe('MemoryBreakerStore', () => {
  describeBreakerStore(() => {
    const startedAt = Date.now()
    let time = 0
    return {
      store: new MemoryBreakerStore({ timers: { now: () => time }, now: () => startedAt + time }),
      elapse: (_, ms) => Promise.resolve(void (time += ms)),
    }
  })
})

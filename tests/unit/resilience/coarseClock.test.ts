/** resilience/coarseClock.ts: how far behind it may be. */
import { describe, expect, test } from 'vitest'
import { coarseClock } from '../../../supabase/functions/_shared/resilience/coarseClock.ts'
import { systemTimers } from '../../../supabase/functions/_shared/resilience/timers.ts'
import { FakeTimers } from '../../support/fakeTimers.ts'

describe('coarseClock()', () => {
  test('is behind by 64 looks at most in a turn that does not end', () => {
    const clock = coarseClock(systemTimers)
    const began = clock()
    while (performance.now() < began + 5);
    const seen = Array.from({ length: 65 }, clock)
    expect(seen.at(-1)).toBeGreaterThanOrEqual(began + 5)
    expect(seen.at(-1)).toBeLessThanOrEqual(performance.now())
  })

  test('is set right once the turn has ended', async () => {
    const clock = coarseClock(systemTimers)
    const began = clock()
    await expect.poll(() => {
      const now = performance.now()
      return now > began + 5 && clock() > now - 5
    }).toBe(true)
  })

  test('is never ahead, and never goes back', () => {
    const clock = coarseClock(systemTimers)
    let last = 0
    for (let look = 0; look < 10_000; look++) {
      const now = clock()
      expect(now).toBeGreaterThanOrEqual(last)
      expect(now).toBeLessThanOrEqual(performance.now())
      last = now
    }
  })

  test('asks the timers of a test each time', () => {
    const timers = new FakeTimers()
    const clock = coarseClock(timers)
    const began = clock()
    timers.jump(1)
    expect(clock()).toBe(began + 1)
    expect(timers.pending).toBe(0)
  })
})

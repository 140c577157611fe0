/** A clock for what is asked very often: reading the system's takes longer than all else that a hit does. */
import { systemTimers, type Timers } from './timers.ts'

/** A busy turn of the event loop cannot let it stand for longer than this many looks. */
const looksPerReading = 64

/**
 * As `timers.now()`, behind by a millisecond, or by 64 looks in a turn that lasts longer. Timers that a test has put in
 * place are asked each time.
 */
export function coarseClock(timers: Timers): () => number {
  if (timers !== systemTimers) return () => timers.now()
  let reading = 0
  let looksLeft = 0
  let expiring = false
  const expire = () => {
    expiring = false
    looksLeft = 0
  }
  return () => {
    if (looksLeft-- > 0) return reading
    looksLeft = looksPerReading
    if (!expiring) {
      expiring = true
      timers.set(expire, 1)
    }
    return reading = timers.now()
  }
}

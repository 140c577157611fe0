/**
 * A process that moves money until it is told to stop, or killed. Its task comes as JSON in the first argument; the end
 * of its standard input is the sign to finish what is under way and leave, so it never outlives its test.
 */
import { z } from 'zod'
import { skewClock } from './skewedClock.ts'

const task = z.object({
  url: z.string(),
  logFile: z.string(),
  seed: z.int(),
  workers: z.int(),
  accounts: z.int(),
  timeoutMs: z.int(),
  clockSkewMs: z.int(),
}).parse(JSON.parse(Deno.args[0] ?? ''))

export type BankTask = typeof task

if (task.clockSkewMs !== 0) skewClock(task.clockSkewMs)
// Only now: whatever looks at the clock while it loads finds it wrong already.
const { moveMoney } = await import('./bankWork.ts')

const stopping = new AbortController()
const working = moveMoney(task, stopping.signal)
for await (const _ of Deno.stdin.readable);
stopping.abort()
await working

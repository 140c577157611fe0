/**
 * A process that hammers one key of a limit until its standard input ends. Its task comes as JSON in the first argument.
 * It says `ready`, begins at the first byte it reads, and says in lines of JSON how many calls it has made and how many
 * of them were admitted.
 */
import { z } from 'zod'
import { skewClock } from './skewedClock.ts'

const task = z.object({
  store: z.enum(['postgres', 'redis']),
  url: z.string(),
  algorithm: z.enum(['gcra', 'fixed', 'sliding']),
  key: z.string(),
  lease: z.object({ tokens: z.int(), maxAgeMs: z.int() }).optional(),
  workers: z.int(),
  clockSkewMs: z.int(),
}).parse(JSON.parse(Deno.args[0] ?? ''))

export type LimitTask = typeof task

if (task.clockSkewMs !== 0) skewClock(task.clockSkewMs)
// Only now: whatever looks at the clock while it loads finds it wrong already.
const { openLimit } = await import('./limitWork.ts')

const limit = await openLimit(task)
say('ready')
const stopping = new AbortController()
let working: Promise<void> | undefined
for await (const _ of Deno.stdin.readable) working ??= limit.hammer(say, stopping.signal)
stopping.abort()
await working
await limit.close()

function say(what: unknown): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${JSON.stringify(what)}\n`))
}

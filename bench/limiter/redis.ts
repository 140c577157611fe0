/**
 * Decisions in a second over Redis, 16 at a time on one connection, beside the bare script: the same `EVALSHA` with the
 * same arguments for each decision, and nobody reads its answer.
 */
import { Redis } from 'ioredis'
import { decideScript } from '../../supabase/functions/_shared/resilience/stores/redisRateLimits.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { openFlexibleRedis } from './flexible.ts'
import { hammer } from './hammer.ts'
import { openHoldfastRedis } from './holdfast.ts'
import { startRedis } from './redisServer.ts'
import { keysOf, lanes, quota, type Subject, touchAll, windowSeconds } from './subject.ts'

const name = 'redis'
const rounds = 7
const seconds = 0.5

export const redis: Measure = {
  name,
  async run(bench) {
    const url = await startRedis(bench)
    if (url === undefined) return bench.progress.step('redis-server is not installed: no figures of Redis')
    const subjects: Record<string, Subject> = {
      holdfast: openHoldfastRedis(url),
      EVALSHA: await openScript(url, { autoPipelining: false }),
      'EVALSHA, pipelined': await openScript(url, { autoPipelining: true }),
      'rate-limiter-flexible': openFlexibleRedis(url),
    }
    for (const subject of Object.values(subjects)) {
      bench.resources.adopt(subject, (subject) => subject.close())
      await touchAll(subject)
    }
    for (const keys of ['hot key', '10,000 keys'] as const) await compare(bench, subjects, keys)
  },
}

async function compare(
  { report, signal }: Bench,
  subjects: Record<string, Subject>,
  keys: keyof typeof keysOf,
): Promise<void> {
  const perSecond = async (subject: string) => {
    const hammered = await hammer(subjects[subject]!, { keys, lanes, seconds, signal })
    return hammered.decisions / hammered.seconds
  }
  const names = Object.keys(subjects)
  for (const subject of names) await perSecond(subject)
  const results = await interleaved(names, rounds, perSecond)
  const speed = (subject: string) => median(results.get(subject)!)
  const measure = `${name}, ${keys}`
  for (const subject of names) report.figure({ measure, subject, value: speed(subject), unit: '1/s' })
  for (const against of ['EVALSHA', 'EVALSHA, pipelined']) {
    report.verdict({ measure, against, ratio: speed('holdfast') / speed(against), aim: '>=0.95' })
  }
}

/** Cost, calls, not forced, no block, one window: gcra, the microseconds of a token, tokens. */
const numbers = [1, 1, 0, 0, 1, 0, windowSeconds * 1e6 / quota, quota].map(String)

/** With the client's automatic pipelines, commands of one turn of the event loop leave in one piece. */
async function openScript(url: string, { autoPipelining }: { autoPipelining: boolean }): Promise<Subject> {
  const client = new Redis(url, { enableAutoPipelining: autoPipelining })
  const sha = await client.script('LOAD', decideScript) as string
  const prefix = autoPipelining ? 'pipelined:' : 'script:'
  return {
    consume: (key) => client.evalsha(sha, 1, prefix + key, ...numbers),
    close: () => Promise.resolve(client.disconnect()),
  }
}

/** Redis is killed and comes back empty after five seconds, while the routes whose limits it keeps are used. */
import { beforeAll, describe, expect, test } from 'vitest'
import { startGuardedBehindProxy } from '../fixtures/guardsProject.ts'
import { closeAfterFile } from '../support/leftovers.ts'
import { startRedis } from '../support/redis.ts'
import { blowOver, type Outage, storeOf } from './support/outage.ts'

const isolates = 2
// Started here, since whether there is one decides what is described.
const redis = await startRedis()
if (redis !== undefined) closeAfterFile({ name: 'Redis', close: redis.stop })

describe.skipIf(redis === undefined)(
  'a Redis that is killed (skipped where it is not installed, nor can it be)',
  () => {
    let guarded: Awaited<ReturnType<typeof startGuardedBehindProxy>>
    let outage: Outage

    beforeAll(async () => {
      guarded = await startGuardedBehindProxy({
        isolates,
        env: { RATE_LIMIT_STORE: 'redis', REDIS_URL: redis!.url },
      })
      outage = await blowOver(guarded, {
        leave: () => redis!.stop(),
        return: () => redis!.start(),
        routes: ['GET /limited', 'POST /limited/pay'],
      })
    }, 45_000)

    test('costs no request', () => {
      expect(outage.failed()).toEqual([])
      expect(outage.during.length).toBeGreaterThan(100)
    })

    test('is announced in the answers of limited routes', () => {
      expect(new Set(outage.before.map(storeOf))).toEqual(new Set([null]))
      const announced = outage.during.filter((answer) => storeOf(answer) === 'local')
      expect(announced.length).toBeGreaterThan(outage.during.length / 2)
    })

    test('is said once by each isolate', () => {
      const said = guarded.host.log.filter(({ text }) =>
        /"level":"warn".*store of rate limits is away/.test(text)
      )
      expect(said).toHaveLength(isolates)
      expect(new Set(said.map(({ isolate }) => isolate)).size).toBe(isolates)
    })

    test('is over by itself when it is back, in the isolates that were there before', () => {
      expect(new Set(outage.after.map(storeOf))).toEqual(new Set([null]))
      const isolatesOf = (answers: Outage['after']) => new Set(answers.map(({ isolate }) => isolate))
      expect(isolatesOf(outage.after)).toEqual(isolatesOf(outage.before))
    })

    test('limits clients again, who begin anew', async () => {
      const headers = { 'x-client': 'one' }
      const answers = await Promise.all(
        Array.from({ length: 50 }, () => guarded.call('/limited', { headers })),
      )
      expect(answers.filter(({ status }) => status === 200)).toHaveLength(40)
      expect(answers.filter(({ status }) => status === 429)).toHaveLength(10)
    })
  },
)

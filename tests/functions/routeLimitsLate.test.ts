/** A limit and a claim that travel together, where one of them is late or fails: the other is not to suffer. */
import { beforeAll, describe, expect, test } from 'vitest'
import { startLimitsBehindProxy } from '../fixtures/limitsProject.ts'
import { waitFor } from '../support/wait.ts'

let limits: Awaited<ReturnType<typeof startLimitsBehindProxy>>

beforeAll(async () => {
  limits = await startLimitsBehindProxy()
})

const answer = { what: 'answer' }

describe('a leased route whose database hangs', () => {
  test('and that refuses meanwhile gives the key back when its claim arrives after all', async () => {
    const client = crypto.randomUUID()
    const key = crypto.randomUUID()
    await limits.call('/limited/leased/hasty', { client, body: answer })
    limits.proxy.freeze()
    const refused = await limits.call('/limited/leased/hasty', { client, key, body: answer })
    expect([refused.status, refused.json.error.details]).toEqual([503, { policies: ['leased-hasty'] }])
    limits.proxy.thaw()
    const again = await waitFor(async () => {
      const answered = await limits.call('/limited/leased/hasty', { client, key, body: answer })
      return answered.status === 503 ? undefined : answered
    }, { what: 'the limit to be shared again', everyMs: 200 })
    expect([again.status, await limits.runs(client)]).toEqual([200, 2])
  })
})

describe('a leased route whose limit fails', () => {
  test('goes on as onUnavailable says, and claims its key by itself', async () => {
    const client = crypto.randomUUID()
    await limits.admin`alter table holdfast.rate_limits rename to rate_limits_gone`
    try {
      const { status, headers } = await limits.call('/limited/leased/busy', { client, body: answer })
      expect([status, headers.get('ratelimit-store')]).toEqual([200, 'local'])
      expect(await limits.runs(client)).toBe(1)
    } finally {
      await limits.admin`alter table holdfast.rate_limits_gone rename to rate_limits`
    }
  })
})

/** What becomes of a key when something dies on the way: the isolate, the connection, the database, the client. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startThingsBehindProxy } from '../fixtures/idempotencyProject.ts'
import { waitFor } from '../support/wait.ts'

let things: Awaited<ReturnType<typeof startThingsBehindProxy>>

beforeAll(async () => {
  things = await startThingsBehindProxy({ isolates: 1 })
})

beforeEach(() => things.proxy.refuse(false))

const modes = ['atomic', 'leased'] as const

let named = 0
const newName = () => `thing ${++named}`
const newKey = () => crypto.randomUUID()

/** Breaks whatever connection there is, and those to come until `refuse(false)`. */
function takeDatabaseAway(): void {
  things.proxy.refuse(true)
  things.proxy.cut()
}

/** What the table knows of the one lease that stands for this handler's thing. */
async function leaseOf(effectOf: string) {
  const [row] = await things.admin`
    select k.status, extract(epoch from k.leased_until - clock_timestamp()) as seconds
    from holdfast.idempotency_keys k join public.effects e on e.effect_id = k.effect_id
    where e.name = ${effectOf}`
  return row as { status: number | null; seconds: string } | undefined
}

/** Time passes for the leases in the table. */
async function endLeases(): Promise<void> {
  await things.admin`
    update holdfast.idempotency_keys set leased_until = clock_timestamp() where leased_until is not null`
}

describe('an isolate that dies in the handler', () => {
  test('IK8: leaves nothing in atomic mode: the next request runs afresh, at once', async () => {
    const name = newName()
    const key = newKey()
    const before = await things.keys()
    await things.mishaps(name, 'exit')
    expect((await things.post('/atomic', { name }, { key })).status).toBeGreaterThanOrEqual(500)
    expect([await things.made(name), await things.keys()]).toEqual([
      { runs: 1, things: 0, effects: 0 },
      before,
    ])
    const second = await things.post('/atomic', { name }, { key })
    expect([second.status, second.replayed]).toEqual([201, false])
    expect(await things.made(name)).toEqual({ runs: 2, things: 1, effects: 0 })
  })

  test('IK8: holds the key of a leased route for the time of the route, not of the answer', async () => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'exit')
    expect((await things.post('/leased/brief', { name }, { key })).status).toBeGreaterThanOrEqual(500)
    const lease = await leaseOf(name)
    expect(lease!.status).toBeNull()
    expect(Number(lease!.seconds)).toBeGreaterThan(30)
    expect(Number(lease!.seconds)).toBeLessThanOrEqual(40)
    const meanwhile = await things.post('/leased/brief', { name }, { key })
    expect([meanwhile.status, meanwhile.json.error.code]).toEqual([409, 'IDEMPOTENCY_KEY_IN_USE'])
    expect(await things.made(name)).toMatchObject({ runs: 1 })
  })

  test('IK8: is known to the handler that takes over: resumed, with the same effect', async () => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'exit')
    await things.post('/leased', { name }, { key })
    await endLeases()
    const second = await things.post('/leased', { name }, { key })
    expect([second.status, second.replayed]).toEqual([201, false])
    expect(second.json.data).toMatchObject({ resumed: true, attempt: 2 })
    expect(await things.made(name)).toEqual({ runs: 2, things: 1, effects: 1 })
    expect((await things.post('/leased', { name }, { key })).text).toBe(second.text)
  })
})

describe('a handler that outlives its lease', () => {
  test.each([
    ['/leased', 1],
    ['/completed', 0],
    ['/completed/statement', 0],
  ])('IK8: stores no answer, and commits nothing that should commit with one: %s', async (path, made) => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'wait')
    await things.gate(async (gate) => {
      const first = things.post(path, { name }, { key })
      await gate.arrived()
      // As another attempt takes it over.
      await things.admin`
        update holdfast.idempotency_keys
        set lease_token = nextval('holdfast.idempotency_lease_tokens'), attempt = attempt + 1
        where status is null`
      await gate.open()
      const { status, json, headers } = await first
      expect([status, json.error.code]).toEqual([409, 'IDEMPOTENCY_KEY_IN_USE'])
      expect(headers.has('retry-after')).toBe(true)
    })
    expect((await things.made(name)).things).toBe(made)
    await endLeases()
    const second = await things.post(path, { name }, { key })
    expect([second.status, second.replayed]).toEqual([201, false])
  })
})

describe('a failure of the handler', () => {
  test('IK8: frees the key of a leased route at once, and the next attempt is resumed', async () => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'fail')
    expect((await things.post('/leased', { name }, { key })).status).toBe(500)
    const second = await things.post('/leased', { name }, { key })
    expect(second.json.data).toMatchObject({ resumed: true, attempt: 2 })
    expect(await things.made(name)).toEqual({ runs: 2, things: 1, effects: 1 })
  })
})

describe('a route whose time is up', () => {
  test.each(modes)('answers 504, makes nothing, and frees the key: %s', async (mode) => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'wait for the signal')
    const first = await things.post(`/${mode}/hasty`, { name }, { key })
    expect([first.status, first.json.error.code]).toEqual([504, 'UPSTREAM_TIMEOUT'])
    expect((await things.made(name)).things).toBe(0)
    expect((await things.post(`/${mode}/hasty`, { name }, { key })).status).toBe(201)
  })
})

describe('a client that leaves while the handler runs', () => {
  test.each(modes)('finds the answer when it comes back: %s', async (mode) => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'wait')
    const leave = new AbortController()
    await things.gate(async (gate) => {
      const first = things.post(`/${mode}`, { name }, { key, signal: leave.signal })
      await gate.arrived()
      leave.abort()
      await expect(first).rejects.toThrow()
    })
    const second = await things.post(`/${mode}`, { name }, { key })
    expect(second.status).toBe(201)
    expect((await things.made(name)).things).toBe(1)
  })

  test.each(modes)('frees the key where the handler stops with it: %s', async (mode) => {
    const name = newName()
    const key = newKey()
    await things.mishaps(name, 'wait for the signal')
    const leave = new AbortController()
    const first = things.post(`/${mode}`, { name }, { key, signal: leave.signal })
    await waitFor(async () => (await things.made(name)).runs === 1, { what: 'the handler to run' })
    leave.abort()
    await expect(first).rejects.toThrow()
    const second = await things.post(`/${mode}`, { name }, { key })
    expect([second.status, (await things.made(name)).things]).toEqual([201, 1])
  })
})

describe('a connection that breaks', () => {
  test('before the commit leaves nothing in atomic mode', async () => {
    const name = newName()
    const key = newKey()
    const before = await things.keys()
    await things.mishaps(name, 'wait')
    await things.gate(async (gate) => {
      const first = things.post('/atomic', { name }, { key })
      await gate.arrived()
      things.proxy.cut()
      const { status, headers } = await first
      expect([status, headers.has('retry-after')]).toEqual([503, true])
    })
    expect([(await things.made(name)).things, await things.keys()]).toEqual([0, before])
    expect((await things.post('/atomic', { name }, { key })).status).toBe(201)
    expect((await things.made(name)).things).toBe(1)
  })

  test.each(['/atomic', '/statement', '/completed', '/completed/statement'])(
    'with the answer to the commit is made good by the next request: %s',
    async (path) => {
      const name = newName()
      const key = newKey()
      await things.post(path, { name: newName() })
      const lost = things.proxy.loseAnswer('commit')
      const first = await things.post(path, { name }, { key })
      await lost
      const second = await things.post(path, { name }, { key })
      expect(second.status).toBe(201)
      expect((await things.made(name)).things).toBe(1)
      if (first.status === 201) expect(second.text).toBe(first.text)
      else expect(first.status).toBe(503)
    },
  )
})

describe('while the store is away', () => {
  test.each(modes)('a request is refused with 503 and Retry-After, and nothing runs: %s', async (mode) => {
    const name = newName()
    takeDatabaseAway()
    const { status, json, headers } = await things.post(`/${mode}`, { name })
    expect([status, json.error.code]).toEqual([503, 'SERVICE_UNAVAILABLE'])
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
    expect(await things.made(name)).toEqual({ runs: 0, things: 0, effects: 0 })
  })
})

describe('round trips', () => {
  const tripsOf = async (path: string, key: string | undefined, name = newName()) => {
    const { value, counts } = await things.proxy.measure(() => things.post(path, { name }, { key }))
    expect(value.status).toBe(201)
    return counts.roundTrips
  }

  test('a protected POST of one statement takes one, as an unprotected one', async () => {
    await things.post('/statement', { name: newName() })
    expect(await tripsOf('/statement', newKey())).toBe(1)
    expect(await tripsOf('/statement/optional', undefined)).toBe(1)
  })

  test('a protected POST takes at most one more than an unprotected one', async () => {
    await things.post('/atomic/optional', { name: newName() })
    const without = await tripsOf('/atomic/optional', undefined)
    expect(await tripsOf('/atomic/optional', newKey())).toBeLessThanOrEqual(without + 1)
  })

  test('a replay takes one', async () => {
    const name = newName()
    const key = newKey()
    await things.post('/atomic', { name }, { key })
    expect(await tripsOf('/atomic', key, name)).toBe(1)
    await things.post('/leased', { name }, { key })
    expect(await tripsOf('/leased', key, name)).toBe(1)
  })
})

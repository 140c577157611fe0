/** resilience/guardTrip.ts and holdfast.enter_guards: limits, claims and breakers in one statement. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createDb, type Db } from '../../supabase/functions/_shared/db/client.ts'
import { createLogger } from '../../supabase/functions/_shared/observability/logger.ts'
import {
  type CircuitBreakers,
  createCircuitBreakers,
} from '../../supabase/functions/_shared/resilience/circuitBreaker.ts'
import { createGuardTrip, type EnterGuards } from '../../supabase/functions/_shared/resilience/guardTrip.ts'
import type { BreakerTrip } from '../../supabase/functions/_shared/resilience/breaker/breakerExchange.ts'
import type { BreakerReport } from '../../supabase/functions/_shared/resilience/stores/breakerStore.ts'
import { PostgresBreakerStore } from '../../supabase/functions/_shared/resilience/stores/postgresBreakers.ts'
import { PostgresIdempotencyStore } from '../../supabase/functions/_shared/resilience/stores/postgres.ts'
import { PostgresRateLimitStore } from '../../supabase/functions/_shared/resilience/stores/postgresRateLimits.ts'
import { newName, report, rules } from '../support/breakers.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { claimOf, limitOf, noBreakers } from '../support/guards.ts'
import { answer, claimed, newRequest } from '../support/idempotencyStore.ts'
import { closeAfterFile } from '../support/leftovers.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { startWireProxy, type WireProxy } from '../support/wireProxy.ts'

onEachPostgres('a guard trip', (pg) => {
  let database: FreshDatabase
  let admin: Sql
  let proxy: WireProxy
  let db: Db
  let keys: PostgresIdempotencyStore
  let limits: PostgresRateLimitStore
  let enter: EnterGuards

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    proxy = startWireProxy({ target: database.url })
    closeAfterFile({ name: 'a wire proxy', close: () => proxy.close() })
    db = createDb({ url: proxy.url })
    keys = new PostgresIdempotencyStore(db)
    limits = new PostgresRateLimitStore(db)
    enter = createGuardTrip({ db, breakers: noBreakers })
    await Promise.all(Array.from({ length: 8 }, () => enter({ limit: limitOf('warm', 1_000) })))
  })

  afterAll(() => db.close())

  const storedKeys = async (ids: string[]) => {
    const [row] = await admin`
      select count(*)::int as n from holdfast.idempotency_keys where encode(id, 'hex') = any (${ids})`
    return row!.n as number
  }

  describe('with a limit and a claim', () => {
    test('decides and claims as the two stores do, each of which goes on from there', async () => {
      const limit = limitOf('both', 3)
      const claim = claimOf()
      const entered = await enter({ limit, claim })
      expect(entered.limit).toMatchObject({ admitted: 1, windows: [{ remaining: 2 }], blockedMs: 0 })
      const { effectId, token, attempt, resumed } = claimed(entered.claim!)
      expect([effectId, token, attempt, resumed]).toEqual([
        expect.stringMatching(/^[\da-f-]{36}$/),
        expect.any(Number),
        1,
        false,
      ])
      const [asked] = await limits.decide([{ ...limit, count: 0 }])
      expect(asked!.windows[0]!.remaining).toBe(2)
      expect((await keys.claim(claim.request, claim)).outcome).toBe('in_progress')
      expect(await keys.complete(claim.request, token, answer, 60_000)).toBe(true)
    })

    test('refused makes no claim, and takes nothing', async () => {
      const limit = limitOf('refused', 1)
      const claims = [claimOf(), claimOf(), claimOf()]
      expect((await enter({ limit, claim: claims[0]! })).claim).toMatchObject({ outcome: 'claimed' })
      const before = await admin`select forget_at, state from holdfast.rate_limits where key = ${limit.key}`
      for (const claim of claims.slice(1)) {
        const refused = await enter({ limit, claim })
        expect(refused).toMatchObject({ limit: { admitted: 0 }, claim: undefined })
        expect(refused.limit!.windows[0]!.retryAfterMs).toBeGreaterThan(3_590_000)
      }
      expect(await storedKeys(claims.map(({ request }) => request.id))).toBe(1)
      expect(await admin`select forget_at, state from holdfast.rate_limits where key = ${limit.key}`)
        .toEqual(before)
    })

    test('gives what was stored for the key: in_progress, mismatch and replay, byte for byte', async () => {
      const limit = limitOf('known keys', 100)
      const claim = claimOf()
      const { token } = claimed((await enter({ limit, claim })).claim!)
      const waiting = (await enter({ limit, claim })).claim!
      expect(waiting).toEqual({ outcome: 'in_progress', retryAfterMs: expect.any(Number) })
      const other = { ...claim, request: newRequest({ id: claim.request.id }) }
      expect((await enter({ limit, claim: other })).claim).toEqual({ outcome: 'mismatch' })
      await keys.complete(claim.request, token, answer, 60_000)
      expect((await enter({ limit, claim })).claim).toEqual({ outcome: 'replay', answer })
      expect((await enter({ limit, claim: other })).claim).toEqual({ outcome: 'mismatch' })
    })

    test('says of a key whose lease ended that it is resumed, with the effect of the first', async () => {
      const claim = claimOf()
      const first = claimed((await enter({ claim })).claim!)
      await keys.release(claim.request, first.token)
      const second = claimed((await enter({ limit: limitOf('resumed', 5), claim })).claim!)
      expect(second).toMatchObject({ attempt: 2, resumed: true, effectId: first.effectId })
      expect(second.token).toBeGreaterThan(first.token)
    })
  })

  test('claims where there is no limit, and decides where there is no claim', async () => {
    const [alone, limited] = await Promise.all([
      enter({ claim: claimOf() }),
      enter({ limit: limitOf('no claim', 5) }),
    ])
    expect(alone).toMatchObject({ limit: undefined, claim: { outcome: 'claimed' } })
    expect(limited).toMatchObject({ limit: { admitted: 1 }, claim: undefined })
    expect(await enter({})).toEqual({ limit: undefined, claim: undefined })
  })

  test('takes one round trip, and of many that come together all but the first share one', async () => {
    const one = await proxy.measure(() => enter({ limit: limitOf('a trip', 5), claim: claimOf() }))
    expect(one.counts.roundTrips).toBe(1)
    const hot = limitOf('hot', 20)
    const many = await proxy.measure(() =>
      Promise.all(Array.from({ length: 40 }, (_, nth) =>
        enter({
          limit: nth % 4 === 0 ? hot : nth % 4 === 1 ? limitOf(`own ${nth}`, 1) : undefined,
          claim: nth % 4 === 3 ? undefined : claimOf(),
        })))
    )
    expect(many.counts.roundTrips).toBeLessThanOrEqual(3)
    many.value.forEach(({ limit, claim }, nth) => {
      expect(limit?.admitted).toBe(nth % 4 < 2 ? 1 : undefined)
      expect(claim?.outcome).toBe(nth % 4 === 3 ? undefined : 'claimed')
    })
  })

  test('gives each of many its own answer, whichever limits and keys meet in it', async () => {
    const limit = limitOf('five', 5)
    const several = limitOf('several', 8, [{ quota: 3, windowMs: 60_000 }])
    const asked = Array.from({ length: 24 }, (_, nth) => ({
      limit: nth % 2 === 0 ? limit : several,
      claim: claimOf({ route: `POST /${nth}` }),
    }))
    const entered = await Promise.all(asked.map(enter))
    const admitted = entered.filter(({ limit }) => limit!.admitted === 1)
    expect(admitted).toHaveLength(5 + 3)
    for (const { limit, claim } of entered) {
      expect(claim?.outcome).toBe(limit!.admitted === 1 ? 'claimed' : undefined)
    }
    const stored = await admin`
      select route from holdfast.idempotency_keys where encode(id, 'hex') = any (${
      asked.map(({ claim }) => claim.request.id)
    })`
    const expected = asked.filter((_, nth) => entered[nth]!.claim).map(({ claim }) => claim.request.route)
    expect(stored.map(({ route }) => route).sort()).toEqual(expected.sort())
  })

  test('of one key that comes twice makes one claim, and the other waits for it', async () => {
    const claim = claimOf()
    const outcomes = await Promise.all([1, 2, 3, 4].map(async () => (await enter({ claim })).claim!.outcome))
    expect(outcomes.sort()).toEqual(['claimed', 'in_progress', 'in_progress', 'in_progress'])
  })

  describe('that makes no sense', () => {
    const limit = () => limitOf('sense', 1_000)
    const claim = (given: object) => ({ ...claimOf(), ...given })
    const asking = (given: object) => ({ claim: { ...claimOf(), request: { ...newRequest(), ...given } } })

    test.each([
      ['a key with NUL', { limit: { ...limit(), key: 'a\0b' } }, TypeError, /received "a\\u0000b"/],
      ['no windows', { limit: { ...limit(), windows: [] } }, TypeError, /no windows/],
      ['a cost of 0', { limit: { ...limit(), cost: 0 } }, RangeError, /cost .* received 0/],
      ['an id that is none', asking({ id: 'zz' }), TypeError, /id must be 64 hex digits, received "zz"/],
      ['a fingerprint that is none', asking({ fingerprint: '' }), TypeError, /fingerprint .* received ""/],
      ['a caller with NUL', asking({ callerId: 'a\0' }), TypeError, /callerId .* received "a\\u0000"/],
      ['half a character', asking({ route: '\ud800' }), TypeError, /route .* received "\\ud800"/],
      [
        'an endless lease',
        { claim: claim({ leaseMs: 1e15 }) },
        RangeError,
        /leaseMs .* received 1000000000000000/,
      ],
      ['no time to live', { claim: claim({ ttlMs: NaN }) }, RangeError, /ttlMs .* received NaN/],
    ])('fails alone, before it is asked: %s', async (_, question, type, message) => {
      const others = [1, 2, 3].map(() => enter({ limit: limit(), claim: claimOf() }))
      const senseless = enter(question)
      others.push(...[4, 5, 6].map(() => enter({ limit: limit(), claim: claimOf() })))
      await expect(senseless).rejects.toThrow(message)
      await expect(senseless).rejects.toBeInstanceOf(type)
      for (const { claim } of await Promise.all(others)) expect(claim!.outcome).toBe('claimed')
    })
  })

  describe('and the breakers', () => {
    const lines: string[] = []
    let registries: CircuitBreakers[] = []
    const log = createLogger({ write: (_, line) => lines.push(line) })

    /** An isolate, with a way to the database of its own. */
    const isolate = () => {
      const breakers = createCircuitBreakers({ store: new PostgresBreakerStore(db), log })
      registries.push(breakers)
      return { breakers, enter: createGuardTrip({ db, breakers }) }
    }

    afterAll(async () => {
      for (const registry of registries) await registry.close()
      registries = []
    })

    test('of the isolate hear of all others for free, when it is time', async () => {
      const { breakers, enter } = isolate()
      const name = newName()
      const breaker = breakers.get(name, { failureThreshold: 5 })
      await new PostgresBreakerStore(db).force(name, 'open', 'by hand', rules)
      const { counts } = await proxy.measure(() => enter({ limit: limitOf('for free', 5), claim: claimOf() }))
      expect(counts.roundTrips).toBe(1)
      expect(breaker.health()).toMatchObject({ state: 'open', local: false })
      await expect(breaker.execute(() => 'called')).rejects.toMatchObject({ code: 'CIRCUIT_OPEN' })
      expect(breakers.outgoing()).toBeUndefined()
    })

    test('whose reports travel are handed what came back, in the order of the reports', async () => {
      const names = [newName(), newName()]
      const trip = recordedTrip([
        report(names[1]!, { failures: 5 }),
        report(names[0]!, { successes: 2 }),
      ])
      await createGuardTrip({ db, breakers: trip })({ claim: claimOf() })
      expect(trip.ended).toEqual([['arrived', [
        expect.objectContaining({ name: names[1], state: 'open', epoch: 2 }),
        expect.objectContaining({ name: names[0], state: 'closed', successes: 2 }),
      ]]])
    })

    test('with nothing to say are not in the way', async () => {
      const trip = recordedTrip(undefined)
      expect((await createGuardTrip({ db, breakers: trip })({ claim: claimOf() })).claim!.outcome).toBe(
        'claimed',
      )
      expect(trip.ended).toEqual([])
    })

    test('whose report is none, or whose row is held, cost nobody the limit nor the claim', async () => {
      const name = newName()
      const senseless = recordedTrip([{ ...report(name), failures: -1 }])
      const limit = limitOf('in spite', 5)
      const entered = await createGuardTrip({ db, breakers: senseless })({ limit, claim: claimOf() })
      expect(entered).toMatchObject({ limit: { admitted: 1 }, claim: { outcome: 'claimed' } })
      expect(senseless.ended).toEqual([['ended']])

      await new PostgresBreakerStore(db).exchange([report(name, { successes: 1 })])
      const held = recordedTrip([report(name, { failures: 5 })])
      await admin.begin(async (tx) => {
        await tx`select from holdfast.circuit_breakers where name = ${name} for update`
        await tx`select from holdfast.circuit_breaker_counts where name = ${name} for update`
        const patient = await createGuardTrip({ db, breakers: held })({ limit, claim: claimOf() })
        expect(patient).toMatchObject({ limit: { admitted: 1 }, claim: { outcome: 'claimed' } })
      })
      expect(held.ended).toEqual([['ended']])
      const [asked] = await limits.decide([{ ...limit, count: 0 }])
      expect(asked!.windows[0]!.remaining).toBe(3)
    })
  })

  describe('while PostgreSQL is away', () => {
    test('rejects with SERVICE_UNAVAILABLE, tells the breakers, and goes on when it is back', async () => {
      const trip = recordedTrip([report(newName())])
      const enter = createGuardTrip({ db, breakers: trip })
      proxy.refuse(true)
      proxy.cut()
      const asked = [1, 2, 3].map(() => enter({ limit: limitOf('away', 5), claim: claimOf() }))
      for (const outcome of await Promise.allSettled(asked)) {
        expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'SERVICE_UNAVAILABLE' } })
      }
      expect(trip.ended[0]).toEqual(['failed', expect.objectContaining({ code: 'SERVICE_UNAVAILABLE' })])
      proxy.refuse(false)
      expect((await enter({ limit: limitOf('away', 5) })).limit).toMatchObject({
        windows: [{ remaining: 4 }],
      })
    })

    test('an answer that is lost may have taken and claimed: the key is then in progress', async () => {
      const limit = limitOf('lost', 5)
      const claim = claimOf()
      const lost = proxy.loseAnswer('enter_guards')
      await expect(enter({ limit, claim })).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
      await lost
      const again = await enter({ limit, claim })
      expect(again).toMatchObject({
        limit: { windows: [{ remaining: 3 }] },
        claim: { outcome: 'in_progress' },
      })
    })
  })

  test('is not for the API: its roles may not call what it calls', async () => {
    for (const role of ['anon', 'authenticated', 'service_role']) {
      const call = admin.begin(async (tx) => {
        await tx`select set_config('role', ${role}, true)`
        await tx`select holdfast.enter_guards(null, '[]', '[]')`
      })
      await expect(call).rejects.toMatchObject({ code: '42501' })
    }
  })
})

/** Reports that travel, and what they were told in the end. */
function recordedTrip(reports: BreakerReport[] | undefined) {
  const ended: ['arrived' | 'failed' | 'ended', unknown?][] = []
  const trip: BreakerTrip | undefined = reports && {
    reports,
    arrived: (statuses) => ended.push(['arrived', statuses]),
    failed: (error) => ended.push(['failed', error]),
    end: () => ended.push(['ended']),
  }
  return { ended, outgoing: () => trip }
}

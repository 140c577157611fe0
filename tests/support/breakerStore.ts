/** What every store of circuit breakers must do: the shared suite. */
import { describe, expect, test } from 'vitest'
import { describeProbes } from './breakerProbes.ts'
import {
  type BreakersUnderTest,
  exchange,
  newName,
  openBreaker,
  probedBreaker,
  report,
  rules,
  untouched,
} from './breakers.ts'

/** `open` is called for each test; what it opens is its caller's to close. */
export function describeBreakerStore(open: () => BreakersUnderTest | Promise<BreakersUnderTest>): void {
  describe('a breaker nobody has heard of', () => {
    test('is closed, in its first epoch', async () => {
      const { store } = await open()
      const name = newName()
      expect(await exchange(store, name, { epoch: 0 })).toEqual({ name, ...untouched })
    })

    test('is not probed', async () => {
      const { store } = await open()
      const name = newName()
      expect(await exchange(store, name, { wantsProbe: true })).toEqual({ name, ...untouched })
    })
  })

  describe('exchange()', () => {
    test('answers in the order of the reports, the same breaker twice included', async () => {
      const { store } = await open()
      const [b, a] = ['b', 'a'].map((prefix) => `${prefix}-${newName()}`) as [string, string]
      const statuses = await store.exchange([
        report(b, { failures: 5 }),
        report(a, { successes: 2 }),
        report(a, { failures: 1 }),
      ])
      expect(statuses.map(({ name, state }) => [name, state])).toEqual([
        [b, 'open'],
        [a, 'closed'],
        [a, 'closed'],
      ])
      expect(await exchange(store, a)).toMatchObject({ successes: 2, failures: 1 })
    })

    test('of nothing is answered with nothing', async () => {
      const { store } = await open()
      expect(await store.exchange([])).toEqual([])
    })

    test('adds up the calls of all isolates', async () => {
      const { store, other = store } = await open()
      const name = newName()
      await exchange(store, name, { successes: 3, failures: 1 })
      await exchange(other, name, { successes: 2, failures: 2 })
      for (const each of [store, other]) {
        expect(await exchange(each, name)).toEqual({ name, ...untouched, successes: 5, failures: 3 })
      }
    })

    test.each([0, 2])('counts nothing of epoch %d when it is in its first', async (epoch) => {
      const { store } = await open()
      const name = newName()
      await exchange(store, name, { successes: 1 })
      expect(await exchange(store, name, { epoch, failures: 9 })).toEqual({
        name,
        ...untouched,
        successes: 1,
      })
    })
  })

  describe('trips', () => {
    test('when the failures of all isolates reach failureThreshold, and says why and for how long', async () => {
      const { store, other = store } = await open()
      const name = newName()
      await exchange(store, name, { successes: 9, failures: 2 })
      expect(await exchange(other, name, { failures: 2 })).toMatchObject({ state: 'closed', failures: 4 })
      const before = Date.now()
      const opened = await exchange(store, name, { failures: 1 })
      expect(opened).toMatchObject({
        state: 'open',
        epoch: 2,
        forced: null,
        reason: '5 failures within 60000 ms',
        openedAt: expect.stringMatching(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/),
        probeToken: null,
      })
      expect(opened.retryInMs).toBeGreaterThan(rules.cooldownMs - 10_000)
      expect(opened.retryInMs).toBeLessThanOrEqual(rules.cooldownMs)
      expect(Math.abs(Date.parse(opened.openedAt!) - before)).toBeLessThan(5 * 60_000)
      expect(await exchange(other, name)).toMatchObject({
        state: 'open',
        epoch: 2,
        openedAt: opened.openedAt,
      })
    })

    test('not by failures that are older than windowMs', async () => {
      const { store, elapse } = await open()
      const name = newName()
      await exchange(store, name, { failures: 4 })
      await elapse(name, rules.windowMs)
      expect(await exchange(store, name)).toMatchObject({ failures: 0 })
      expect(await exchange(store, name, { failures: 4 })).toMatchObject({ state: 'closed', failures: 4 })
    })

    test('by failures within windowMs, though time passed between them', async () => {
      const { store, elapse } = await open()
      const name = newName()
      for (let report = 0; report < 4; report++) {
        expect(await exchange(store, name, { failures: 1 })).toMatchObject({ state: 'closed' })
        await elapse(name, rules.windowMs / 5)
      }
      expect(await exchange(store, name, { failures: 1 })).toMatchObject({ state: 'open' })
    })

    test('at consecutiveFailures, which a success of any isolate begins anew', async () => {
      const { store, other = store, elapse } = await open()
      const name = newName()
      const consecutive = { rules: { ...rules, failureThreshold: null, consecutiveFailures: 4 } }
      await exchange(store, name, { ...consecutive, failures: 3 })
      await exchange(other, name, { ...consecutive, successes: 1, failures: 8, trailingFailures: 1 })
      // However long it takes.
      await elapse(name, 10 * rules.windowMs)
      expect(await exchange(store, name, { ...consecutive, failures: 2 })).toMatchObject({ state: 'closed' })
      expect(await exchange(other, name, { ...consecutive, failures: 1 })).toMatchObject({
        state: 'open',
        reason: '4 failures in a row',
      })
    })

    test('at failureRate, not before there are minimumVolume calls', async () => {
      const { store } = await open()
      const name = newName()
      const rate = { rules: { ...rules, failureThreshold: null, failureRate: 0.5 } }
      expect(await exchange(store, name, { ...rate, failures: 4 })).toMatchObject({ state: 'closed' })
      expect(await exchange(store, name, { ...rate, successes: 6 })).toMatchObject({ state: 'closed' })
      expect(await exchange(store, name, { ...rate, failures: 1 })).toMatchObject({ state: 'closed' })
      expect(await exchange(store, name, { ...rate, failures: 1 })).toMatchObject({
        state: 'open',
        reason: '6 of 12 calls failed within 60000 ms',
      })
    })

    test('on a failure only, never on the success that makes minimumVolume', async () => {
      const { store } = await open()
      const name = newName()
      const rate = { rules: { ...rules, failureThreshold: null, failureRate: 0.5 } }
      await exchange(store, name, { ...rate, failures: 9 })
      expect(await exchange(store, name, { ...rate, successes: 1 })).toMatchObject({ state: 'closed' })
      expect(await exchange(store, name, { ...rate, successes: 1, failures: 1 })).toMatchObject({
        state: 'open',
      })
    })
  })

  describe('an open breaker', () => {
    test('counts nothing, of its own epoch or the one before', async () => {
      const { store } = await open()
      const name = await openBreaker(store)
      for (const epoch of [1, 2]) {
        expect(await exchange(store, name, { epoch, successes: 10, failures: 10 })).toMatchObject({
          state: 'open',
          epoch: 2,
          successes: 0,
          failures: 0,
        })
      }
    })

    test('is not probed before the cooldown is over', async () => {
      const { store, elapse } = await open()
      const name = await openBreaker(store)
      await elapse(name, rules.cooldownMs - 20_000)
      const status = await exchange(store, name, { wantsProbe: true })
      expect(status).toMatchObject({ state: 'open', epoch: 2, probeToken: null })
      expect(status.retryInMs).toBeGreaterThan(0)
      expect(status.retryInMs).toBeLessThanOrEqual(20_000)
    })

    test('stays open until somebody asks for the probe', async () => {
      const { store, elapse } = await open()
      const name = await openBreaker(store)
      await elapse(name, 2 * rules.cooldownMs)
      expect(await exchange(store, name)).toMatchObject({ state: 'open', epoch: 2, retryInMs: 0 })
    })
  })

  describe('force()', () => {
    test('holds it open, and nobody probes', async () => {
      const under = await open()
      const { store, other = store } = under
      const name = newName()
      const forced = await store.force(name, 'open', 'maintenance', rules)
      expect(forced).toMatchObject({
        name,
        state: 'open',
        epoch: 2,
        forced: 'open',
        reason: 'maintenance',
        openedAt: expect.any(String),
        retryInMs: rules.cooldownMs,
      })
      await under.elapse(name, 2 * rules.cooldownMs)
      expect(await exchange(other, name, { wantsProbe: true })).toMatchObject({
        state: 'open',
        epoch: 2,
        forced: 'open',
        probeToken: null,
      })
    })

    test('holds it closed, whatever fails', async () => {
      const { store, other = store } = await open()
      const name = await openBreaker(store)
      expect(await store.force(name, 'closed', 'we know', rules)).toEqual({
        name,
        ...untouched,
        epoch: 3,
        forced: 'closed',
        reason: 'we know',
      })
      expect(await exchange(other, name, { epoch: 3, failures: 50 })).toMatchObject({
        state: 'closed',
        epoch: 3,
        forced: 'closed',
      })
    })

    test('with null gives it back to its rules, closed and with nothing counted', async () => {
      const { store, other = store } = await open()
      const name = newName()
      await exchange(store, name, { failures: 4 })
      await store.force(name, 'open', 'maintenance', rules)
      expect(await store.force(name, null, 'over', rules)).toEqual({ name, ...untouched, epoch: 3 })
      expect(await exchange(other, name, { epoch: 3, failures: 4 })).toMatchObject({ state: 'closed' })
      expect(await exchange(other, name, { epoch: 3, failures: 1 })).toMatchObject({
        state: 'open',
        epoch: 4,
      })
    })

    test('is a new epoch each time, and ends the period of a probe', async () => {
      const under = await open()
      const { name, token } = await probedBreaker(under)
      const { store } = under
      expect(await store.force(name, 'open', 'maintenance', rules)).toMatchObject({ epoch: 4 })
      expect(await store.force(name, 'open', 'more maintenance', rules)).toMatchObject({
        epoch: 5,
        reason: 'more maintenance',
      })
      const probe = { token, outcome: 'succeeded' } as const
      expect(await exchange(store, name, { epoch: 3, probe })).toMatchObject({
        state: 'open',
        forced: 'open',
      })
    })

    test('with null forgets what a closed breaker has counted', async () => {
      const { store } = await open()
      const name = newName()
      await exchange(store, name, { failures: 4 })
      expect(await store.force(name, null, 'over', rules)).toEqual({ name, ...untouched, epoch: 2 })
      // An isolate that has not heard of it yet.
      expect(await exchange(store, name, { epoch: 1, failures: 4 })).toMatchObject({ epoch: 2, failures: 0 })
    })
  })

  describeProbes(open)
}

/** What every store of circuit breakers must do for probes: the second half of the shared suite. */
import { describe, expect, test } from 'vitest'
import { type BreakersUnderTest, exchange, openBreaker, probedBreaker, rules, untouched } from './breakers.ts'

export function describeProbes(open: () => BreakersUnderTest | Promise<BreakersUnderTest>): void {
  describe('a probe', () => {
    test('is granted once, whoever else asks, and they are told when to ask again', async () => {
      const under = await open()
      const { store, other = store } = under
      const name = await openBreaker(store)
      await under.elapse(name, rules.cooldownMs)
      const answers = await Promise.all(
        Array.from({ length: 20 }, (_, i) => exchange(i % 2 ? store : other, name, { wantsProbe: true })),
      )
      expect(answers.filter(({ probeToken }) => probeToken !== null)).toHaveLength(1)
      const { retryInMs } = await exchange(other, name, { wantsProbe: true })
      expect(retryInMs).toBeGreaterThan(rules.probeLeaseMs - 10_000)
      expect(retryInMs).toBeLessThanOrEqual(rules.probeLeaseMs)
    })

    test('that succeeds closes it, with everything forgotten', async () => {
      const under = await open()
      const { name, token } = await probedBreaker(under)
      const { store, other = store } = under
      const status = await exchange(store, name, { epoch: 3, probe: { token, outcome: 'succeeded' } })
      expect(status).toEqual({ name, ...untouched, epoch: 4 })
      expect(await exchange(other, name, { epoch: 4, failures: 4 })).toMatchObject({ state: 'closed' })
      expect(await exchange(other, name, { epoch: 4, failures: 1 })).toMatchObject({
        state: 'open',
        epoch: 5,
      })
    })

    test('that fails opens it for another cooldown', async () => {
      const under = await open()
      const { name, token } = await probedBreaker(under)
      const { store } = under
      const status = await exchange(store, name, { epoch: 3, probe: { token, outcome: 'failed' } })
      expect(status).toMatchObject({ state: 'open', epoch: 4, reason: 'A probe failed', probeToken: null })
      expect(status.retryInMs).toBeGreaterThan(rules.cooldownMs - 10_000)
      await under.elapse(name, rules.cooldownMs)
      const next = await exchange(store, name, { wantsProbe: true })
      expect(next).toMatchObject({ state: 'half_open', epoch: 5 })
      expect(next.probeToken).toBeGreaterThan(token)
    })

    test('that is abandoned leaves its place to the next, in the same period', async () => {
      const under = await open()
      const { name, token } = await probedBreaker(under)
      const { store, other = store } = under
      const status = await exchange(store, name, { epoch: 3, probe: { token, outcome: 'abandoned' } })
      expect(status).toMatchObject({ state: 'half_open', epoch: 3, retryInMs: 0, probeToken: null })
      const next = await exchange(other, name, { wantsProbe: true })
      expect(next).toMatchObject({ state: 'half_open', epoch: 3 })
      expect(next.probeToken).toBeGreaterThan(token)
    })

    test('whose holder died leaves its place when its lease ends', async () => {
      const under = await open()
      const { name, token } = await probedBreaker(under)
      const { other = under.store } = under
      expect((await exchange(other, name, { wantsProbe: true })).probeToken).toBeNull()
      await under.elapse(name, rules.probeLeaseMs)
      const next = await exchange(other, name, { wantsProbe: true })
      expect(next).toMatchObject({ state: 'half_open', epoch: 3 })
      expect(next.probeToken).toBeGreaterThan(token)
    })

    test.each(['succeeded', 'failed', 'abandoned'] as const)(
      "that %s after its lease changes nothing, before and after its place is another's",
      async (outcome) => {
        const under = await open()
        const { name, token } = await probedBreaker(under)
        const { store, other = store } = under
        await under.elapse(name, rules.probeLeaseMs)
        const late = () => exchange(store, name, { epoch: 3, probe: { token, outcome } })
        expect(await late()).toMatchObject({ state: 'half_open', epoch: 3, retryInMs: 0 })
        const { probeToken } = await exchange(other, name, { wantsProbe: true })
        expect(await late()).toMatchObject({ state: 'half_open', epoch: 3 })
        expect(await exchange(other, name, { probe: { token: probeToken!, outcome: 'succeeded' } }))
          .toMatchObject({ state: 'closed', epoch: 4 })
        expect(await late()).toMatchObject({ state: 'closed', epoch: 4 })
      },
    )

    test('reported twice is heard once', async () => {
      const under = await open()
      const { name, token } = await probedBreaker(under)
      const again = () => exchange(under.store, name, { epoch: 3, probe: { token, outcome: 'failed' } })
      const first = await again()
      expect(await again()).toMatchObject({ state: 'open', epoch: 4, openedAt: first.openedAt })
    })

    test('with a token that was never granted changes nothing', async () => {
      const under = await open()
      const { name, token } = await probedBreaker(under)
      const probe = { token: token + 1_000, outcome: 'succeeded' } as const
      expect(await exchange(under.store, name, { epoch: 3, probe })).toMatchObject({
        state: 'half_open',
        epoch: 3,
      })
    })

    test('is one of halfOpenProbes, which all must succeed and of which no more are made', async () => {
      const under = await open()
      const two = { ...rules, halfOpenProbes: 2 }
      const { name, token } = await probedBreaker(under, two)
      const { store, other = store } = under
      const second = await exchange(other, name, { rules: two, wantsProbe: true })
      expect(second.probeToken).toBeGreaterThan(token)
      expect((await exchange(store, name, { rules: two, wantsProbe: true })).probeToken).toBeNull()
      expect(await exchange(store, name, { rules: two, probe: { token, outcome: 'succeeded' } }))
        .toMatchObject({ state: 'half_open', epoch: 3 })
      expect((await exchange(store, name, { rules: two, wantsProbe: true })).probeToken).toBeNull()
      const probe = { token: second.probeToken!, outcome: 'succeeded' } as const
      expect(await exchange(other, name, { rules: two, probe })).toMatchObject({ state: 'closed', epoch: 4 })
    })

    test('that fails ends the period of the others', async () => {
      const under = await open()
      const two = { ...rules, halfOpenProbes: 2 }
      const { name, token } = await probedBreaker(under, two)
      const { store, other = store } = under
      const second = await exchange(other, name, { rules: two, wantsProbe: true })
      await exchange(store, name, { rules: two, probe: { token, outcome: 'failed' } })
      const probe = { token: second.probeToken!, outcome: 'succeeded' } as const
      expect(await exchange(other, name, { rules: two, probe })).toMatchObject({ state: 'open', epoch: 4 })
    })

    test('counts no calls that are reported with it', async () => {
      const under = await open()
      const { name, token } = await probedBreaker(under)
      const status = await exchange(under.store, name, {
        epoch: 3,
        failures: 9,
        probe: { token, outcome: 'succeeded' },
      })
      expect(status).toMatchObject({ state: 'closed', failures: 0 })
    })
  })
}

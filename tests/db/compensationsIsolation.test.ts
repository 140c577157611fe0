/**
 * Effects of transactions in repeatable read and serializable, which do not see what was recorded after their snapshot:
 * their books decide who may end an effect.
 */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import { aTransaction } from '../support/compensations.ts'
import { onEachPostgres } from '../support/database.ts'
import { EffectRace } from '../support/effectRace.ts'

const lost = { sqlState: 'HF002' }

onEachPostgres('an effect', (pg) => {
  let race: EffectRace

  beforeAll(async () => {
    race = await EffectRace.open(pg.major)
  })

  beforeEach(() => race.reset())

  describe.each(['repeatable read', 'serializable'] as const)('in %s', (isolation) => {
    test('an effect that was recorded after the snapshot is settled by the commit', async () => {
      const tx = aTransaction()
      const business = await race.started(tx, isolation)
      const { effectKey } = await race.record(tx)
      await business.commit({ closing: race.closing(tx, [effectKey], isolation) })
      expect(await race.isOrdered(tx)).toBe(true)
      expect(await race.sweep()).toEqual([])
      expect(await race.statuses()).toEqual(['settled'])
    })

    test('the next attempt gets an effect of its own after that', async () => {
      const [earlier, later] = [aTransaction(), aTransaction()]
      const business = await race.started(earlier, isolation)
      const { effectKey } = await race.record(earlier, 'k')
      await business.commit({ closing: race.closing(earlier, [effectKey], isolation) })
      expect(await race.record(later, 'k')).toMatchObject({ resumed: false })
    })

    test('an effect that was recorded before the snapshot is settled as well', async () => {
      const tx = aTransaction()
      const { effectKey } = await race.record(tx)
      const business = await race.started(tx, isolation)
      await business.commit({ closing: race.closing(tx, [effectKey], isolation) })
      expect(await race.statuses()).toEqual([])
    })

    test('a sweep that came first makes the commit fail, wherever the snapshot is', async () => {
      const [before, after] = [aTransaction(), aTransaction()]
      const early = await race.record(before)
      const transactions = [await race.started(before, isolation), await race.started(after, isolation)]
      const late = await race.record(after)
      await race.sweep()
      const commits = await Promise.allSettled([
        transactions[0]!.commit({ closing: race.closing(before, [early.effectKey], isolation) }),
        transactions[1]!.commit({ closing: race.closing(after, [late.effectKey], isolation) }),
      ])
      expect(commits.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
      expect([await race.isOrdered(before), await race.isOrdered(after)]).toEqual([false, false])
      expect(race.undone.sort()).toEqual([early.effectKey, late.effectKey].sort())
    })

    test('a later attempt that took the effect over makes the commit fail', async () => {
      const [earlier, later] = [aTransaction(), aTransaction()]
      const business = await race.started(earlier, isolation)
      const { effectKey } = await race.record(earlier, 'k')
      expect(await race.record(later, 'k')).toEqual({ effectKey, resumed: true })
      await expect(business.commit({ closing: race.closing(earlier, [effectKey], isolation) })).rejects
        .toThrow()
      expect(await race.isOrdered(earlier)).toBe(false)
      await race.begin(later, isolation).commit({
        last: race.order(later),
        closing: race.closing(later, [effectKey], isolation),
      })
      expect(await race.isOrdered(later)).toBe(true)
    })

    test('an attempt that begins only when a later one has committed with its effect cannot commit', async () => {
      const [earlier, later] = [aTransaction(), aTransaction()]
      const { effectKey } = await race.record(earlier, 'k')
      await race.record(later, 'k')
      await race.begin(later).commit({ last: race.order(later), closing: race.closing(later, [effectKey]) })
      const business = await race.started(earlier, isolation)
      await expect(business.commit({ closing: race.closing(earlier, [effectKey], isolation) }))
        .rejects.toMatchObject(lost)
    })

    test('a commit on its way is waited for by nobody: not by the sweep, not by the next attempt', async () => {
      const [earlier, later] = [aTransaction(), aTransaction()]
      const business = await race.started(earlier, isolation)
      const { effectKey } = await race.record(earlier, 'k')
      await race.makeDue()
      await business.query(sql`set local role none`)
      for (const query of race.closing(earlier, [effectKey], isolation)) await business.query(query)
      expect(await race.isolate.undoDue()).toEqual([])
      await expect(race.record(later, 'k')).rejects.toMatchObject({ code: 'CONFLICT', retryable: true })
      await business.rollback()
      expect(await race.isolate.undoDue()).toMatchObject([{ outcome: 'undone' }])
    })

    test('without books such an effect cannot be settled', async () => {
      const tx = aTransaction()
      const business = race.bed.db.begin({ service: 'test' }, { isolation })
      await business.query(race.order(tx))
      const { effectKey } = await race.record(tx)
      await expect(business.commit({ closing: [race.isolate.settle(tx.id, [effectKey])] })).rejects
        .toMatchObject(
          lost,
        )
    })
  })

  test('serializable transactions that settle side by side do not conflict', async () => {
    const pair = [aTransaction(), aTransaction()] as const
    const effects = [await race.record(pair[0]), await race.record(pair[1])] as const
    // Of so small a table the server would rather read all.
    await race.bed.admin`analyze holdfast.compensations`
    const business = pair.map((tx) => race.begin(tx, 'serializable'))
    for (const [index, transaction] of business.entries()) await transaction.query(race.order(pair[index]!))
    for (const [index, transaction] of business.entries()) {
      await transaction.query(sql`set local role none`)
      await transaction.query(race.isolate.settle(pair[index]!.id, [effects[index]!.effectKey]))
    }
    for (const transaction of business) await transaction.commit()
    expect(await race.statuses()).toEqual([])
  })
})

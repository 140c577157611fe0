/**
 * Who may end an effect when several want to: the commit of its transaction, a later attempt, the sweep, a second
 * sweep. Each test forces one interleaving, on connections of its own.
 */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../supabase/functions/_shared/core/errors.ts'
import { aTransaction } from '../support/compensations.ts'
import { onEachPostgres } from '../support/database.ts'
import { EffectRace } from '../support/effectRace.ts'

const lost = { sqlState: 'HF002' }

onEachPostgres('a race for an effect', (pg) => {
  let race: EffectRace

  beforeAll(async () => {
    race = await EffectRace.open(pg.major)
  })

  beforeEach(() => race.reset())

  describe('between the commit and the sweep', () => {
    test('a commit on its way is passed over, and when it is done nothing is left to undo', async () => {
      const tx = aTransaction()
      const { effectKey } = await race.record(tx)
      await race.makeDue()
      const committing = await race.settling(tx, effectKey)
      expect(await race.isolate.undoDue()).toEqual([])
      await committing.commit()
      expect(await race.sweep()).toEqual([])
      expect(await race.statuses()).toEqual([])
    })

    test('a commit that was rolled back leaves the effect to the sweep', async () => {
      const tx = aTransaction()
      const { effectKey } = await race.record(tx)
      await race.makeDue()
      const committing = await race.settling(tx, effectKey)
      expect(await race.isolate.undoDue()).toEqual([])
      await committing.rollback()
      expect(await race.isolate.undoDue()).toMatchObject([{ outcome: 'undone' }])
      expect(race.undone).toEqual([effectKey])
    })

    test('a sweep that came first makes the commit fail, with all its business', async () => {
      const tx = aTransaction()
      const { effectKey } = await race.record(tx)
      const business = race.begin(tx)
      await business.query(race.order(tx))
      await race.sweep()
      await expect(business.commit({ closing: race.closing(tx, [effectKey]) })).rejects.toMatchObject(lost)
      expect(await race.isOrdered(tx)).toBe(false)
      expect(race.undone).toEqual([effectKey])
    })

    test('a commit that meets a claim on its way waits for it, and fails', async () => {
      const tx = aTransaction()
      const { effectKey } = await race.record(tx)
      await race.makeDue()
      const claim = await race.claiming()
      const business = race.begin(tx)
      await business.query(race.order(tx))
      const committing = business.commit({ closing: race.closing(tx, [effectKey]) })
      const failed = expect(committing).rejects.toMatchObject(lost)
      await race.somebodyWaits()
      await claim.commit()
      await failed
      expect(await race.isOrdered(tx)).toBe(false)
      expect(await race.statuses()).toEqual(['running'])
    })

    test('a commit that meets a claim whose isolate dies goes through', async () => {
      const tx = aTransaction()
      const { effectKey } = await race.record(tx)
      await race.makeDue()
      const claim = await race.claiming()
      const business = race.begin(tx)
      await business.query(race.order(tx))
      const committing = business.commit({ closing: race.closing(tx, [effectKey]) })
      await race.somebodyWaits()
      claim.abandon()
      await committing
      expect(await race.isOrdered(tx)).toBe(true)
      expect(await race.statuses()).toEqual([])
    })

    test('of two effects the loss of one makes the commit fail, and both are undone', async () => {
      const tx = aTransaction()
      const keys = [(await race.record(tx)).effectKey, (await race.record(tx)).effectKey]
      await race.bed.admin`update holdfast.compensations set due_at = now() where id = ${keys[1]!}`
      expect(await race.isolate.undoDue()).toHaveLength(1)
      await expect(race.begin(tx).commit({ last: race.order(tx), closing: race.closing(tx, keys) })).rejects
        .toMatchObject(
          lost,
        )
      expect(await race.isolate.undo(tx.id)).toHaveLength(1)
      expect(race.undone).toEqual([keys[1], keys[0]])
      expect(await race.isOrdered(tx)).toBe(false)
    })
  })

  describe('between two attempts', () => {
    test('the later one takes the effect over, and the earlier can no longer commit', async () => {
      const [earlier, later] = [aTransaction(), aTransaction()]
      const { effectKey } = await race.record(earlier, 'k')
      const business = race.begin(earlier)
      await business.query(race.order(earlier))
      expect(await race.record(later, 'k')).toEqual({ effectKey, resumed: true })
      await expect(business.commit({ closing: race.closing(earlier, [effectKey]) })).rejects.toMatchObject(
        lost,
      )
      expect(await race.isolate.undo(earlier.id)).toEqual([])
      await race.begin(later).commit({ last: race.order(later), closing: race.closing(later, [effectKey]) })
      expect([await race.isOrdered(earlier), await race.isOrdered(later)]).toEqual([false, true])
      expect(race.undone).toEqual([])
    })

    test('the later one waits for a commit on its way, and gets an effect of its own', async () => {
      const [earlier, later] = [aTransaction(), aTransaction()]
      const { effectKey } = await race.record(earlier, 'k')
      const committing = await race.settling(earlier, effectKey)
      const recording = race.record(later, 'k')
      await race.somebodyWaits()
      await committing.commit()
      expect(await recording).toMatchObject({
        resumed: false,
        effectKey: expect.not.stringContaining(effectKey),
      })
    })

    test('the later one waits for a commit on its way, and takes over when that is rolled back', async () => {
      const [earlier, later] = [aTransaction(), aTransaction()]
      const { effectKey } = await race.record(earlier, 'k')
      const committing = await race.settling(earlier, effectKey)
      const recording = race.record(later, 'k')
      await race.somebodyWaits()
      await committing.rollback()
      expect(await recording).toEqual({ effectKey, resumed: true })
    })

    test('the later one is refused, to come again, when the sweep is just claiming the effect', async () => {
      const [earlier, later] = [aTransaction(), aTransaction()]
      await race.record(earlier, 'k')
      await race.makeDue()
      const claim = await race.claiming()
      const recording = race.record(later, 'k')
      const refused = expect(recording).rejects.toMatchObject({ code: 'CONFLICT', retryable: true })
      await race.somebodyWaits()
      await claim.commit()
      await refused
    })

    test('an effect that was taken over is not due before the later attempt is over as well', async () => {
      const [earlier, later] = [aTransaction(), aTransaction(60_000)]
      await race.record(earlier, 'k')
      await race.makeDue()
      await race.record(later, 'k')
      expect(await race.isolate.undoDue()).toEqual([])
      const [row] = await race.bed.rows(race.isolate.functionName)
      expect(row!.dueInMs).toBeGreaterThan(115_000)
    })

    test('of many that record it at once one may commit', async () => {
      const attempts = Array.from({ length: 8 }, () => aTransaction())
      const effects = await Promise.all(attempts.map((tx) => race.record(tx, 'k')))
      expect(effects.filter(({ resumed }) => !resumed)).toHaveLength(1)
      expect(new Set(effects.map(({ effectKey }) => effectKey)).size).toBe(1)
      const [{ effectKey }] = effects as [(typeof effects)[0]]
      const commits = await Promise.allSettled(
        attempts.map((tx) =>
          race.begin(tx).commit({ last: race.order(tx), closing: race.closing(tx, [effectKey]) })
        ),
      )
      expect(commits.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    })
  })

  describe('between two that undo', () => {
    test('each effect is undone once, however many sweep', async () => {
      for (let i = 0; i < 12; i++) await race.record(aTransaction())
      await race.makeDue()
      const reports = await Promise.all([
        race.isolate.undoDue(),
        race.isolate.undoDue(),
        race.isolate.undoDue(),
      ])
      expect(reports.flat()).toHaveLength(12)
      expect(race.undone).toHaveLength(12)
      expect(new Set(race.undone).size).toBe(12)
    })

    test('no other begins with an earlier effect while a later one of its transaction is being undone', async () => {
      const log: string[] = []
      const tx = aTransaction()
      for (const number of [1, 2]) await race.isolate.record(tx, 'refund', number)
      await race.makeDue()
      const slow = race.gated(log)
      const sweeping = slow.isolate.undoDue()
      await slow.arrived
      expect(await race.isolate.undoDue()).toEqual([])
      slow.open()
      await sweeping
      expect(log).toEqual(['began 2', 'ended 2', 'began 1', 'ended 1'])
    })

    test('when an isolate dies in its handler the lease ends and another undoes it; the late one changes nothing', async () => {
      const log: string[] = []
      const tx = aTransaction()
      const { effectKey } = await race.record(tx)
      const dying = race.gated(log)
      const late = dying.isolate.undo(tx.id)
      await dying.arrived
      expect(await race.isolate.undoDue()).toEqual([])
      expect(await race.sweep()).toMatchObject([{ outcome: 'undone' }])
      expect(race.undone).toEqual([effectKey])
      dying.fail(new Error('too late'))
      expect(await late).toMatchObject([{ outcome: 'failed', error: new Error('too late') }])
      expect(await race.bed.rows(race.isolate.functionName)).toMatchObject([
        { status: 'undone', attempts: 2, last_error: null },
      ])
    })

    test('one that comes back after its lease has ended is told so, and does not call the effect undone', async () => {
      const log: string[] = []
      const tx = aTransaction()
      await race.record(tx)
      const slow = race.gated(log)
      const late = slow.isolate.undo(tx.id)
      await slow.arrived
      await race.makeDue()
      const claim = await race.claiming()
      await claim.commit()
      slow.open()
      expect(await late).toMatchObject([{ outcome: 'failed', error: { code: 'CONFLICT', retryable: true } }])
      expect(await race.statuses()).toEqual(['running'])
    })

    test('an effect whose undoing could not be written down is undone once more when the lease ends', async () => {
      const away = new HoldfastError('SERVICE_UNAVAILABLE', 'Cannot reach PostgreSQL')
      const cut = race.withOwner((query, real) =>
        query.compile().text.includes('finish_compensation') ? Promise.reject(away) : real.query(query)
      )
      const tx = aTransaction()
      const { effectKey } = await race.record(tx)
      expect(await cut.undo(tx.id)).toMatchObject([{ outcome: 'failed', error: away }])
      expect(await race.isolate.undoDue()).toEqual([])
      expect(await race.sweep()).toMatchObject([{ outcome: 'undone' }])
      expect(race.undone).toEqual([effectKey, effectKey])
    })
  })

  test('undo() passes over what another holds at that moment, and leaves it to the sweep', async () => {
    const tx = aTransaction()
    const { effectKey } = await race.record(tx)
    const committing = await race.settling(tx, effectKey)
    expect(await race.isolate.undo(tx.id)).toEqual([])
    await committing.rollback()
    expect(await race.sweep()).toHaveLength(1)
  })

  test('two effects with one resume key cannot be on record at once', async () => {
    await race.record(aTransaction(), 'k')
    await expect(race.bed.admin`
      insert into holdfast.compensations (transaction_id, function_name, name, args, resume_key, due_at, caller_role)
      values (gen_random_uuid(), ${race.isolate.functionName}, 'refund', '1', 'k', now(), 'anon')`)
      .rejects.toMatchObject({ code: '23505' })
  })
})

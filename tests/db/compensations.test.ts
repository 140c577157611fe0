/** Effects outside the database: on record before they happen, and undone in order when their transaction is not to be. */
import { beforeAll, describe, expect, test } from 'vitest'
import { createDb, type Db, sql, type SqlQuery } from '../../supabase/functions/_shared/db/client.ts'
import { HoldfastError } from '../../supabase/functions/_shared/core/errors.ts'
import { aTransaction, type CompensationBed, compensationBed, undoes } from '../support/compensations.ts'
import { onEachPostgres } from '../support/database.ts'

onEachPostgres('compensations', (pg) => {
  let bed: CompensationBed

  beforeAll(async () => {
    bed = await compensationBed(pg.major)
  })

  describe('record()', () => {
    test('is durable at once, due a minute after the deadline, and says who asked', async () => {
      const isolate = bed.open({ refund: undoes })
      const actor = {
        caller: {
          kind: 'user' as const,
          role: 'authenticated' as const,
          userId: 'ada',
          claims: { sub: 'ada' },
        },
        request: { requestId: 'req-1', functionName: 'orders', method: 'POST', path: '/orders' },
      }
      const tx = { ...aTransaction(30_000), actor }
      const { effectKey, resumed } = await isolate.record(tx, 'refund', { amount: 1 })
      expect(resumed).toBe(false)
      const [row] = await bed.admin`
        select transaction_id, name, args, status, caller_role, caller_id, request_id, attempts::int,
          round(extract(epoch from due_at - recorded_at))::int as due_in_seconds
        from holdfast.compensations where id = ${effectKey}`
      expect(row).toEqual({
        transaction_id: tx.id,
        name: 'refund',
        args: { amount: 1 },
        status: 'pending',
        caller_role: 'authenticated',
        caller_id: 'ada',
        request_id: 'req-1',
        attempts: 0,
        due_in_seconds: 90,
      })
    })

    test('refuses a name without a handler before anything is sent', async () => {
      const away = createDb({ url: 'postgresql://nobody@127.0.0.1:1/nowhere' })
      const isolate = bed.open({ refund: undoes, unbook: undoes }, { db: away })
      for (const name of ['chargeback', 'toString', '']) {
        await expect(isolate.record(aTransaction(), name, null)).rejects.toThrow(TypeError)
      }
      await expect(isolate.record(aTransaction(), 'chargeback', null)).rejects.toThrow(
        'Cannot compensate by "chargeback": there are the handlers refund, unbook',
      )
      await away.close()
    })

    test('takes any JSON, and hands it to the handler as it was', async () => {
      const seen: unknown[] = []
      const isolate = bed.open({ keep: (args) => Promise.resolve(void seen.push(args)) })
      const tx = aTransaction()
      const all = [undefined, null, 'text', '"', 7.5, true, ['a', null], { 'ключ': { deep: [{}] } }]
      for (const args of all) await isolate.record(tx, 'keep', args)
      await isolate.undo(tx.id)
      expect(seen.reverse()).toEqual([null, ...all.slice(1)])
      await expect(isolate.record(tx, 'keep', { nul: '\0' })).rejects.toMatchObject({
        code: 'VALIDATION_ERROR',
      })
      await expect(isolate.record(tx, 'keep', 1n)).rejects.toThrow(TypeError)
    })
  })

  test('handlers and times that cannot be are refused at construction', () => {
    expect(() => bed.open({ refund: 'no' as never })).toThrow(TypeError)
    expect(() => bed.open({ '': undoes })).toThrow(TypeError)
    for (const handlerTimeoutMs of [0, -1, 1.5, Number.NaN, Infinity]) {
      expect(() => bed.open({}, { handlerTimeoutMs })).toThrow(RangeError)
    }
  })

  describe('undo()', () => {
    test('runs the handlers last recorded first, each with its arguments and its effect key', async () => {
      const seen: unknown[] = []
      const isolate = bed.open({
        refund: (args, context) => Promise.resolve(void seen.push(['refund', args, context])),
        unbook: (args, context) => Promise.resolve(void seen.push(['unbook', args, context])),
      })
      const tx = aTransaction()
      const first = await isolate.record(tx, 'refund', { amount: 1 })
      const second = await isolate.record(tx, 'unbook', ['seat', null])
      const other = await isolate.record(aTransaction(), 'refund', null)
      const reports = await isolate.undo(tx.id)
      const facts = { attempt: 1, recordedAt: expect.any(Date), ageMs: expect.any(Number) }
      expect(seen).toMatchObject([
        ['unbook', ['seat', null], { ...facts, effectKey: second.effectKey }],
        ['refund', { amount: 1 }, { ...facts, effectKey: first.effectKey }],
      ])
      expect(reports).toEqual([second, first].map(({ effectKey }, index) => ({
        id: effectKey,
        name: ['unbook', 'refund'][index],
        effectKey,
        outcome: 'undone',
      })))
      expect(new Set([first.effectKey, second.effectKey, other.effectKey]).size).toBe(3)
      expect(await bed.rows(isolate.functionName)).toMatchObject([
        { status: 'undone', ended: true },
        { status: 'undone', ended: true },
        { status: 'pending', ended: false },
      ])
      expect(await isolate.undo(tx.id)).toEqual([])
    })

    test('goes on to the earlier ones when one fails, which the sweep tries again', async () => {
      const undone: string[] = []
      let failures = 1
      const isolate = bed.open({
        late: () => failures-- > 0 ? Promise.reject(new Error('provider away')) : undoes(),
        early: () => Promise.resolve(void undone.push('early')),
      })
      const tx = aTransaction()
      await isolate.record(tx, 'early', null)
      await isolate.record(tx, 'late', null)
      expect(await isolate.undo(tx.id)).toMatchObject([
        { name: 'late', outcome: 'failed', error: new Error('provider away') },
        { name: 'early', outcome: 'undone' },
      ])
      const [early, late] = await bed.rows(isolate.functionName)
      expect(early).toMatchObject({ status: 'undone' })
      expect(late).toMatchObject({ status: 'retryable', attempts: 1, last_error: 'Error: provider away' })
      expect(late!.dueInMs).toBeGreaterThan(25_000)
      expect(late!.dueInMs).toBeLessThanOrEqual(30_000)
      expect(await isolate.undoDue()).toEqual([])
      await bed.makeDue(isolate.functionName)
      expect(await isolate.undoDue()).toMatchObject([{ name: 'late', outcome: 'undone' }])
    })

    test('leaves those with a resume key to the next attempt when told so', async () => {
      const isolate = bed.open({ refund: undoes })
      const tx = aTransaction()
      await isolate.record(tx, 'refund', null, { resumeKey: 'a' })
      await isolate.record(tx, 'refund', null)
      expect(await isolate.undo(tx.id, { deferResumable: true })).toHaveLength(1)
      expect(await bed.rows(isolate.functionName)).toMatchObject([
        { status: 'pending', attempts: 0 },
        { status: 'undone' },
      ])
      expect(await isolate.undo(tx.id)).toHaveLength(1)
    })

    test('never rejects: when the database is away the sweep is left to do it', async () => {
      const away = createDb({ url: 'postgresql://nobody@127.0.0.1:1/nowhere' })
      const isolate = bed.open({ refund: undoes }, { db: away })
      const tx = aTransaction()
      expect(await isolate.undo(tx.id)).toEqual([])
      expect(bed.logged).toContainEqual(expect.objectContaining({
        level: 'error',
        message: 'Effects cannot be undone now, the sweep will',
        transactionId: tx.id,
      }))
      await away.close()
    })

    test('does not wait for a handler that ignores its signal', async () => {
      let given: AbortSignal | undefined
      const isolate = bed.open({
        hang: (_, { signal }) => (given = signal, new Promise(() => {})),
      }, { handlerTimeoutMs: 30 })
      const tx = aTransaction()
      await isolate.record(tx, 'hang', null)
      expect(await isolate.undo(tx.id)).toMatchObject([
        { outcome: 'failed', error: { code: 'UPSTREAM_TIMEOUT' } },
      ])
      expect(given?.aborted).toBe(true)
      expect(await bed.rows(isolate.functionName)).toMatchObject([{ status: 'retryable', attempts: 1 }])
    })
  })

  describe('undoDue()', () => {
    test('undoes what is due, last first within a transaction, also where the earlier fell due first', async () => {
      const seen: unknown[] = []
      const isolate = bed.open({ unbook: (seat) => Promise.resolve(void seen.push(seat)) })
      const tx = aTransaction()
      for (const seat of [1, 2, 3]) await isolate.record(tx, 'unbook', seat)
      await bed
        .admin`update holdfast.compensations set due_at = now() where transaction_id = ${tx.id} and args = '1'`
      expect(await isolate.undoDue()).toEqual([])
      await bed.makeDue(isolate.functionName)
      expect(await isolate.undoDue()).toHaveLength(3)
      expect(seen).toEqual([3, 2, 1])
    })

    test('does not let one that waits for its next attempt hold up the earlier ones', async () => {
      const isolate = bed.open({ fail: () => Promise.reject(new Error('no')), refund: undoes })
      const tx = aTransaction()
      await isolate.record(tx, 'refund', null)
      await isolate.record(tx, 'fail', null)
      await bed.makeDue(isolate.functionName)
      expect(await isolate.undoDue()).toMatchObject([
        { name: 'fail', outcome: 'failed' },
        { name: 'refund', outcome: 'undone' },
      ])
    })

    test('reports effects whose handler this deployment does not declare, and leaves them due', async () => {
      const older = bed.open({ gone: undoes, refund: undoes })
      const newer = bed.open({ refund: undoes }, { functionName: older.functionName })
      const tx = aTransaction()
      await older.record(tx, 'refund', null)
      await older.record(tx, 'gone', null)
      await bed.makeDue(older.functionName)
      const reports = await newer.undoDue()
      expect(reports).toMatchObject([
        { name: 'gone', outcome: 'failed', error: expect.any(HoldfastError) },
        { name: 'refund', outcome: 'undone' },
      ])
      expect(await bed.rows(older.functionName)).toMatchObject([
        { status: 'undone' },
        { name: 'gone', status: 'pending', attempts: 0 },
      ])
      expect(await older.undoDue()).toMatchObject([{ name: 'gone', outcome: 'undone' }])
    })

    test('begins no more than its limit, and nothing once its signal is aborted', async () => {
      const isolate = bed.open({ refund: undoes })
      for (let i = 0; i < 5; i++) await isolate.record(aTransaction(), 'refund', null)
      await bed.makeDue(isolate.functionName)
      expect(await isolate.undoDue({ signal: AbortSignal.abort() })).toEqual([])
      expect(await isolate.undoDue({ limit: 2 })).toHaveLength(2)
      expect(await isolate.undoDue()).toHaveLength(3)
    })

    test('rejects when the database is away', async () => {
      const away = createDb({ url: 'postgresql://nobody@127.0.0.1:1/nowhere' })
      await expect(bed.open({ refund: undoes }, { db: away }).undoDue()).rejects.toMatchObject({
        code: 'SERVICE_UNAVAILABLE',
      })
      await away.close()
    })

    test('reports what it has undone when the database goes away in the middle', async () => {
      let claims = 0
      const owner = {
        query: (query: SqlQuery) =>
          query.compile().text.includes('claim_compensation') && ++claims > 2
            ? Promise.reject(new HoldfastError('SERVICE_UNAVAILABLE', 'Cannot reach PostgreSQL'))
            : bed.db.owner.query(query),
      } as Db['owner']
      const isolate = bed.open({ refund: undoes }, { db: { ...bed.db, owner } })
      for (let i = 0; i < 3; i++) await isolate.record(aTransaction(), 'refund', null)
      await bed.makeDue(isolate.functionName)
      expect(await isolate.undoDue()).toMatchObject([{ outcome: 'undone' }, { outcome: 'undone' }])
      expect(bed.logged.at(-1)).toMatchObject({ level: 'error', message: 'The sweep of effects broke off' })
      expect((await bed.rows(isolate.functionName)).map(({ status }) => status).sort())
        .toEqual(['pending', 'undone', 'undone'])
    })

    test('gives up after the last attempt, says so in the log, and retry_compensation() sends it back', async () => {
      let broken = true
      const isolate = bed.open({ stuck: () => broken ? Promise.reject(new Error('no')) : undoes() })
      const { effectKey } = await isolate.record(aTransaction(), 'stuck', null)
      await bed
        .admin`update holdfast.compensations set status = 'retryable', attempts = 19 where id = ${effectKey}`
      await bed.makeDue(isolate.functionName)
      expect(await isolate.undoDue()).toMatchObject([{ outcome: 'failed', error: new Error('no') }])
      expect(await bed.rows(isolate.functionName)).toMatchObject([
        { status: 'discarded', attempts: 20, last_error: 'Error: no', ended: true },
      ])
      expect(bed.logged).toContainEqual(expect.objectContaining({
        level: 'error',
        message: 'An effect could not be undone and was given up',
        effectKey,
        fix: `select holdfast.retry_compensation('${effectKey}')`,
      }))
      await bed.makeDue(isolate.functionName)
      expect(await isolate.undoDue()).toEqual([])

      broken = false
      const retry = async (id: string) =>
        (await bed.db.owner.query(sql`select holdfast.retry_compensation(${id}) as retried`))[0]?.retried
      expect(await retry(effectKey)).toBe(true)
      expect(await isolate.undoDue()).toMatchObject([{ outcome: 'undone' }])
      expect(await retry(effectKey)).toBe(false)
    })

    test('gives up as well on an effect whose handler ends the isolate every time', async () => {
      const isolate = bed.open({ deadly: undoes })
      const { effectKey } = await isolate.record(aTransaction(), 'deadly', null)
      await bed.admin`
        update holdfast.compensations set status = 'running', attempts = 20, due_at = now() where id = ${effectKey}`
      expect(await isolate.undoDue()).toMatchObject([
        { outcome: 'failed', error: new Error('the isolate ended each time') },
      ])
      expect(await bed.rows(isolate.functionName)).toMatchObject([{ status: 'discarded', attempts: 20 }])
    })
  })

  describe('a resume key', () => {
    test('hands an effect that may stand to the next attempt, with the same effect key', async () => {
      const isolate = bed.open({ refund: undoes })
      const first = await isolate.record(aTransaction(), 'refund', 1, { resumeKey: 'k' })
      const second = await isolate.record(aTransaction(), 'refund', 1, { resumeKey: 'k' })
      expect(first.resumed).toBe(false)
      expect(second).toEqual({ effectKey: first.effectKey, resumed: true })
      expect(await bed.rows(isolate.functionName)).toHaveLength(1)
    })

    test('is of one handler of one function', async () => {
      const [one, other] = [bed.open({ a: undoes, b: undoes }), bed.open({ a: undoes })]
      const effects = [
        await one.record(aTransaction(), 'a', null, { resumeKey: 'k' }),
        await one.record(aTransaction(), 'b', null, { resumeKey: 'k' }),
        await other.record(aTransaction(), 'a', null, { resumeKey: 'k' }),
      ]
      expect(effects.map(({ resumed }) => resumed)).toEqual([false, false, false])
    })

    test('means a new effect once the earlier one was undone, and once it was settled', async () => {
      const isolate = bed.open({ refund: undoes })
      const record = (tx = aTransaction()) => isolate.record(tx, 'refund', null, { resumeKey: 'k' })
      const [undone, settled] = [aTransaction(), aTransaction()]
      const first = await record(undone)
      await isolate.undo(undone.id)
      const second = await record(settled)
      await bed.db.owner.query(isolate.settle(settled.id, [second.effectKey]))
      const third = await record()
      expect([first, second, third].map(({ resumed }) => resumed)).toEqual([false, false, false])
      expect(new Set([first, second, third].map(({ effectKey }) => effectKey)).size).toBe(3)
    })

    test('is refused while the effect is being undone, between two attempts at that, and when it is given up', async () => {
      const started = Promise.withResolvers<void>()
      const finish = Promise.withResolvers<void>()
      const isolate = bed.open({ refund: () => (started.resolve(), finish.promise) })
      const tx = aTransaction()
      const { effectKey } = await isolate.record(tx, 'refund', null, { resumeKey: 'k' })
      const record = () => isolate.record(aTransaction(), 'refund', null, { resumeKey: 'k' })
      const later = { code: 'CONFLICT', status: 409, retryable: true, retryAfterMs: 1_000 }

      const undoing = isolate.undo(tx.id)
      await started.promise
      await expect(record()).rejects.toMatchObject(later)
      finish.reject(new Error('no answer'))
      await undoing
      // The refund may have happened: the charge is not to be used again.
      await expect(record()).rejects.toMatchObject(later)
      await bed
        .admin`update holdfast.compensations set status = 'discarded', ended_at = now() where id = ${effectKey}`
      await expect(record()).rejects.toMatchObject({ code: 'CONFLICT', retryable: false })
      expect(await bed.rows(isolate.functionName)).toHaveLength(1)
    })
  })

  describe('withdraw()', () => {
    test('ends the duty for an effect that never happened', async () => {
      const isolate = bed.open({ refund: () => Promise.reject(new Error('not to be called')) })
      const tx = aTransaction()
      const { effectKey } = await isolate.record(tx, 'refund', null, { resumeKey: 'k' })
      expect(await isolate.withdraw(tx.id, effectKey)).toBe(true)
      expect(await isolate.undo(tx.id)).toEqual([])
      const again = await isolate.record(aTransaction(), 'refund', null, { resumeKey: 'k' })
      expect(again.resumed).toBe(false)
    })

    test('changes nothing about an effect that another attempt has taken over', async () => {
      const isolate = bed.open({ refund: undoes })
      const [earlier, later] = [aTransaction(), aTransaction()]
      const { effectKey } = await isolate.record(earlier, 'refund', null, { resumeKey: 'k' })
      await isolate.record(later, 'refund', null, { resumeKey: 'k' })
      expect(await isolate.withdraw(earlier.id, effectKey)).toBe(false)
      expect(await bed.rows(isolate.functionName)).toMatchObject([{ status: 'pending' }])
      expect(await isolate.withdraw(later.id, effectKey)).toBe(true)
      await expect(bed.db.owner.query(isolate.settle(earlier.id, [effectKey]))).rejects.toMatchObject({
        sqlState: 'HF002',
      })
    })
  })
})

/** The schedules of compensations: who is rung when, what is kept how long, and who may see or call any of it. */
import postgres from 'postgres'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { HoldfastError } from '../../supabase/functions/_shared/core/errors.ts'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import { aTransaction, type CompensationBed, compensationBed, undoes } from '../support/compensations.ts'
import { onEachPostgres } from '../support/database.ts'
import { closeAfterFile } from '../support/leftovers.ts'
import { asCaller, type Sql } from '../support/sql.ts'

onEachPostgres('the sweep of compensations', (pg) => {
  let bed: CompensationBed
  /** As `postgres`, which the jobs run as. */
  let owner: Sql
  const warnings: string[] = []

  beforeAll(async () => {
    bed = await compensationBed(pg.major)
    owner = postgres(bed.database.url, {
      max: 1,
      prepare: false,
      onnotice: ({ severity, message }) => warnings.push(`${severity} ${message}`),
    })
    closeAfterFile({ name: 'the client of the sweep', close: () => owner.end() })
  })

  beforeEach(async () => {
    await bed.admin`truncate holdfast.compensations, holdfast.transactions, net.http_request_queue`
    await bed.admin`delete from vault.secrets`
    warnings.length = 0
  })

  const store = (url = 'http://127.0.0.1:1') =>
    bed.admin`select vault.create_secret(${url}, 'holdfast_url'),
      vault.create_secret('sb_secret_test', 'holdfast_secret_key')`
  const ring = async () => Number((await owner`select holdfast.ring_compensations() as rung`)[0]?.rung)
  const queued = () =>
    bed.admin`
      select method, url, headers ->> 'apikey' as key, timeout_milliseconds from net.http_request_queue order by url`
  const due = async (functionName: string, count = 1) => {
    const isolate = bed.open({ refund: undoes }, { functionName })
    for (let i = 0; i < count; i++) await isolate.record(aTransaction(), 'refund', null)
    await bed.makeDue(functionName)
  }

  describe('ring_compensations()', () => {
    test('calls each function that has something due, once, with the secret key', async () => {
      await store('http://127.0.0.1:1/')
      await due('orders', 3)
      await due('mail')
      await bed.open({ refund: undoes }, { functionName: 'idle' }).record(aTransaction(), 'refund', null)
      expect(await ring()).toBe(2)
      expect(await queued()).toMatchObject(['mail', 'orders'].map((name) => ({
        method: 'POST',
        url: `http://127.0.0.1:1/functions/v1/${name}/compensations`,
        key: 'sb_secret_test',
        timeout_milliseconds: 90_000,
      })))
    })

    test('calls nobody for what is not due, is leased, undone or discarded', async () => {
      await store()
      const isolate = bed.open({ refund: undoes }, { functionName: 'orders' })
      for (const status of ['pending', 'running', 'retryable', 'undone', 'discarded']) {
        const { effectKey } = await isolate.record(aTransaction(), 'refund', null)
        const ended = status === 'undone' || status === 'discarded'
        await bed.admin`
          update holdfast.compensations
          set status = ${status}, ended_at = case when ${ended} then now() end,
            due_at = case when ${ended} then now() else due_at end
          where id = ${effectKey}`
      }
      expect(await ring()).toBe(0)
      await bed.makeDue('orders')
      expect(await ring()).toBe(1)
    })

    test('rings again for a lease that has ended and for an attempt whose wait is over', async () => {
      await store()
      await due('orders')
      for (const status of ['running', 'retryable']) {
        await bed.admin`update holdfast.compensations set status = ${status}, attempts = 1`
        expect(await ring()).toBe(1)
      }
    })

    test.each(['holdfast_url', 'holdfast_secret_key'])(
      'without the secret %s it warns, and all stays due',
      async (name) => {
        await store()
        await bed.admin`delete from vault.secrets where name = ${name}`
        expect(await ring()).toBe(0)
        expect(warnings).toEqual([])
        await due('orders')
        expect(await ring()).toBe(0)
        expect(warnings).toEqual([
          'WARNING Cannot undo what is due: the Vault has no secrets holdfast_url and holdfast_secret_key',
        ])
        expect(await queued()).toEqual([])
        expect(await bed.rows('orders')).toMatchObject([{ status: 'pending', attempts: 0 }])
      },
    )

    test.each([
      ['Vault', 'alter schema vault rename to vault_away', 'alter schema vault_away rename to vault'],
      ['pg_net', 'alter schema net rename to net_away', 'alter schema net_away rename to net'],
    ])('without %s it warns, and does not fail', async (_, remove, restore) => {
      await store()
      await due('orders')
      await bed.admin.unsafe(remove)
      try {
        expect(await ring()).toBe(0)
        expect(warnings).toEqual([
          expect.stringMatching(/^WARNING Cannot undo what is due: .* does not exist/),
        ])
      } finally {
        await bed.admin.unsafe(restore)
      }
    })

    test('ends what a transaction has settled without seeing it, and rings for nobody', async () => {
      await store()
      await due('orders')
      await bed.admin`
        insert into holdfast.transactions
          (id, status, caller_role, isolation, attempt, started_at, deadline_at, ended_at, operations, tables)
        select transaction_id, 'committed', 'anon', 'serializable', 1, now(), now(), now(), 1, '{}'
        from holdfast.compensations`
      expect(await ring()).toBe(0)
      expect(await bed.rows('orders')).toMatchObject([{ status: 'settled', ended: true }])
    })
  })

  test('the ring and the purge are scheduled', async () => {
    const jobs = await bed.admin`
      select jobname, schedule, command from cron.job where jobname like 'holdfast_%_compensations' order by 1`
    expect(jobs).toEqual([
      {
        jobname: 'holdfast_purge_compensations',
        schedule: '*/10 * * * *',
        command: 'select holdfast.purge_compensations()',
      },
      {
        jobname: 'holdfast_ring_compensations',
        schedule: '* * * * *',
        command: 'select holdfast.ring_compensations()',
      },
    ])
  })

  test('purge_compensations() removes in batches what ended a month ago, but not what was given up', async () => {
    await due('orders', 6)
    const ids = (await bed.rows('orders')).map(({ id }) => id)
    const states = [['undone', 31], ['undone', 32], ['settled', 31], ['undone', 29], [
      'discarded',
      99,
    ]] as const
    for (const [index, [status, days]] of states.entries()) {
      await bed.admin`
        update holdfast.compensations
        set status = ${status}, attempts = 1, ended_at = now() - make_interval(days => ${days})
        where id = ${ids[index]!}`
    }
    const purge = async () => Number((await owner`select holdfast.purge_compensations(2) as count`)[0]?.count)
    expect([await purge(), await purge(), await purge()]).toEqual([2, 1, 0])
    expect((await bed.rows('orders')).map(({ status }) => status)).toEqual(['undone', 'discarded', 'pending'])
  })

  test('the wait between attempts doubles from 30 s to an hour, and ends after 20 attempts', async () => {
    const rows = await bed.admin`
      select extract(epoch from holdfast.compensation_backoff(n))::int as seconds
      from generate_series(1, holdfast.compensation_max_attempts()) as n`
    const waits = rows.map(({ seconds }) => seconds)
    expect(waits).toEqual([30, 60, 120, 240, 480, 960, 1920, ...Array(13).fill(3600)])
    expect(waits.reduce((sum, wait) => sum + wait) / 3600).toBeLessThan(14.2)
  })

  test.each(['CIRCUIT_OPEN', 'BULKHEAD_FULL'])(
    'what is refused with %s was no attempt: the outside service was not asked',
    async (code) => {
      let refuses = true
      const isolate = bed.open({
        refund: () => refuses ? Promise.reject(new HoldfastError(code, 'Not now')) : Promise.resolve(),
      }, { functionName: 'orders' })
      await isolate.record(aTransaction(), 'refund', null)
      for (let round = 0; round < 25; round++) {
        await bed.makeDue('orders')
        expect(await isolate.undoDue()).toMatchObject([{ outcome: 'failed', error: { code } }])
      }
      expect(await bed.rows('orders')).toMatchObject([{ status: 'retryable', attempts: 0, ended: false }])
      refuses = false
      await bed.makeDue('orders')
      expect(await isolate.undoDue()).toMatchObject([{ outcome: 'undone' }])
    },
  )

  describe('what cannot be stored', () => {
    test.each([
      ['a status that is none', `status = 'done'`, 'status_is_known'],
      ['a pending effect somebody has begun to undo', `attempts = 1`, 'pending_ones_were_never_begun'],
      ['one that is undone and does not say when', `status = 'undone'`, 'ended_ones_say_when'],
      ['one that has ended and is due again', `ended_at = now()`, 'ended_ones_say_when'],
      ['a function whose name is no path', `function_name = 'a/../b'`, 'function_name_can_be_called'],
      ['a handler without a name', `name = ''`, 'name_is_not_empty'],
    ])('%s', async (_, change, constraint) => {
      await due('orders')
      await expect(bed.admin.unsafe(`update holdfast.compensations set ${change}`)).rejects.toMatchObject({
        constraint_name: constraint,
      })
    })
  })

  describe('access', () => {
    const someId = crypto.randomUUID()
    const calls = {
      'record an effect': sql`
        select holdfast.record_compensation(${someId}, 1, 'f', 'n', 'null', null, 'anon', null, null)`,
      'settle one': sql`select holdfast.settle_compensations(${someId}, '{}')`,
      'withdraw one': sql`select holdfast.withdraw_compensation(${someId}, ${someId})`,
      'claim one': sql`select holdfast.claim_compensation('f', '{n}', 1)`,
      'finish one': sql`select holdfast.finish_compensation(${someId}, 1)`,
      'retry one': sql`select holdfast.retry_compensation(${someId})`,
      'close the books of a transaction': sql`select holdfast.bar_transaction(${someId})`,
      'ring': sql`select holdfast.ring_compensations()`,
      'purge': sql`select holdfast.purge_compensations()`,
      'see any': sql`select from holdfast.compensations`,
    }

    test.each(['anon', 'authenticated'] as const)('%s can do nothing of it', async (role) => {
      for (const [what, call] of Object.entries(calls)) {
        const { text, values } = call.compile()
        await expect(asCaller(bed.admin, { role }, (tx) => tx.unsafe(text, values)), what)
          .rejects.toMatchObject({ code: '42501' })
      }
    })

    test('service_role sees all and changes nothing', async () => {
      await due('orders')
      const service = { role: 'service_role' } as const
      expect(await asCaller(bed.admin, service, (tx) => tx`select from holdfast.compensations`)).toHaveLength(
        1,
      )
      await expect(asCaller(bed.admin, service, (tx) => tx`delete from holdfast.compensations where true`))
        .rejects.toMatchObject({ code: '42501' })
    })
  })
})

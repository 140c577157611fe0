/** Seals over the audit trail: whatever a superuser does to it behind their back is found and named. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  clearTrail,
  emptyTrail,
  makeMonth,
  rehash,
  seal,
  tamper,
  verify,
  write,
} from '../support/auditTrail.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import type { Queries, Sql } from '../support/sql.ts'

const month = '2021-05'
const at = `'${month}-10 12:00+00'::timestamptz + n * interval '1 minute'`

onEachPostgres('audit.verify()', (pg) => {
  let sql: Sql
  let admin: Sql
  /** Two seals of five changes each, of one month. */
  let ids: number[]

  beforeAll(async () => {
    ;({ sql, admin } = await emptyTrail(await freshDatabase(pg.major)))
    await makeMonth(sql, month)
  })

  beforeEach(async () => {
    await clearTrail(admin)
    // Both before the first seal: what comes after one and says it is older is slipped in.
    ids = [...await write(sql, 5, at), ...await write(sql, 5, at)]
    for (const last of [false, true]) {
      expect(await seal(sql, last ? 6 : 5)).toMatchObject({ changes: 5, complete: last })
    }
    expect(await verify(sql)).toMatchObject({
      intact: true,
      problem: null,
      checked_changes: 10,
      checked_seals: 2,
    })
  })

  const found = async (work: (tx: Queries) => Promise<unknown>) => {
    await tamper(admin, work)
    const { intact, problem, change_id } = await verify(sql)
    expect(intact).toBe(problem === null)
    return { problem, change_id }
  }

  describe('names a change', () => {
    /** For each column a value that differs from the one that was written. */
    const values: Record<string, string> = {
      occurred_at: `occurred_at + interval '1 microsecond'`,
      transaction_id: 'transaction_id + 1',
      actor_id: 'gen_random_uuid()',
      actor_role: `'service_role'`,
      ip: `'10.1.2.4'`,
      user_agent: `user_agent || ' '`,
      request_id: `''`,
      function_name: 'null',
      schema_name: `'private'`,
      table_name: `'order_items'`,
      object_identity: `'public.order_items'`,
      operation: `'DELETE'`,
      primary_key: `'1' || primary_key`,
      details: `jsonb_set(details, '{row,new,id}', '1.0')`,
    }

    test.each(Object.entries(values))('whose %s was altered', async (column, value) => {
      const id = ids[6]!
      expect(
        await found((tx) =>
          tx.unsafe(`update audit.database_changes set ${column} = ${value} where id = ${id}`)
        ),
      ).toEqual({ problem: `Change ${id} of ${month} was altered after it was sealed`, change_id: id })
    })

    test('and there is no column that none of these tests alters', async () => {
      const columns = await sql`
        select attname from pg_attribute
        where attrelid = 'audit.database_changes'::regclass and attnum > 0 and not attisdropped`
      expect(columns.map(({ attname }) => attname).sort()).toEqual(['id', ...Object.keys(values)].sort())
    })

    test('whose id was altered, as the one that is not there any more', async () => {
      const [, , id] = ids
      expect(await found((tx) => tx`update audit.database_changes set id = id + 1000000 where id = ${id!}`))
        .toEqual({ problem: `Change ${id} of ${month} was deleted after it was sealed`, change_id: id })
    })

    test.each(['2021-06-10', '2026-11-10', '1999-01-01', '-infinity', 'infinity'])(
      'whose time was moved to %s, into another month or partition',
      async (time) => {
        const [id] = ids
        expect(
          await found((tx) =>
            tx`update audit.database_changes set occurred_at = ${time}::text::timestamptz where id = ${id!}`
          ),
        )
          .toMatchObject({
            problem: expect.stringMatching(`^Change ${id} of ${month} was altered .*: it now says `),
            change_id: id,
          })
      },
    )

    test('that was deleted', async () => {
      const id = ids[8]!
      expect(await found((tx) => tx`delete from audit.database_changes where id = ${id}`))
        .toEqual({ problem: `Change ${id} of ${month} was deleted after it was sealed`, change_id: id })
    })

    test('that swapped all but its id with another', async () => {
      const [, first, , second] = ids
      expect(
        await found((tx) =>
          tx`
        update audit.database_changes set id = ${first! + second!} - id where id in (${first!}, ${second!})`
        ),
      )
        .toEqual({ problem: `Change ${first} of ${month} was altered after it was sealed`, change_id: first })
    })

    test('that swapped its contents with another', async () => {
      const [, first, , second] = ids
      expect(
        await found((tx) =>
          tx`
        update audit.database_changes as c set details = o.details
        from audit.database_changes as o
        where c.id in (${first!}, ${second!}) and o.id in (${first!}, ${second!}) and o.id <> c.id`
        ),
      )
        .toEqual({ problem: `Change ${first} of ${month} was altered after it was sealed`, change_id: first })
    })

    test('that was an empty string and is null, or null and is an empty string, or the word', async () => {
      await clearTrail(admin)
      const [id] = await write(sql, 1, at)
      for (const [before, after] of [[null, ''], ['', null], [null, 'null'], ['a', 'a","'], ['"', '\\"']]) {
        await tamper(admin, (tx) => tx`update audit.database_changes set request_id = ${before!}`)
        await tamper(admin, (tx) => tx`truncate audit.seals`)
        await seal(sql)
        expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 1 })
        expect(await found((tx) => tx`update audit.database_changes set request_id = ${after!}`))
          .toMatchObject({ change_id: id })
      }
    })

    test('whose end moved into the next column', async () => {
      const [id] = ids
      await tamper(admin, async (tx) => {
        await tx`update audit.database_changes set user_agent = 'ab', request_id = 'c' where id = ${id!}`
        await rehash(tx)
      })
      expect(
        await found((tx) =>
          tx`update audit.database_changes set user_agent = 'a', request_id = 'bc' where id = ${id!}`
        ),
      )
        .toMatchObject({ change_id: id })
    })

    test('whose number is written otherwise, though it is the same number', async () => {
      const [id] = ids
      expect(
        await found((tx) =>
          tx`update audit.database_changes set details = replace(details::text, ': 1}', ': 1.00}')::jsonb where id = ${id!}`
        ),
      )
        .toMatchObject({ change_id: id })
    })

    test('first, where several and later seals are wrong as well', async () => {
      const [first, , , , , later] = ids
      expect(
        await found(async (tx) => {
          await tx`update audit.database_changes set details = '{}' where id in (${first!}, ${later!})`
          await tx`update audit.seals set hash = changes_hash where link = 2`
        }),
      ).toMatchObject({ change_id: first })
    })
  })

  describe("names a change that was inserted behind the seals' back", () => {
    const copy = (given: { id?: string; at?: string; transaction?: string }) => `
      insert into audit.database_changes
      select ${given.id ?? `nextval('audit.change_ids')`}, ${given.at ?? 'occurred_at'}, ${
      given.transaction ?? 'transaction_id'
    },
        actor_id, actor_role, ip, user_agent, request_id, function_name, schema_name, table_name, object_identity, 'DELETE',
        primary_key, details
      from audit.database_changes order by id limit 1 returning id`

    test.each<[string, Parameters<typeof copy>[0]]>([
      ['a new id', {}],
      ['an id that a rolled-back transaction left', { id: '0' }],
      ['a negative id', { id: '-7' }],
      ['the greatest id there is', { id: '9223372036854775807' }],
      ['the time of now', { at: 'now()' }],
      ['a time without a month', { at: `'infinity'` }],
      ['a time when there were no seals', { at: `'0044-03-15 BC'` }],
    ])('with %s', async (_, given) => {
      let id = ''
      await tamper(admin, async (tx) => {
        ;[{ id }] = await tx.unsafe(copy(given)) as unknown as [{ id: string }]
      })
      for (let run = 0; run < 2; run++) {
        const [row] = await sql`select intact, problem, change_id::text from audit.verify()`
        expect(row).toEqual({
          intact: false,
          problem: expect.stringMatching(`^Change ${id} of .* was inserted behind the seals' back$`),
          change_id: id,
        })
        await seal(sql)
      }
    })

    test('with the id of another', async () => {
      const [id] = ids
      expect(await found((tx) => tx.unsafe(copy({ id: String(id) })))).toEqual({
        problem: `Change ${id} of ${month} is there twice: one was inserted behind the seals' back`,
        change_id: id,
      })
    })

    test.each(['txid_current()', '1000000000000'])(
      'with an old time and the transaction %s, once it is sealed',
      async (transaction) => {
        await tamper(admin, (tx) => tx.unsafe(copy({ transaction })))
        expect(await verify(sql)).toMatchObject({ intact: true, unsealed_changes: 1 })
        expect(await seal(sql)).toMatchObject({ changes: 1 })
        expect(await verify(sql)).toMatchObject({
          intact: false,
          problem: `Change ${
            ids[9]! + 1
          } of ${month} was inserted behind the seals' back: its transaction began after a seal of a later time`,
          change_id: ids[9]! + 1,
          seal_number: 3,
        })
      },
    )
  })

  test('names the month whose partition is gone', async () => {
    await sql.unsafe(
      `alter table audit.database_changes detach partition audit.database_changes_${month.replace('-', '_')}`,
    )
    expect(await verify(sql)).toMatchObject({
      intact: false,
      problem: `The partition of ${month} is missing, and retention did not drop it`,
      seal_month: month,
      seal_number: 1,
      change_id: ids[0],
    })
    await sql.unsafe(`
      alter table audit.database_changes attach partition audit.database_changes_${month.replace('-', '_')}
      for values from ('2021-05-01 00:00+00') to ('2021-06-01 00:00+00')`)
    expect(await verify(sql)).toMatchObject({ intact: true })
  })
})

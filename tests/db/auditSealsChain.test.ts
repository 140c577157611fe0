/** Seals over the audit trail: the chain they are, and what is found when somebody makes links anew. */
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  clearTrail,
  emptyTrail,
  rehash,
  seal,
  type Sealed,
  tamper,
  verify,
  write,
} from '../support/auditTrail.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import type { Queries, Sql } from '../support/sql.ts'

onEachPostgres('the chain of seals', (pg) => {
  let sql: Sql
  let admin: Sql
  let month: string
  let heads: Sealed['head'][]

  beforeAll(async () => {
    ;({ sql, admin } = await emptyTrail(await freshDatabase(pg.major)))
  })

  beforeEach(async () => {
    await clearTrail(admin)
    heads = []
    for (let n = 0; n < 4; n++) {
      await write(sql, 3)
      heads.push((await seal(sql)).head)
    }
    ;[{ month }] =
      await sql`select to_char(month, 'YYYY-MM') as month from audit.seals where link = 1` as unknown as [
        { month: string },
      ]
  })

  const found = async (work: (tx: Queries) => Promise<unknown>, head?: Sealed['head']) => {
    await tamper(admin, work)
    const { problem, seal_number, change_id } = await verify(sql, { head })
    return { problem, seal_number, change_id }
  }

  const values: Record<string, string> = {
    month: `month - interval '1 month'`,
    number: 'number + 100',
    link: 'link + 100',
    change_ids: `change_ids + '{[900000,900001)}'`,
    change_count: 'change_count + 1',
    changes_hash: 'sha256(changes_hash)',
    row_digests: `row_digests || '\\x0123456789abcdef'`,
    first_at: `first_at - interval '1 microsecond'`,
    last_at: 'null',
    last_transaction: 'last_transaction + 1',
    backdated_ids: 'change_ids',
    retired_month: 'month',
    sealed_at: `sealed_at + interval '1 microsecond'`,
    transaction_id: 'transaction_id - 1',
    cluster: 'cluster + 1',
    complete: 'not complete',
    sealed_through: `'7:9:8'`,
    base_id: 'base_id + 1',
    greatest_id: 'greatest_id + 1',
    previous_hash: 'sha256(previous_hash)',
    hash: 'sha256(hash)',
  }

  test.each(Object.entries(values))('is broken at a seal whose %s was altered', async (column, value) => {
    for (const link of [2, 4]) {
      const { problem } = await found(async (tx) => {
        // What the table itself refuses, a superuser takes away first.
        await tx`alter table audit.seals drop constraint each_change_has_a_digest`
        await tx`alter table audit.seals drop constraint if exists a_seal_has_its_digests`
        await tx.unsafe(`update audit.seals set ${column} = ${value} where link = ${link}`)
      })
      expect(problem).toMatch(/^(Seal \d+ of .* was altered|The seal before seal .* is missing)/)
      await tamper(admin, (tx) => tx`truncate audit.seals`)
      await tamper(admin, (tx) =>
        tx`
        alter table audit.seals add constraint each_change_has_a_digest check (octet_length(row_digests) = 8 * change_count)`)
      for (let n = 0; n < 4; n++) await seal(sql, 3)
      expect(await verify(sql)).toMatchObject({ intact: true, checked_seals: 4 })
    }
  })

  test('has no column that none of these tests alters, but the version, which has one value', async () => {
    const columns = await sql`
      select attname from pg_attribute where attrelid = 'audit.seals'::regclass and attnum > 0 and not attisdropped`
    expect(columns.map(({ attname }) => attname).sort()).toEqual(['version', ...Object.keys(values)].sort())
  })

  test('is broken where a seal is missing, which is named by its place', async () => {
    expect(await found((tx) => tx`delete from audit.seals where link = 2`))
      .toEqual({
        problem: `The seal before seal 3 of ${month} is missing: link 2 of the chain`,
        seal_number: 3,
        change_id: null,
      })
    expect(await found((tx) => tx`delete from audit.seals where link = 1`))
      .toMatchObject({ problem: `The seal before seal 3 of ${month} is missing: link 2 of the chain` })
  })

  test('is broken where the first seals are missing', async () => {
    expect(await found((tx) => tx`delete from audit.seals where link < 3`))
      .toMatchObject({ problem: `The seal before seal 3 of ${month} is missing: link 2 of the chain` })
  })

  test('without its last seal is one of which changes are not sealed, unless its head was kept elsewhere', async () => {
    await tamper(admin, (tx) => tx`delete from audit.seals where link = 4`)
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 9, unsealed_changes: 3 })
    const lost =
      'No seal has the hash that was kept elsewhere: the chain was made anew or cut off, or that month is retired'
    expect(await verify(sql, { head: heads[3]! })).toMatchObject({ intact: false, problem: lost })
    expect(await verify(sql, { head: heads[2]! })).toMatchObject({ intact: true })
    await seal(sql)
    expect(await verify(sql, { head: heads[3]! })).toMatchObject({ intact: false, problem: lost })
  })

  test('is broken after a seal that was made anew, and the next names it', async () => {
    expect(
      await found(async (tx) => {
        await tx`update audit.database_changes set details = '{}' where id = (select lower(change_ids) from audit.seals where link = 2)`
        await tx`
        update audit.seals as s
        set (change_count, changes_hash, row_digests) =
          (select h.change_count, h.changes_hash, h.row_digests from audit.hash_changes(s.month, s.change_ids) as h)
        where link = 2`
        await tx`update audit.seals as s set hash = audit.seal_hash(s) where link = 2`
      }),
    ).toEqual({
      problem:
        `Seal 3 of ${month} does not follow seal 2 of ${month}: that one was altered, and its hash made anew`,
      seal_number: 3,
      change_id: null,
    })
  })

  test('is broken where two seals were swapped', async () => {
    const { problem } = await found(async (tx) => {
      await tx`update audit.seals set link = link + 10, number = number + 10 where link in (2, 3)`
      await tx`update audit.seals set link = 15 - link, number = 15 - number where link in (12, 13)`
    })
    expect(problem).toBe(`Seal 2 of ${month} was altered`)
  })

  test('that was made anew as a whole fits, but for a head that was kept elsewhere', async () => {
    const forge = async (tx: Queries) => {
      await tx`update audit.database_changes set details = '{}' where id = (select lower(change_ids) from audit.seals where link = 2)`
      await rehash(tx)
    }
    expect(await found(forge)).toMatchObject({ problem: null })
    expect(await verify(sql, { head: heads[0]! })).toMatchObject({ intact: true })
    for (const head of heads.slice(1)) {
      expect(await verify(sql, { head })).toMatchObject({
        intact: false,
        problem: expect.stringMatching(/^No seal has the hash that was kept elsewhere/),
      })
    }
  })

  test('with a seal that hides its digests and its change together is broken at the seal', async () => {
    expect(
      await found(async (tx) => {
        await tx`update audit.database_changes set details = '{}' where id = (select lower(change_ids) from audit.seals where link = 2)`
        await tx`
        update audit.seals as s
        set row_digests = (select h.row_digests from audit.hash_changes(s.month, s.change_ids) as h)
        where link = 2`
      }),
    ).toEqual({
      problem: `Seal 2 of ${month} was altered: it does not fit its changes`,
      seal_number: 2,
      change_id: null,
    })
  })

  test('with a seal over more ids than can be counted is told of at once', async () => {
    const { problem } = await found(async (tx) => {
      await tx`update audit.seals set change_ids = '{[1,9223372036854775807)}' where link = 4`
      await tx`update audit.seals as s set hash = audit.seal_hash(s) where link = 4`
    })
    expect(problem).toBe(`Seal 4 of ${month} was altered: it does not fit its changes`)
  })

  describe('audit.head()', () => {
    test('is the hash of the newest seal, and grows with the chain', async () => {
      expect(await sql`select audit.head() as head`).toEqual([{ head: heads[3] }])
      expect(new Set(heads.map((head) => head!.toString())).size).toBe(4)
    })

    test('is null before the first seal', async () => {
      await clearTrail(admin)
      expect(await sql`select audit.head() as head`).toEqual([{ head: null }])
      expect(await seal(sql)).toMatchObject({ changes: 0, seals: 0, complete: true, head: null })
      expect(await verify(sql)).toMatchObject({ intact: true, checked_seals: 0 })
    })

    test("is written to the server's log by each run that seals", async () => {
      const log = await Deno.readTextFile(pg.logFile)
      expect(log).toContain(
        `link 4 with hash ${
          (heads[3] as Uint8Array & { toString(encoding: 'hex'): string }).toString('hex')
        }`,
      )
    })
  })
})

/** Seals while people write: whatever the order of ids, commits and runs, each committed change gets exactly one seal. */
import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { clearTrail, emptyTrail, seal, sealsOfChanges, verify, write } from '../support/auditTrail.ts'
import { type FreshDatabase, freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { waitFor } from '../support/wait.ts'

/** A transaction that stays open between the steps of a test. */
class Writer {
  readonly #sql: Sql
  #open = false
  /** Ids written since each savepoint, the first list since the beginning. */
  #written: number[][] = []
  committed: number[] = []

  constructor(sql: Sql) {
    this.#sql = sql
  }

  async step(action: Action): Promise<void> {
    if (!this.#open) {
      await this.#sql`begin`
      this.#open = true
      this.#written = [[]]
    }
    const name = `s${this.#written.length}`
    if (action === 'write') this.#written.at(-1)!.push(...await write(this.#sql, 2))
    else if (action === 'savepoint') {
      await this.#sql.unsafe(`savepoint ${name}`)
      this.#written.push([])
    } else if (action === 'back' && this.#written.length > 1) {
      await this.#sql.unsafe(`rollback to savepoint s${this.#written.length - 1}`)
      await this.#sql.unsafe(`release savepoint s${this.#written.length - 1}`)
      this.#written.pop()
    } else if (action === 'commit' || action === 'rollback') {
      await this.#sql.unsafe(action)
      if (action === 'commit') this.committed.push(...this.#written.flat())
      this.#open = false
    }
  }

  async end(how: 'commit' | 'rollback'): Promise<void> {
    if (this.#open) await this.step(how)
  }
}

const actions = ['write', 'write', 'write', 'savepoint', 'back', 'commit', 'rollback'] as const
type Action = typeof actions[number]

onEachPostgres('changes that are written while others are sealed', (pg) => {
  let database: FreshDatabase
  let sql: Sql
  let admin: Sql
  let connections: Sql[]

  beforeAll(async () => {
    database = await freshDatabase(pg.major)
    ;({ sql, admin } = await emptyTrail(database))
    connections = Array.from({ length: 4 }, () => openSql(database.url))
  })

  beforeEach(() => clearTrail(admin))

  // A test that fails leaves transactions open, for which the next would wait.
  afterEach(async () => {
    for (const connection of connections) await connection`rollback`
  })

  test('get exactly one seal each, however transactions, savepoints and runs interleave', async () => {
    const steps = fc.array(
      fc.oneof(
        { weight: 5, arbitrary: fc.record({ who: fc.nat(3), action: fc.constantFrom(...actions) }) },
        { weight: 1, arbitrary: fc.record({ atMost: fc.constantFrom(1, 2, 3, 1000) }) },
      ),
      { minLength: 10, maxLength: 50 },
    )
    await fc.assert(
      fc.asyncProperty(steps, async (given) => {
        await clearTrail(admin)
        const writers = connections.map((connection) => new Writer(connection))
        try {
          for (const step of given) {
            if ('who' in step) await writers[step.who]!.step(step.action)
            else {
              const { complete } = await seal(sql, step.atMost)
              const { intact, problem, unsealed_changes } = await verify(sql)
              expect({ intact, problem }).toEqual({ intact: true, problem: null })
              if (complete) expect(unsealed_changes).toBe(0)
            }
          }
          for (const writer of writers) await writer.end('commit')
        } finally {
          for (const writer of writers) await writer.end('rollback')
        }
        await seal(sql)
        const committed = writers.flatMap((writer) => writer.committed)
        expect(await sealsOfChanges(sql)).toEqual(new Map(committed.map((id) => [id, 1])))
        expect(await verify(sql)).toMatchObject({
          intact: true,
          checked_changes: committed.length,
          unsealed_changes: 0,
        })
      }),
      { numRuns: 25 },
    )
  }, 60_000)

  test('of a transaction that outlasts many runs are sealed after it, those of others at once', async () => {
    const [slow, quick] = connections as [Sql, Sql]
    await slow`begin`
    const late = await write(slow, 2)
    for (let run = 0; run < 5; run++) {
      await write(quick, 3)
      expect(await seal(sql)).toMatchObject({ changes: 3, complete: true })
      late.push(...await write(slow, 1))
    }
    await slow`commit`
    expect(await verify(sql)).toMatchObject({ intact: true, unsealed_changes: 7 })
    expect(await seal(sql)).toMatchObject({ changes: 7 })
    const [row] =
      await sql`select change_ids @> ${late[0]!}::bigint as first from audit.seals order by link desc limit 1`
    expect(row).toEqual({ first: true })
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 22, unsealed_changes: 0 })
  })

  test('of the transaction that seals are left to the next run, also where it rolls back part of them', async () => {
    const [own] = connections as [Sql]
    await write(sql, 1)
    await own.begin(async (tx) => {
      await write(tx, 2)
      // A later transaction is over before: by its number alone the own one might seem so too.
      await write(sql, 1)
      expect(await seal(tx)).toMatchObject({ changes: 2 })
      await tx.savepoint(async (inner) => {
        await write(inner, 2)
        await seal(inner)
        throw new Error('back')
      }).catch(() => {})
      await write(tx, 2)
    })
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 2, unsealed_changes: 4 })
    expect(await seal(sql)).toMatchObject({ changes: 4 })
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 6, unsealed_changes: 0 })
  })

  test('cannot be slipped in under the number of a transaction that is over, even while an older one goes on', async () => {
    const [slow] = connections as [Sql]
    await slow`begin`
    await write(slow, 1)
    const [id] = await write(sql, 1)
    await seal(sql)
    await admin`
      insert into audit.database_changes
      select nextval('audit.change_ids'), c.occurred_at, c.transaction_id, c.actor_id, c.actor_role, c.ip, c.user_agent,
        c.request_id, c.function_name, c.schema_name, c.table_name, c.object_identity, c.operation, c.primary_key, c.details
      from audit.database_changes as c
      where c.id = ${id!}`
    expect(await seal(sql)).toMatchObject({ changes: 0 })
    expect(await verify(sql)).toMatchObject({
      intact: false,
      problem: expect.stringMatching(/^Change \d+ of \d{4}-\d\d was inserted behind the seals' back$/),
    })
    await slow`commit`
  })

  test('are sealed once where many runs begin together, which take turns', async () => {
    let stop = false
    const written: number[] = []
    const writers = connections.map(async (connection, n) => {
      for (let round = 0; !stop; round++) {
        const committed = await connection.begin(async (tx) => {
          const ids = await write(tx, 1 + (round + n) % 5)
          if ((round + n) % 4 === 0) throw new Error('rolled back')
          return ids
        }).catch(() => [])
        written.push(...committed)
      }
    })
    const sealers = Array.from({ length: 4 }, () => openSql(database.url))
    try {
      await Promise.all(sealers.map(async (sealer, n) => {
        for (let run = 0; run < 10; run++) await seal(sealer, n === 0 ? 7 : undefined)
      }))
    } finally {
      stop = true
      await Promise.all(writers)
      await Promise.all(sealers.map((sealer) => sealer.end()))
    }
    await seal(sql)
    expect(await sealsOfChanges(sql)).toEqual(new Map(written.map((id) => [id, 1])))
    expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: written.length })
  }, 60_000)

  test.each(['repeatable read', 'serializable'])(
    'are never sealed twice by a run at %s that waited for another: it fails as a whole',
    async (level) => {
      const [first, second] = connections as [Sql, Sql]
      await write(sql, 3)
      const [{ pid }] = await second`select pg_backend_pid() as pid` as unknown as [{ pid: number }]
      await first`begin`
      await seal(first)
      const outcome = second.begin(`isolation level ${level}`, (tx) => seal(tx)).then(
        () => 'sealed',
        (error) => error.code,
      )
      await waitFor(async () => {
        const [row] =
          await admin`select wait_event = 'advisory' as waits from pg_stat_activity where pid = ${pid}`
        return row!.waits
      }, { what: 'the second run to wait for the first' })
      await first`commit`
      expect(await outcome).toMatch(/^(23505|40001)$/)
      expect([...new Set((await sealsOfChanges(sql)).values())]).toEqual([1])
      expect(await verify(sql)).toMatchObject({ intact: true, checked_changes: 3 })
    },
  )

  test('are verified at one moment, whatever is written and sealed meanwhile', async () => {
    await write(sql, 20)
    await seal(sql)
    let over = false
    const storm = Promise.all(
      connections.slice(0, 2).map(async (connection, n) => {
        for (let round = 0; round < 40; round++) n === 0 ? await write(connection, 3) : await seal(connection)
      }),
    ).finally(() => over = true)
    while (!over) {
      const { intact, problem } = await verify(sql)
      expect({ intact, problem }).toEqual({ intact: true, problem: null })
    }
    await storm
  }, 30_000)
})

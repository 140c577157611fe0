/** A load for the audit trail: clients that write at random while the tables change their shape below them. */
import { type Random, seeded } from '../faults/support/random.ts'
import { type Entry, LoadClient } from './auditLoadClient.ts'
import { openSql, type Sql } from './sql.ts'

export interface LoadOptions {
  url: string
  seed: number
  clients: number
  /** Clients of an earlier load on the same tables. @default 0 */
  clientsBefore?: number
  /** Of each client. */
  transactions: number
  /** The load ends at the latest after that time. */
  maxMs: number
  /** Whether tables change their shape meanwhile. @default true */
  reshapes?: boolean
  /** What clients may meet beside what they do to each other: lost connections. */
  survives?: (error: unknown) => boolean
}

export interface Load {
  book: Entry[]
  counts: Record<string, number>
  /** Resolves when every client has done its transactions, or met what it survives. */
  done: Promise<void>
  /** Waits for no client any more: a statement whose connection is lost may never settle. */
  abandon(): void
}

/** What the one who changes tables does, in turn, over and over: at the end of a round all is as before. */
const shapes = [
  'alter table public.load_shapes add column extra int default 7',
  'alter table public.load_shapes alter column extra type text',
  'alter table public.load_names rename to load_renamed',
  'alter table public.load_shapes rename column extra to further',
  'create index load_shapes_by_n on public.load_shapes (n)',
  'alter table public.load_shapes drop column further',
  'alter table public.load_renamed rename to load_names',
  'alter table public.load_shapes rename column odd to even',
  'drop index public.load_shapes_by_n',
  'alter table public.load_shapes rename column even to odd',
]

/** A table that was filled before it becomes a partition, as one does with large ones. */
const attach = `
  create table public.load_parts_late (note text, region text not null, id bigint not null, n int not null default 0);
  grant select, insert, update, delete, truncate on public.load_parts_late to authenticated;
  alter table public.load_parts attach partition public.load_parts_late for values in ('late')`

export function startLoad(o: LoadOptions): Load {
  const abandoned = Promise.withResolvers<'abandoned'>()
  const load: Load = {
    book: [],
    counts: {},
    done: Promise.resolve(),
    abandon: () => abandoned.resolve('abandoned'),
  }
  const endsAt = performance.now() + o.maxMs
  const survives = o.survives ?? (() => false)
  let working = o.clients
  const work = async (nth: number) => {
    const sql = openSql(o.url)
    const random = seeded(o.seed + nth)
    const client = new LoadClient({ sql, random, nth, book: load.book, counts: load.counts })
    try {
      for (let left = o.transactions; left > 0 && performance.now() < endsAt; left--) {
        if (await Promise.race([client.transaction(), abandoned.promise]) === 'abandoned') return
      }
    } catch (error) {
      if (!survives(error)) throw error
    } finally {
      working--
      await sql.end({ timeout: 1 })
    }
  }
  const reshape = async () => {
    const sql = openSql(o.url)
    try {
      const changing = changeShapes(sql, seeded(o.seed), load.counts, () => working > 0)
      await Promise.race([changing, abandoned.promise])
    } catch (error) {
      if (!survives(error)) throw error
    } finally {
      await sql.end({ timeout: 1 })
    }
  }
  load.done = Promise.all([
    o.reshapes === false ? undefined : reshape(),
    ...Array.from({ length: o.clients }, (_, i) => work((o.clientsBefore ?? 0) + i + 1)),
  ]).then(() => {})
  return load
}

async function changeShapes(
  sql: Sql,
  random: Random,
  counts: Record<string, number>,
  goesOn: () => boolean,
): Promise<void> {
  const count = (what: string) => counts[what] = (counts[what] ?? 0) + 1
  // Clients hold their locks for milliseconds; who waits for all of them at once is kept waiting by deadlocks.
  const change = async (statement: string) => {
    for (;;) {
      try {
        await sql.unsafe(statement)
        return
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? error.code : ''
        if (code !== '40P01' && code !== '55P03') throw error
        count(`change of shape ${code}`)
        await sql.unsafe('rollback')
      }
    }
  }
  for (let nth = 0; goesOn(); nth++) {
    const statement = shapes[nth % shapes.length]!
    if (nth === 3) {
      await change(attach)
      count('partition attached')
    }
    if (random.chance(0.3)) {
      // Nothing of this is ever seen, by the tables or by the trail.
      await change(`begin; ${statement}; update public.load_shapes set n = n - 1; rollback`)
      count('changes of shape rolled back')
    }
    await change(statement)
    count('changes of shape')
    await new Promise((resolve) => setTimeout(resolve, random.between(20, 120)))
  }
}

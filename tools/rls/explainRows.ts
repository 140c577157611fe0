/**
 * Counts the rows that policies let through, without touching the table.
 *
 * A policy has to be asked in the name of the caller, since it may look at other tables and call functions; but about
 * all rows, also those that the caller never sees. No single role can do both, so two temporary views do it together:
 * "holdfast rows" hands out the rows by right of whoever connected, and a view with `security_invoker` over it counts
 * by right of whoever selects. The server parses the policies when the views are made, as it did when the policies
 * were: a caller without usage on a schema can still be asked about what is in it.
 *
 * No policy is dropped or disabled for this, so the table is locked no more than by any SELECT. Once the views are
 * there the transaction reads only, and at its end they have never been there.
 */
import postgres from 'postgres'
import { LocalError } from '../../local/errors.ts'
import { quoteName, quoteText, type Session } from './explainSession.ts'
import type { Target } from './explainTarget.ts'
import type { Caller } from './explanation.ts'

/** `old`: rows as they are. `new`: as an update leaves them. `inserted`: the row of an insert. */
export type Source = 'old' | 'new' | 'inserted'

/** An expression of the columns that is true or false for each row of a source. */
export interface Condition {
  source: Source
  sql: string
}

/** Counts that are made now and asked later. `broken` says why they cannot be made: a system column, for example. */
export type Question = { view: string } | { broken: string }

export interface Answer {
  /** Rows of the sources. */
  total: number
  /** For each count the rows for which all its conditions hold. */
  passed: number[]
}

export interface Questions {
  /** Makes a view of counts over a source, or over two whose rows belong together. */
  make(first: Source, counts: readonly (readonly Condition[])[]): Promise<Question>
  /** Lets the caller ask those that were made. In one statement, since whoever watches DDL hears of each GRANT. */
  publish(): Promise<void>
}

/**
 * Makes "holdfast rows", and says how many rows there are to ask about. A view may have columns of such names as the
 * system's own, so that policies find these as well.
 */
export async function chooseRows(
  session: Session,
  target: Target,
  options: { condition?: string; samplePercent?: number },
): Promise<number> {
  const { condition, samplePercent } = options
  // Repeatable: all questions are about the same sample.
  const sample = samplePercent === undefined
    ? ''
    : `tablesample system (${samplePercent}) repeatable (${Math.random()})`
  const where = condition === undefined ? '' : `where ${condition}`
  await session.query(
    `create temporary view "holdfast rows" as
     select o as "holdfast row", (o.tableoid, o.ctid)::text as "holdfast id", o.tableoid, o.ctid, o.xmin from ${target.name} as o ${sample} ${where}`,
  )
  const [row] = await session.query<{ count: string }>('select count(*) from pg_temp."holdfast rows"')
  return Number(row?.count)
}

/** Prepares the sources; "holdfast rows" has to be there. `changes` is JSON of what an update or an insert sets. */
export async function openSources(
  session: Session,
  target: Target,
  changes: { update?: string; insert?: string },
): Promise<Questions> {
  const row = (base: string, json: string) =>
    `pg_catalog.jsonb_populate_record(${base}, ${quoteText(json)}::jsonb) as ${quoteName(target.relation)}`
  const sources: Record<Source, string> = {
    old: `pg_temp."holdfast rows" cross join lateral ${row('"holdfast row"', '{}')}`,
    new: `pg_temp."holdfast rows" cross join lateral ${row('"holdfast row"', changes.update ?? '{}')}`,
    inserted: `pg_temp."holdfast defaults" cross join lateral ${
      row('"holdfast row"', changes.insert ?? '{}')
    }`,
  }
  await createInvokerView(session, '"holdfast defaults"', defaultsQuery(target, changes.insert ?? '{}'))
  const views = ['pg_temp."holdfast rows"', 'pg_temp."holdfast defaults"']
  return {
    async make(first, counts) {
      const view = `pg_temp."holdfast question ${views.length}"`
      const created = await session.attempt(() =>
        createInvokerView(session, view, countQuery(sources, first, counts))
      )
      if ('error' in created) return { broken: created.error.message }
      views.push(view)
      return { view }
    },
    async publish() {
      await session.query(`grant select on ${views.join(', ')} to public`)
    },
  }
}

export async function answerTo(session: Session, { view }: { view: string }): Promise<Answer> {
  const [row = {}] = await session.query<Record<string, string>>(`select * from ${view}`)
  const { total, ...passed } = row
  return { total: Number(total), passed: Object.values(passed).map(Number) }
}

/** Each source gives its conditions as columns: two of them side by side would have every column twice. */
function countQuery(
  sources: Record<Source, string>,
  first: Source,
  counts: readonly (readonly Condition[])[],
): string {
  const columns = new Map<Source, string[]>([[first, []]])
  const reference = ({ source, sql }: Condition) => {
    const known = columns.get(source) ?? []
    columns.set(source, known)
    const place = known.indexOf(sql)
    const nth = place >= 0 ? place : known.push(sql) - 1
    return `${source}_rows.c${nth}`
  }
  const filters = counts.map((conditions, nth) => {
    const all = conditions.map(reference).join(' and ') || 'true'
    return `count(*) filter (where ${all}) as passed_${nth}`
  })
  const tables = [...columns].map(([source, conditions]) => {
    const list = ['"holdfast id"', ...conditions.map((sql, nth) => `(${sql}) as c${nth}`)].join(', ')
    return `(select ${list} from ${sources[source]}) as ${source}_rows`
  })
  return `select ${['count(*) as total', ...filters].join(', ')} from ${tables.join(' join ')} ${
    tables.length > 1 ? 'using ("holdfast id")' : ''
  }`
}

/**
 * From here on everything is in the caller's name, as the API would set it up, and nothing can be written. What is not
 * qualified in functions that policies call is looked up where the API looks.
 */
export async function speakAs(session: Session, target: Target, caller: Caller): Promise<void> {
  // Not within the attempt: what a savepoint has made read-only can be written again when it is released.
  await session.query(`select set_config('transaction_read_only', 'on', true)`)
  const spoken = await session.attempt(() =>
    session.query(
      `select set_config('search_path', $1, true),
           set_config('request.jwt.claims', $2, true),
           set_config('role', $3, true)`,
      [
        [target.schema, 'public', 'extensions'].map(quoteName).join(', '),
        JSON.stringify(caller.claims),
        caller.role,
      ],
    )
  )
  if ('error' in spoken) {
    throw new LocalError(`Cannot ask in the name of ${caller.role}: ${spoken.error.message}`, {
      where: '--as',
      fix: 'Connect as a role that is a member of it (postgres is, of the API roles): --db-url URL.',
      cause: spoken.error,
    })
  }
}

/** What the caller sees of something that has no policies of its own; at most `limit` rows are counted. */
export async function countSeen(
  session: Session,
  target: Target,
  condition: string | undefined,
  limit: number,
): Promise<{ rows?: number; error?: string }> {
  const where = condition === undefined ? '' : `where ${condition}`
  const counted = await session.attempt(() =>
    session.query<{ count: string }>(
      `select count(*) from (select from ${target.name} as o ${where} limit ${limit}) as seen`,
    )
  )
  return 'value' in counted ? { rows: Number(counted.value[0]?.count) } : { error: counted.error.message }
}

export function isTimeout(error: unknown): boolean {
  return error instanceof postgres.PostgresError && error.code === '57014'
}

/**
 * The row that an insert of nothing more would make. Defaults are computed in the caller's name, but none that takes a
 * number from a sequence: no rollback gives it back.
 */
function defaultsQuery(target: Target, json: string): string {
  const given = Object.keys(JSON.parse(json))
  const values = target.columns.map((column) =>
    column.default === undefined || column.sequence !== undefined || given.includes(column.name)
      ? 'null'
      : column.default
  )
  return `select null::text as "holdfast id", row(${values.join(', ')})::${target.name} as "holdfast row"`
}

async function createInvokerView(session: Session, name: string, query: string): Promise<void> {
  await session.query(`create temporary view ${name} with (security_invoker = true) as ${query}`)
}

/** One connection and one transaction that is always rolled back: what happens in it has never happened. */
import postgres from 'postgres'
import { LocalError } from '../../local/errors.ts'

export interface Session {
  query<T extends object = Record<string, unknown>>(text: string, parameters?: Parameter[]): Promise<T[]>
  /** The work, or what the database said against it; then the transaction goes on as if nothing had been tried. */
  attempt<T>(work: () => Promise<T>): Promise<{ value: T } | { error: postgres.PostgresError }>
}
type Parameter = string

/**
 * What every question is asked under. An empty search path, so that the server names everything in full. A table that
 * somebody holds exclusively is waited for shortly, since whoever comes after us would wait as well.
 */
const settings = {
  search_path: '',
  row_security: 'on',
  standard_conforming_strings: 'on',
  lock_timeout: '2s',
  statement_timeout: '10s',
}

export async function inRolledBackTransaction<T>(
  url: string,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const sql = open(url)
  try {
    // One snapshot for all counts: they add up, whatever others write meanwhile.
    await sql.unsafe('begin isolation level repeatable read').catch((cause) => {
      throw unreachable(url, cause)
    })
    const session = sessionOf(sql)
    await session.query(
      `select ${Object.entries(settings).map(([name, value]) => `set_config('${name}', '${value}', true)`)}`,
    )
    return await work(session)
  } finally {
    // Whatever the connection does now, without a commit nothing stays.
    await sql.unsafe('rollback').catch(() => {})
    await sql.end({ timeout: 5 })
  }
}

function sessionOf(sql: postgres.Sql): Session {
  const query = async <T extends object>(text: string, parameters?: Parameter[]): Promise<T[]> => [
    ...await sql.unsafe<T[]>(text, parameters),
  ]
  return {
    query,
    async attempt(work) {
      await query('savepoint attempt')
      try {
        const value = await work()
        await query('release savepoint attempt')
        return { value }
      } catch (error) {
        if (!(error instanceof postgres.PostgresError)) throw error
        await query('rollback to savepoint attempt')
        return { error }
      }
    },
  }
}

function open(url: string): postgres.Sql {
  try {
    return postgres(url, {
      max: 1,
      max_lifetime: null,
      connect_timeout: 10,
      // Works through a pooler in transaction mode as well.
      prepare: false,
      fetch_types: false,
      onnotice: () => {},
      connection: { application_name: 'holdfast rls' },
    })
  } catch (cause) {
    throw unreachable(url, cause)
  }
}

function unreachable(url: string, cause: unknown): LocalError {
  const found = cause instanceof Error ? cause.message || cause.name : String(cause)
  return new LocalError(`Cannot reach the database: ${found}`, {
    where: withoutPassword(url),
    fix:
      'See npm run status, or give an address that answers: --db-url postgresql://USER:PASSWORD@HOST:PORT/NAME.',
    cause,
  })
}

function withoutPassword(url: string): string {
  if (!URL.canParse(url)) return '--db-url'
  const { hostname, port, pathname } = new URL(url)
  return `${hostname}:${port || 5432}${pathname}`
}

/** As SQL takes a name, whatever is in it. */
export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** As SQL takes a text; the session has standard strings, in which a backslash is a letter. */
export function quoteText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}

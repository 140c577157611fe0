/** What people say of rows on the command line: the key of one, and the values of columns. */
import { LocalError } from '../../local/errors.ts'
import { quoteName, quoteText, type Session } from './explainSession.ts'
import type { Target } from './explainTarget.ts'

/** A condition that finds the row somebody named. */
export function rowCondition(target: Target, named: string): string {
  const values = namedColumns(target, named)
  return Object.entries(values).map(([name, value]) => {
    const column = `o.${quoteName(name)}`
    if (value === null) return `${column} is null`
    return `${column} = ${quoteText(typeof value === 'string' ? value : JSON.stringify(value))}`
  }).join(' and ')
}

function namedColumns(target: Target, named: string): Record<string, unknown> {
  const { primaryKey, name } = target
  if (named.trimStart().startsWith('{')) return readColumns(target, named)
  const parts = primaryKey.length === 1 ? [named] : named.split(',')
  if (primaryKey.length > 0 && parts.length === primaryKey.length) {
    return Object.fromEntries(primaryKey.map((column, nth) => [column, parts[nth]]))
  }
  throw new LocalError(
    primaryKey.length === 0
      ? `${name} has no primary key`
      : `The primary key of ${name} has ${primaryKey.length} columns: ${primaryKey.join(', ')}`,
    { where: '--row', fix: `Name the row by its columns: --row '{"column":"value"}'.` },
  )
}

function readColumns(target: Target, json: string): Record<string, unknown> {
  let values: Record<string, unknown>
  try {
    values = JSON.parse(json)
  } catch (cause) {
    throw new LocalError('--row is no JSON object', {
      where: '--row',
      fix: `Quote it for the shell: --row '{"column":"value"}'.`,
      cause,
    })
  }
  requireColumns(target, '--row', values)
  if (Object.keys(values).length > 0) return values
  throw new LocalError('--row names no column', {
    where: '--row',
    fix: `Give one: --row '{"column":"value"}'.`,
  })
}

/** A name that is no column is a mistake, and not left out in silence. */
function requireColumns(target: Target, option: string, values: Record<string, unknown>): void {
  const known = target.columns.map(({ name }) => name)
  const unknown = Object.keys(values).filter((name) => !known.includes(name))
  if (unknown.length === 0) return
  throw new LocalError(`${target.name} has no column ${unknown.join(', ')}`, {
    where: option,
    fix: `Its columns are ${known.join(', ')}.`,
  })
}

/** Refuses values that the columns cannot hold, before any policy is asked about them. */
export async function requireValues(
  session: Session,
  target: Target,
  values: Record<string, unknown>,
): Promise<void> {
  requireColumns(target, '--values', values)
  const read = await session.attempt(() =>
    session.query(`select pg_catalog.jsonb_populate_record(null::${target.name}, $1::text::jsonb)`, [
      JSON.stringify(values),
    ])
  )
  if ('value' in read) return
  throw new LocalError(`Cannot read --values: ${read.error.message}`, {
    where: '--values',
    fix: `Give each column of ${target.name} a value of its type.`,
    cause: read.error,
  })
}

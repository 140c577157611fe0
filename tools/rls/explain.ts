/**
 * Explains what a caller may do with a table: each layer that PostgreSQL asks, in its order. Nothing is written: all of
 * it happens in one transaction that is rolled back, and that reads only as soon as its temporary views are there.
 */
import postgres from 'postgres'
import { LocalError } from '../../local/errors.ts'
import type { ExplainRequest } from './explainArguments.ts'
import { findCaller } from './explainCaller.ts'
import { askGates, type Gates, planGates, type PlannedGates } from './explainGates.ts'
import { requireValues, rowCondition } from './explainKeys.ts'
import { type Policy, readPolicies, readRights, type Rights } from './explainRights.ts'
import { chooseRows, countSeen, isTimeout, openSources, speakAs } from './explainRows.ts'
import { inRolledBackTransaction, quoteName, type Session } from './explainSession.ts'
import { findTarget, type Target } from './explainTarget.ts'
import { conclude } from './explainVerdict.ts'
import type { Caller, Command, Explanation } from './explanation.ts'

export interface ExplainOptions {
  /** Tables up to this size are asked about row by row. @default 1_000_000 */
  mostRows?: number
  /** Of larger tables about so many rows are asked, from pages chosen by chance. @default 20_000 */
  sampleRows?: number
  /** Policies that need longer for all rows are asked about a sample. @default 5_000 */
  timeoutMs?: number
}
const defaults: Required<ExplainOptions> = { mostRows: 1_000_000, sampleRows: 20_000, timeoutMs: 5_000 }

export async function explain(
  url: string,
  request: ExplainRequest,
  options: ExplainOptions = {},
): Promise<Explanation> {
  const bounds = { ...defaults, ...options }
  const once = (bounds: Required<ExplainOptions>) =>
    inRolledBackTransaction(url, (session) => explainIn(session, request, bounds))
  try {
    return await once(bounds).catch((error) => {
      if (request.row === undefined && isTimeout(error)) return once({ ...bounds, mostRows: 0 })
      throw error
    })
  } catch (error) {
    if (!(error instanceof postgres.PostgresError)) throw error
    throw new LocalError(`Cannot explain ${request.table}: ${error.message}`, {
      where: `PostgreSQL ${error.code}`,
      fix: fixes[error.code] ??
        'Connect as a role that may read the table, its policies and auth.users (postgres).',
      cause: error,
    })
  }
}

const fixes: Record<string, string> = {
  '25006': 'A standby takes no temporary views: connect to the primary.',
  '55P03': 'Somebody holds the table exclusively (a migration?): try again when that is over.',
  '57014':
    'The policies need too long: ask about one row with --row, and look for an index that they could use.',
}

async function explainIn(
  session: Session,
  request: ExplainRequest,
  { mostRows, sampleRows, timeoutMs }: Required<ExplainOptions>,
): Promise<Explanation> {
  await requireVersion(session)
  const target = await findTarget(session, request.table)
  const caller = await findCaller(session, request.as, request.claims)
  const rights = await readRights(session, target, caller.role)
  const policies = await readPolicies(session, target, caller.role)
  const { row, values, commands } = request
  const condition = row === undefined ? undefined : rowCondition(target, row)
  if (values !== undefined) await requireValues(session, target, values)
  await session.query(`select set_config('statement_timeout', $1, true)`, [`${timeoutMs}ms`])

  const facts = { target, caller, rights, policies, values, held: isHeld(target, rights) }
  if (target.kind !== 'table') {
    await speakAs(session, target, caller)
    const seen = await countSeen(session, target, condition, mostRows)
    return {
      table: target.name,
      caller,
      row,
      rows: { total: seen.rows ?? 0 },
      commands: commands.map((command) => conclude(command, { ...facts, asked: seen.rows ?? 0, seen })),
    }
  }
  await requireAllRows(session, target)
  const isSampled = condition === undefined && target.estimatedRows > mostRows
  const samplePercent = isSampled ? Math.min(100, 100 * sampleRows / target.estimatedRows) : undefined
  const asked = await countRows(session, target, { condition, samplePercent, row })
  const gates = facts.held ? await askPolicies(session, { ...facts, commands }) : undefined
  return {
    table: target.name,
    caller,
    row,
    rows: isSampled ? { total: Math.round(target.estimatedRows), sampled: asked } : { total: asked },
    commands: commands.map((command) =>
      conclude(command, { ...facts, asked, sampled: isSampled, row, gates: gates?.get(command) })
    ),
  }
}

/** Row level security holds whoever neither bypasses nor owns it, and owners of a table that forces it on them. */
function isHeld(target: Target, { bypassRls, owner }: Rights): boolean {
  return target.kind === 'table' && target.rls && !bypassRls && (!owner || target.forced)
}

async function askPolicies(
  session: Session,
  { target, caller, rights, policies, values, commands }: {
    target: Target
    caller: Caller
    rights: Rights
    policies: Policy[]
    values?: Record<string, unknown>
    commands: readonly Command[]
  },
): Promise<Map<Command, Gates>> {
  const json = values && JSON.stringify(values)
  const questions = await openSources(session, target, {
    update: commands.includes('update') ? json : undefined,
    insert: commands.includes('insert') ? json : undefined,
  })
  const { table, columns } = rights.privileges.select
  const options = { maySelect: table || columns.length > 0, hasValues: values !== undefined }
  const planned = new Map<Command, PlannedGates>()
  for (const command of commands) planned.set(command, await planGates(questions, policies, command, options))
  await questions.publish()
  await speakAs(session, target, caller)
  const answers = new Map<Command, Gates>()
  for (const [command, gates] of planned) {
    const objection = await objectionTo(session, target, command, rights, values)
    answers.set(command, await askGates(session, gates, objection))
  }
  return answers
}

/**
 * What PostgreSQL has against a statement of that kind before it meets a row: policies that lead back to their own
 * table, tables and functions in policies that are closed to the caller. The statement is planned, and not run.
 */
async function objectionTo(
  session: Session,
  target: Target,
  command: Command,
  { privileges }: Rights,
  values: Record<string, unknown> = {},
): Promise<string | undefined> {
  const granted = (of: Command) =>
    target.columns.find(({ name }) => privileges[of].table || privileges[of].columns.includes(name))?.name
  const given = Object.keys(values).map(quoteName)
  const seen = granted('select')
  const where = seen === undefined ? '' : `where ${quoteName(seen)} is not null`
  const set = given.length > 0 ? given : [quoteName(granted('update') ?? '')]
  const statements: Record<Command, string> = {
    select: `select from ${target.name} ${where}`,
    insert: given.length > 0
      ? `insert into ${target.name} (${given.join(', ')}) values (${given.map(() => 'null').join(', ')})`
      : `insert into ${target.name} default values`,
    update: `update ${target.name} set ${set.map((name) => `${name} = null`).join(', ')} ${where}`,
    delete: `delete from ${target.name} ${where}`,
  }
  const planned = await session.attempt(() => session.query(`explain ${statements[command]}`))
  return 'error' in planned && objections.has(planned.error.code) ? planned.error.message : undefined
}

/** Infinite recursion, and permission denied. What is wrong with the made-up statement itself is another matter. */
const objections = new Set(['42P17', '42501'])

async function countRows(
  session: Session,
  target: Target,
  options: { condition?: string; samplePercent?: number; row?: string },
): Promise<number> {
  const { row } = options
  if (row === undefined) return await chooseRows(session, target, options)
  const counted = await session.attempt(() => chooseRows(session, target, options))
  if ('value' in counted && counted.value > 0) return counted.value
  const reason = 'error' in counted ? `: ${counted.error.message}` : ''
  throw new LocalError(`There is no row ${row} in ${target.name}${reason}`, {
    where: '--row',
    fix: 'Give the primary key of a row that exists, or leave --row out to count over all.',
  })
}

/** Views that ask in the name of their caller came with PostgreSQL 15. */
async function requireVersion(session: Session): Promise<void> {
  const [row] = await session.query<{ number: string; name: string }>(
    `select current_setting('server_version_num') as number, current_setting('server_version') as name`,
  )
  if (Number(row?.number) >= 150_000) return
  throw new LocalError(`Cannot explain on PostgreSQL ${row?.name}`, {
    where: '--db-url',
    fix: 'PostgreSQL 15 or later is needed.',
  })
}

/** Whoever is held by row level security cannot say how many rows others reach. */
async function requireAllRows(session: Session, target: Target): Promise<void> {
  const [row] = await session.query<{ held: boolean; name: string }>(
    'select row_security_active($1::text::oid) as held, current_user as name',
    [target.oid],
  )
  if (!row?.held) return
  throw new LocalError(`Cannot explain ${target.name} as ${row.name}, who does not see all its rows`, {
    where: '--db-url',
    fix: 'Connect as its owner, or as a role with BYPASSRLS (postgres has it).',
  })
}

/** Who may call a function or draw from a sequence: by privilege, by a real call, and by what the call changes. */
import type { Queries } from '../../support/sql.ts'
import { type RoleName, roles } from '../matrix.ts'
import { attempt, callerOf } from './attempt.ts'
import { said } from './cells.ts'
import type { Routine } from './catalogue.ts'
import { type Call, calls, ownersOrder, personOf } from './fixture.ts'
import { type Declaration, declaredName, type Report } from './report.ts'
import { digestOf, rowsOf, within } from './rows.ts'

export interface UseRun {
  tx: Queries
  declaration: Declaration
  report: Report
  /** Tables that a call could change. */
  seeded: string[]
}

export async function functionCells(run: UseRun, routine: Routine): Promise<void> {
  const { name, kind, nulls } = routine
  const { functions, generatedFunctions } = run.declaration
  const known = declaredName(run.declaration, name)
  const uses = known === undefined ? undefined : functions[known] ?? generatedFunctions[known]
  if (!uses) return
  const callee = name.slice(0, name.indexOf('('))
  const call = (args: string) => `${kind === 'p' ? 'call' : 'select'} ${callee}(${args})`
  for (const role of roles) {
    const cell = `${known} execute as ${role}`
    run.report.ran(cell)
    const privileged = await hasPrivilege(run.tx, role, 'function', name, 'execute')
    // Roles that are one to the database share the privilege; the call tells them apart.
    const anyMay = roles.some((one) => callerOf(one).role === callerOf(role).role && uses[one] === 'may')
    if (privileged !== anyMay) {
      run.report.fail(
        cell,
        `${uses[role]} is declared, yet the role ${privileged ? 'has' : 'lacks'} the privilege`,
      )
    }
    const { error } = await attempt(run.tx, role, call(nulls))
    if (uses[role] === 'denied' && error?.code !== '42501') {
      run.report.fail(cell, `must be refused with 42501, found ${error ? said(error) : 'that it ran'}`)
    }
    if (uses[role] === 'may' && error?.code === '42501') {
      run.report.fail(cell, `may call it, found ${said(error)}`)
    }
    const tried = calls[name]
    if (tried) await effectOf(run, cell, role, tried, call(tried.args), uses[role] === 'denied')
    else if (uses[role] === 'may') {
      run.report.fail(cell, `add a call of ${name} with the owner's rows to tests/rls/support/fixture.ts`)
    }
  }
}

async function effectOf(
  { tx, declaration, report, seeded }: UseRun,
  cell: string,
  role: RoleName,
  { effect, before }: Call,
  statement: string,
  denied: boolean,
): Promise<void> {
  const look = async (tx: Queries) => ({ books: await digestOf(tx, seeded), orders: await ownersOf(tx) })
  const { seen: unchanged } = await attempt(tx, 'service_role', 'select', { before, look })
  const { rows, error, seen } = await attempt(tx, role, statement, { before, look })
  if (denied && error?.code !== '42501') report.fail(cell, `called with the owner's: ${error?.code ?? 'ran'}`)
  // A refused call has lost what came before it as well.
  const changed = !error && seen.books !== unchanged.books
  const mayChange = !denied && ((effect === 'writes' && role === 'owner') || effect === 'creates')
  if (changed && !mayChange) report.fail(cell, "changes rows that are not the caller's")
  if (!changed && mayChange) {
    report.fail(cell, `called with the owner's changes nothing${error ? `: ${said(error)}` : ''}`)
  }
  if (effect === 'creates' && changed) {
    const made = seen.orders.filter(({ id }) => !unchanged.orders.some((order) => order.id === id))
    const others = made.filter(({ owner }) => owner !== personOf(role))
    if (others.length > 0) report.fail(cell, `makes an order of ${others.map(({ owner }) => owner)}`)
  }
  const shows = JSON.stringify(rows).includes(ownersOrder)
  const ordersRead = within(
    declaration.tables['public.orders']?.select[role] ?? 'denied',
    role,
    await rowsOf(tx, 'public.orders', false),
  )
  const mayShow = !denied && ordersRead.some(({ text }) => text.includes(ownersOrder))
  if (shows && !mayShow) report.fail(cell, "shows the owner's order")
  if (effect === 'reads' && mayShow && !shows) {
    report.fail(cell, 'does not show an order that the role may read')
  }
}

export async function sequenceCells({ tx, declaration, report }: UseRun, name: string): Promise<void> {
  const uses = declaration.sequences[name]
  if (!uses) return
  for (const role of roles) {
    const cell = `${name} use as ${role}`
    report.ran(cell)
    for (const statement of [`select nextval('${name}')`, `select last_value from ${name}`]) {
      const { error } = await attempt(tx, role, statement)
      const denied = error?.code === '42501'
      if (denied !== (uses[role] === 'denied')) {
        report.fail(
          cell,
          `${statement}: ${uses[role]} is declared, found ${error ? said(error) : 'that it ran'}`,
        )
      }
    }
    // Setting it back would hand out numbers twice.
    const { error } = await attempt(tx, role, `select setval('${name}', 1)`)
    if (error?.code !== '42501') {
      report.fail(cell, `setval: must be refused, found ${error?.code ?? 'that it ran'}`)
    }
  }
}

async function hasPrivilege(tx: Queries, role: RoleName, kind: string, name: string, privilege: string) {
  const [row] = await tx.unsafe(
    `select has_${kind}_privilege('${callerOf(role).role}', '${name}', '${privilege}') as yes`,
  )
  return Boolean(row?.yes)
}

async function ownersOf(tx: Queries): Promise<{ id: string; owner: string | null }[]> {
  return [...await tx.unsafe('select id, user_id as owner from public.orders')] as never
}

/** Whether declaration and database name the same things, and whether what has no cell is closed to all. */
import { type Declaration, declaredName, type Report } from './report.ts'
import { commands, roles } from '../matrix.ts'
import { callerOf } from './attempt.ts'
import { apiRoles, type Catalogue, openDoors, type Relation } from './catalogue.ts'
import type { Queries } from '../../support/sql.ts'

const kinds = {
  ...{
    r: 'table',
    p: 'partitioned table',
    v: 'view',
    m: 'materialized view',
    f: 'foreign table',
    S: 'sequence',
  },
}

export async function checkCompleteness(
  tx: Queries,
  catalogue: Catalogue,
  declaration: Declaration,
  report: Report,
): Promise<void> {
  const relations = catalogue.relations.filter(({ partition }) => !partition)
  const tables = relations.filter(({ kind }) => kind !== 'S')
  const sequences = relations.filter(({ kind }) => kind === 'S')
  for (const { name, kind } of missingFrom(declaration.tables, tables)) {
    report.fail(
      name,
      `this ${kinds[kind]} is not declared: add '${name}' to tables in tests/rls/matrix/, and rows to ` +
        'tests/rls/support/fixture.ts if any role may reach it',
    )
  }
  for (const { name } of missingFrom(declaration.sequences, sequences)) {
    report.fail(name, `this sequence is not declared: add '${name}' to sequences in tests/rls/matrix/`)
  }
  for (const { name } of catalogue.routines.filter(({ name }) => !declaredName(declaration, name))) {
    report.fail(name, `this function is not declared: add '${name}' to functions in tests/rls/matrix/`)
  }
  reportUnknown(report, 'tables', declaration.tables, tables)
  reportUnknown(report, 'sequences', declaration.sequences, sequences)
  reportUnknown(report, 'functions', declaration.functions, catalogue.routines)
  for (const relation of catalogue.relations) checkRelation(relation, declaration, report)
  for (const { name, byPublic } of catalogue.routines) {
    if (byPublic) report.fail(name, `PUBLIC may execute it: revoke execute on function ${name} from public`)
  }
  for (const problem of await openDoors(tx)) report.fail('roles', problem)
}

function checkRelation(relation: Relation, declaration: Declaration, report: Report): void {
  const { name, kind, grants, partition } = relation
  const fail = (problem: string) => report.fail(name, problem)
  if (partition) {
    if (grants.length > 0) fail(`a partition is reached through its parent only, yet granted: ${grants}`)
    return
  }
  if ((kind === 'r' || kind === 'p') && !relation.rls) {
    fail(`row level security is off: alter table ${name} enable row level security`)
  }
  const readers = Object.values(declaration.tables[name]?.select ?? {}).some((reach) => reach !== 'denied')
  if (kind === 'v' && readers && !relation.securityInvoker) {
    fail(`reads with its owner's rights: alter view ${name} set (security_invoker = true)`)
  }
  if ((kind === 'm' || kind === 'f') && readers) fail(`no policy holds a ${kinds[kind]}: nobody may read it`)
  for (const { cell, grant } of idleGrants(relation, declaration)) {
    report.fail(cell, `granted ${grant}, and one policy away from being reached: revoke it`)
  }
  const ordinary = kind === 'S'
    ? apiRoles.flatMap((role) => ['usage', 'select', 'update'].map((word) => `${role} ${word}`))
    : apiRoles.flatMap((role) => commands.map((word) => `${role} ${word}`))
  for (const grant of grants.filter((grant) => !ordinary.includes(grant))) {
    fail(`granted ${grant}, for which the matrix has no cell: revoke it`)
  }
}

/** Grants whose every cell is denied: the policies alone hold them. */
function idleGrants({ name, grants }: Relation, { tables }: Declaration) {
  const rules = tables[name]
  if (!rules) return []
  return apiRoles.flatMap((apiRole) =>
    commands.flatMap((command) => {
      const denied = roles.filter((role) => callerOf(role).role === apiRole)
      const grant = `${apiRole} ${command}`
      const idle = grants.includes(grant) && denied.every((role) => rules[command][role] === 'denied')
      return idle ? denied.map((role) => ({ cell: `${name} ${command} as ${role}`, grant })) : []
    })
  )
}

function missingFrom<T extends { name: string }>(declared: Record<string, unknown>, found: T[]): T[] {
  return found.filter(({ name }) => !(name in declared))
}

function reportUnknown(
  report: Report,
  list: string,
  declared: Record<string, unknown>,
  found: { name: string }[],
): void {
  const names = new Set(found.map(({ name }) => name))
  for (const name of Object.keys(declared).filter((name) => !names.has(name))) {
    report.fail(name, `is declared in ${list} and does not exist: take it out of tests/rls/matrix/`)
  }
}

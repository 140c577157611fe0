/** Runs the matrix through SQL and lists what does not hold. */
import type { Queries } from '../../support/sql.ts'
import { type Reach, roles } from '../matrix.ts'
import { readCatalogue, type Relation } from './catalogue.ts'
import { fixtureOf, type TableRun } from './cells.ts'
import { checkCompleteness } from './completeness.ts'
import { readCells, spy } from './readCells.ts'
import { type Declaration, declared, Report } from './report.ts'
import { rowsOf, seed } from './rows.ts'
import { functionCells, sequenceCells } from './useCells.ts'
import { writeCells } from './writeCells.ts'

export interface SqlMatrixOptions {
  /** @default what tests/rls/matrix.ts says */
  declaration?: Declaration
  /** Run the cells of these names only; completeness is checked for all. */
  only?: string[]
  /** Statements of the superuser, once the fixture's rows are there. */
  broken?: string
}

/**
 * Must be called in a transaction of the superuser, which is to be rolled back: it leaves the fixture's rows behind.
 * Every statement runs below a savepoint of it, in the name of a role.
 */
export async function runSqlMatrix(tx: Queries, options: SqlMatrixOptions = {}): Promise<Report> {
  const { declaration = declared, only, broken = 'select' } = options
  const chosen = (name: string) => only === undefined || only.includes(name)
  const report = new Report()
  const seeded = await seed(tx)
  // Otherwise there are no statistics that could leak.
  await tx.unsafe(`analyze ${seeded}`)
  await tx.unsafe(spy)
  await tx.unsafe(broken)
  const catalogue = await readCatalogue(tx)
  await checkCompleteness(tx, catalogue, declaration, report)
  for (const relation of catalogue.relations.filter(({ name }) => chosen(name))) {
    if (relation.kind === 'S') await sequenceCells({ tx, declaration, report, seeded }, relation.name)
    else await tableCells(tx, relation, declaration, report)
  }
  for (const routine of catalogue.routines.filter(({ name }) => chosen(name))) {
    await functionCells({ tx, declaration, report, seeded }, routine)
  }
  return report
}

async function tableCells(
  tx: Queries,
  relation: Relation,
  { tables }: Declaration,
  report: Report,
): Promise<void> {
  const table = relation.name
  const rules = tables[table]
  if (!rules || relation.partition) return
  const before = await rowsOf(tx, table, relation.kind === 'v' || relation.kind === 'm')
  const run: TableRun = { tx, table, relation, fixture: fixtureOf(table), before, rules, report }
  for (const lack of lackingRows(run)) report.fail(table, `${lack}: add it to tests/rls/support/fixture.ts`)
  await readCells(run)
  await writeCells(run)
}

/** Without such rows a cell would hold whatever the policy says. */
function lackingRows({ rules, before }: TableRun): string[] {
  const reaches = new Set<Reach>(
    roles.flatMap((role) => [rules.select[role], rules.insert[role], rules.update[role], rules.delete[role]]),
  )
  reaches.delete('denied')
  const lacking: string[] = []
  if (reaches.size > 0 && before.length === 0) lacking.push('it is reached by a role and has no row')
  if (reaches.has('own')) {
    for (const  of of['owner', 'other'] as const) {
      if (!before.some((row) => row.of === of && !row.deleted)) lacking.push(`it has no row of the ${of}`)
    }
    if (!before.some((row) => row.of === 'owner' && row.deleted)) {
      lacking.push('it has no deleted row of the owner')
    }
  }
  if (reaches.has('visible') && !before.some((row) => row.deleted)) lacking.push('it has no deleted row')
  return lacking
}

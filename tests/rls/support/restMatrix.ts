/** Runs the matrix through REST: the tables that are exposed, and the names that must not be there. */
import type { Sql } from '../../support/sql.ts'
import { commands, roles } from '../matrix.ts'
import { readCatalogue } from './catalogue.ts'
import { type Declaration, declared, Report } from './report.ts'
import type { Ask } from './rest.ts'
import { restTableCells } from './restCells.ts'
import { rolledBack } from './rolledBack.ts'
import { seed } from './rows.ts'

/** As `schemas` in supabase/config.toml. */
export const exposed = ['public']

/** Of the platform; ours that are not exposed are asked for as well. */
const closedSchemas = [
  'auth',
  'audit',
  'cron',
  'extensions',
  'holdfast',
  'net',
  'private',
  'storage',
  'vault',
]

export interface RestMatrixOptions {
  /** @default what tests/rls/matrix.ts says */
  declaration?: Declaration
  /** Run the cells of these tables only. */
  only?: string[]
}

export async function runRestMatrix(admin: Sql, ask: Ask, options: RestMatrixOptions = {}): Promise<Report> {
  const { declaration = declared, only } = options
  const report = new Report()
  const { relations } = await rolledBack(admin, readCatalogue)
  await seed(admin)
  const open = relations.filter(({ name, kind, partition }) => isExposed(name) && kind !== 'S' && !partition)
  for (const { name, kind } of open.filter(({ name }) => only === undefined || only.includes(name))) {
    await restTableCells(
      { admin, ask, tables: declaration.tables, report },
      name,
      kind === 'v' || kind === 'm',
    )
  }
  if (only === undefined) await absentNames(ask, declaration, report)
  return report
}

/** How many cells a whole run has. */
export function restCellCount({ tables, functions, generatedFunctions }: Declaration): number {
  const open = Object.keys(tables).filter(isExposed).length
  const absent = Object.keys(tables).length - open
  const names = Object.keys({ ...functions, ...generatedFunctions })
  return roles.length * (open * commands.length + absent + names.length + closedSchemas.length)
}

/** All roles side by side: nothing here can change anything. */
async function absentNames(ask: Ask, declaration: Declaration, report: Report): Promise<void> {
  const { tables, functions, generatedFunctions } = declaration
  await Promise.all(roles.map(async (role) => {
    const expectAbsent = async (
      cell: string,
      code: string,
      path: string,
      method: 'GET' | 'POST',
      headers = {},
    ) => {
      report.ran(cell)
      const answer = await ask(role, path, { method, headers, ...(method === 'POST' && { body: {} }) })
      if (answer.status < 400 || answer.code !== code) {
        report.fail(cell, `must not be there (${code}), found ${answer.status} ${answer.body.slice(0, 300)}`)
      }
    }
    for (const table of Object.keys(tables).filter((name) => !isExposed(name))) {
      const cell = `REST ${table} as ${role}`
      await expectAbsent(cell, 'PGRST205', bare(table), 'GET')
      await expectAbsent(cell, 'PGRST205', bare(table), 'POST')
    }
    for (const name of Object.keys({ ...functions, ...generatedFunctions })) {
      const path = `rpc/${bare(name).replace(/\(.*/, '').replace('*', '1')}`
      await expectAbsent(`REST ${name} as ${role}`, 'PGRST202', path, 'POST')
    }
    for (const schema of closedSchemas) {
      const cell = `REST schema ${schema} as ${role}`
      await expectAbsent(cell, 'PGRST106', 'orders', 'GET', { 'accept-profile': schema })
      await expectAbsent(cell, 'PGRST106', 'orders', 'POST', { 'content-profile': schema })
      await expectAbsent(cell, 'PGRST106', 'rpc/cancel_order', 'POST', { 'content-profile': schema })
    }
  }))
}

function isExposed(name: string): boolean {
  return exposed.includes(name.slice(0, name.indexOf('.')))
}

function bare(name: string): string {
  return name.slice(name.indexOf('.') + 1)
}

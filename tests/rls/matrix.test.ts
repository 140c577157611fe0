/** Every cell of the matrix through SQL: role and claims as PostgREST sets them, each statement taken back. */
import { readFile } from 'node:fs/promises'
import { beforeAll, expect, test } from 'vitest'
import { renderMatrix } from '../../tools/rls/renderMatrix.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql } from '../support/sql.ts'
import { routes, schemas, tables } from './matrix.ts'
import { cellCount, declared, type Failure, lines, type Report } from './support/report.ts'
import { rolledBack } from './support/rolledBack.ts'
import { runSqlMatrix } from './support/sqlMatrix.ts'

/** Some seconds on an idle machine. */
const patienceMs = 90_000

onEachPostgres('the matrix by SQL', ({ major }) => {
  let report: Report
  let tookMs: number

  beforeAll(async () => {
    const admin = openSql((await freshDatabase(major)).adminUrl)
    const startedAt = performance.now()
    report = await rolledBack(admin, (tx) => runSqlMatrix(tx))
    tookMs = performance.now() - startedAt
  }, patienceMs)

  const failures = (belongs: (failure: Failure) => boolean) => lines(report.failures.filter(belongs))
  const cellOf = (name: string) => ({ cell }: Failure) => cell === name || cell.startsWith(`${name} `)

  test.each(Object.keys(tables))('%s lets each role do what is declared, and nothing else', (table) => {
    expect(failures(cellOf(table))).toEqual([])
  })

  test.each(schemas)('in schema %s nothing is undeclared, and nothing leaks', (schema) => {
    expect(failures(({ cell }) => cell.startsWith(`${schema}.`))).toEqual([])
  })

  test('no role can create, bypass or inherit what would undo the policies', () => {
    expect(failures(({ cell }) => cell === 'roles')).toEqual([])
  })

  test('every cell was run, and every one holds', () => {
    expect(lines(report.failures)).toEqual([])
    expect(report.cells).toBe(cellCount(declared))
  })

  test('all of it takes less than a minute', () => {
    expect(tookMs).toBeLessThan(60_000)
  })
})

test('every route of every function is declared, and no other', async () => {
  const { paths } = JSON.parse(await readFile(new URL('../../docs/openapi.json', import.meta.url), 'utf8'))
  const served = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods as object).map((method) =>
      `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`
    )
  )
  expect(Object.keys(routes).sort()).toEqual(served.sort())
})

test('docs/rls-matrix.md is what the declaration says; `npm run rls -- --write` brings it up to date', async () => {
  const page = await readFile(new URL('../../docs/rls-matrix.md', import.meta.url), 'utf8')
  expect(page).toBe(renderMatrix())
})

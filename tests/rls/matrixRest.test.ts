/** Every cell of the matrix through REST and through the edge functions, on one stack. */
import { readFile } from 'node:fs/promises'
import { parse } from 'smol-toml'
import { beforeAll, describe, expect, test } from 'vitest'
import { openProject } from '../../local/project.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'
import { roles, routes } from './matrix.ts'
import { declared, lines, type Report } from './support/report.ts'
import { type Ask, type Credentials, credentialsOf, restOf } from './support/rest.ts'
import { runRouteMatrix } from './support/routeCells.ts'
import { exposed, restCellCount, runRestMatrix } from './support/restMatrix.ts'

/** Some seconds on an idle machine. */
const patienceMs = 90_000

let stack: TestStack
let admin: Sql
let credentials: Credentials
let ask: Ask

beforeAll(async () => {
  stack = await testStack()
  admin = openSql(stack.db.adminUrl)
  credentials = await credentialsOf(stack)
  ask = restOf(stack, credentials)
})

describe('by REST', () => {
  let report: Report
  let tookMs: number

  beforeAll(async () => {
    const startedAt = performance.now()
    report = await runRestMatrix(admin, ask)
    tookMs = performance.now() - startedAt
  }, patienceMs)

  test('every cell holds', () => {
    expect(lines(report.failures)).toEqual([])
  })

  test('the schemas that are exposed are those of config.toml', async () => {
    const config = parse(await readFile(openProject().configFile, 'utf8')) as { api: { schemas: string[] } }
    expect(exposed).toEqual(config.api.schemas)
  })

  test('every cell was run', () => {
    expect(report.cells).toBe(restCellCount(declared))
  })

  test('all of it takes less than a minute', () => {
    expect(tookMs).toBeLessThan(60_000)
  })
})

describe('by function', () => {
  let report: Report

  beforeAll(async () => {
    report = await runRouteMatrix({ stack, admin, credentials })
  }, patienceMs)

  test('every route answers each role as declared and changes rows only with a success', () => {
    expect(lines(report.failures)).toEqual([])
    expect(report.cells).toBe(roles.length * Object.keys(routes).length)
  })
})

describe('broken on purpose', () => {
  /** What the matrix says by REST while the statement holds; `undo` takes it back. */
  async function found(broken: string, undo: string, only: string[]): Promise<string[]> {
    await admin.unsafe(broken)
    try {
      return lines((await runRestMatrix(admin, ask, { only })).failures)
    } finally {
      await admin.unsafe(undo)
    }
  }

  test('a policy that lets everybody see every order is found in rows, counts and embedded resources', async () => {
    const failures = await found(
      'create policy broken on public.orders for select to authenticated using (true)',
      'drop policy broken on public.orders',
      ['public.orders'],
    )
    for (const how of ['reads too much', 'count=exact', 'head', 'asked by their keys', 'embedding']) {
      expect(failures).toContainEqual(expect.stringMatching(`^REST public.orders select as other: .*${how}`))
    }
    expect(failures.filter((line) => line.includes('as anon') || line.includes('as service_role'))).toEqual(
      [],
    )
  })

  test('a right to write that nobody declared is found by the rows that it changes', async () => {
    const failures = await found(
      `grant update on public.orders to authenticated;
      create policy broken on public.orders for update to authenticated using (true)`,
      `drop policy broken on public.orders; revoke update on public.orders from authenticated`,
      ['public.orders'],
    )
    expect(failures).toContainEqual(
      expect.stringMatching(
        /^REST public\.orders update as other: return=minimal: changes too much: .*the other's/,
      ),
    )
    expect(failures).toContainEqual(expect.stringMatching(/update as other: return=minimal: must be refused/))
  })

  test("a function that forgets whose order it is is found by the other's success", async () => {
    const route = 'DELETE /orders/:id'
    const [{ definition }] = await admin`
      select pg_get_functiondef('private.delete_order(uuid)'::regprocedure) as definition` as [
      { definition: string },
    ]
    await admin.unsafe(definition.replace('and o.user_id = auth.uid()', ''))
    try {
      const { failures } = await runRouteMatrix({ stack, admin, credentials }, {
        ...declared,
        routes: { [route]: routes[route]! },
      })
      expect(lines(failures)).toContainEqual(
        expect.stringMatching(/^DELETE \/orders\/:id as other: must be 404, found 200/),
      )
      expect(lines(failures).filter((line) => line.includes('as owner'))).toEqual([])
    } finally {
      await admin.unsafe(definition)
    }
  })
})

/** The whole local stack in the test's own process, on a database of its own and on ports that are free. */
import { join } from 'node:path'
import { inject } from 'vitest'
import { openProject, type Project } from '../../local/project.ts'
import { type Stack, type StackOptions, startStack } from '../../local/stack.ts'
import { type FreshDatabase, freshDatabase } from './database.ts'
import { closeAfterFile } from './leftovers.ts'

export interface TestStackOptions extends Partial<StackOptions> {
  /** A folder with a project of its own (`supabase/config.toml`, `supabase/functions`), below tests/fixtures. */
  functions?: string
  /** Major version of the server. @default the first of this run */
  major?: number
}

export interface TestStack extends Stack {
  db: FreshDatabase
}

let started = 0

/** Starts it; the end of the file stops it at the latest. Tests that stop it before may call `close` themselves. */
export async function testStack(options: TestStackOptions = {}): Promise<TestStack> {
  const { functions, major, ...overrides } = options
  const db = await freshDatabase(major)
  const stack = await startStack({
    project: projectOf(functions),
    port: 0,
    paymentsPort: 0,
    databaseUrl: db.url,
    adminUrl: db.adminUrl,
    // pg_cron serves one database of the cluster, so jobs of a clone rest. A test that wants them run says 'runner'.
    cron: 'database',
    ...overrides,
  })
  const closeStack = stack.close.bind(stack)
  let closed: Promise<void> | undefined
  const close = () => closed ??= closeStack()
  closeAfterFile({ name: `the stack on port ${stack.port}`, close })
  return Object.assign(stack, { db, close })
}

function projectOf(functions: string | undefined): Project {
  const localDir = join(inject('runDir'), `stack-${Deno.pid}-${++started}`)
  return openProject({ root: functions, localDir })
}

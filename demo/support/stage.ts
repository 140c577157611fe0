/** A local stack for one demo: a database, ports and files of its own, all of them gone when it ends. */
import { join } from 'node:path'
import { localKeys } from '../../local/keys.ts'
import { resolvePostgres } from '../../local/postgres/binaries.ts'
import { Cluster } from '../../local/postgres/cluster.ts'
import { applyMigrations, applySeed } from '../../local/postgres/migrations.ts'
import { preparePlatform } from '../../local/postgres/platform.ts'
import { openProject } from '../../local/project.ts'
import { type Stack, startStack } from '../../local/stack.ts'
import { openRunDirectory, removeAbandonedRuns } from '../../tests/support/runDirectory.ts'
import type { DemoContext } from './demo.ts'

export interface Stage extends Stack {
  adminUrl: string
}

/** Nothing of it is to survive a crash. */
const settings = { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }

/**
 * Starts it on free ports, with this project's migrations and seed. `functions` is the folder of a project whose
 * functions are served in that many isolates; this project's own by default.
 */
export async function openStage(
  { progress, resources, signal }: DemoContext,
  options: { functions?: string; isolates: number },
): Promise<Stage> {
  await removeAbandonedRuns()
  progress.step('Starting PostgreSQL')
  const directory = resources.adopt(
    await openRunDirectory(),
    (directory) => Deno.remove(directory, { recursive: true }),
  )
  const cluster = resources.adopt(
    await Cluster.open({
      binaries: await resolvePostgres(progress),
      directory: join(directory, 'postgres'),
      port: 0,
      settings,
    }),
    (cluster) => cluster.destroy(),
  )
  signal.throwIfAborted()
  await cluster.start()
  progress.step('Applying the migrations')
  const project = openProject()
  await preparePlatform({ adminUrl: cluster.adminUrl(), jwtSecret: localKeys.jwtSecret })
  await applyMigrations(project, cluster.url())
  await applySeed(project, cluster.url())
  signal.throwIfAborted()
  const { isolates } = options
  progress.step(`Starting the functions, ${isolates === 1 ? '1 isolate' : `${isolates} isolates`} of each`)
  const stack = resources.adopt(
    await startStack({
      project: openProject({ root: options.functions, localDir: join(directory, 'local') }),
      port: 0,
      databaseUrl: cluster.url(),
      adminUrl: cluster.adminUrl(),
      isolates,
    }),
    (stack) => stack.close(),
  )
  signal.throwIfAborted()
  progress.done()
  return Object.assign(stack, { adminUrl: cluster.adminUrl() })
}

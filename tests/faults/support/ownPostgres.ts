/** A PostgreSQL for one file alone, with everything a hosted project has: it may be crashed without harm to others. */
import { join } from 'node:path'
import { inject } from 'vitest'
import { localKeys } from '../../../local/keys.ts'
import { resolvePostgres } from '../../../local/postgres/binaries.ts'
import { Cluster } from '../../../local/postgres/cluster.ts'
import { applyMigrations, applySeed } from '../../../local/postgres/migrations.ts'
import { preparePlatform } from '../../../local/postgres/platform.ts'
import { silentProgress } from '../../../local/progress.ts'
import { openProject } from '../../../local/project.ts'
import { closeAfterFile } from '../../support/leftovers.ts'

export interface OwnPostgres {
  /** With the rights of a hosted project's `postgres`. */
  url: string
  /** As superuser. */
  adminUrl: string
  /** False from the moment of a crash until the server takes connections again. */
  readonly up: boolean
  /** Stops the server with `immediate`, as if it had crashed, and starts it again. */
  crash(): Promise<void>
}

/**
 * What was committed survives a crash of the server, which is what these tests are about: with the machine staying
 * up, that takes no fsync, but every commit has to wait until its record is written.
 */
const settings = {
  fsync: 'off',
  synchronous_commit: 'on',
  full_page_writes: 'off',
  // Deadlocks are part of the storm; waiting a second for each would make it a calm.
  deadlock_timeout: '200ms',
}

/** Migrated and seeded; removed with all its files when the test file ends. */
export async function ownPostgres(name: string): Promise<OwnPostgres> {
  const cluster = await Cluster.open({
    binaries: await resolvePostgres(silentProgress),
    directory: join(inject('runDir'), `${name}-${Deno.pid}`),
    port: 0,
    settings,
  })
  closeAfterFile({ name: `the PostgreSQL of ${name}`, close: () => cluster.destroy() })
  await cluster.start()
  const project = openProject()
  await preparePlatform({ adminUrl: cluster.adminUrl(), jwtSecret: localKeys.jwtSecret })
  await applyMigrations(project, cluster.url())
  await applySeed(project, cluster.url())
  let up = true
  return {
    url: cluster.url(),
    adminUrl: cluster.adminUrl(),
    get up() {
      return up
    },
    async crash() {
      up = false
      await cluster.stop('immediate')
      await cluster.start()
      up = true
    },
  }
}

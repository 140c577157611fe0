/** A PostgreSQL of one's own, with the platform, the migrations and the seed, as `npm start` makes it. */
import { join } from 'node:path'
import { localKeys } from '../../local/keys.ts'
import { resolvePostgres } from '../../local/postgres/binaries.ts'
import { Cluster } from '../../local/postgres/cluster.ts'
import { applyMigrations } from '../../local/postgres/migrations.ts'
import { preparePlatform } from '../../local/postgres/platform.ts'
import { applySeed } from '../../local/postgres/seed.ts'
import { openRunDirectory, removeAbandonedRuns } from '../../tests/support/runDirectory.ts'
import { median } from './statistics.ts'
import type { Bench } from './suite.ts'

/** Started for one measure and removed with it. Durable as in production: what a commit costs belongs to the figures. */
export async function startDatabase({ project, progress, resources }: Bench): Promise<Cluster> {
  await removeAbandonedRuns()
  const directory = resources.adopt(
    await openRunDirectory(),
    (directory) => Deno.remove(directory, { recursive: true }),
  )
  const cluster = resources.adopt(
    await Cluster.open({
      binaries: await resolvePostgres(progress),
      directory: join(directory, 'postgres'),
      port: 0,
    }),
    (cluster) => cluster.destroy(),
  )
  await cluster.start()
  await preparePlatform({ adminUrl: cluster.adminUrl(), jwtSecret: localKeys.jwtSecret })
  await applyMigrations(project, cluster.url())
  await applySeed(project, cluster.url())
  return cluster
}

/** What the disk takes to keep a page, in milliseconds: a commit costs at least that, and next to nothing in memory. */
export function flushMs(cluster: Cluster): number {
  const path = join(cluster.dataDir, 'bench-flush')
  using file = Deno.openSync(path, { create: true, write: true })
  try {
    const page = new Uint8Array(8_192)
    const times = Array.from({ length: 51 }, () => {
      const startedAt = performance.now()
      file.seekSync(0, Deno.SeekMode.Start)
      file.writeSync(page)
      file.syncDataSync()
      return performance.now() - startedAt
    })
    return median(times)
  } finally {
    Deno.removeSync(path)
  }
}

/**
 * The PostgreSQL servers of one test run: the installed one with the real pg_cron and npm's with the stand-in, each
 * with a template database that holds the platform, the migrations and the seed.
 */
import { join } from 'node:path'
import postgres from 'postgres'
import { localKeys } from '../../local/keys.ts'
import { aptCanInstall, aptInstall } from '../../local/postgres/apt.ts'
import {
  findEmbeddedPostgres,
  type PostgresBinaries,
  resolvePostgres,
} from '../../local/postgres/binaries.ts'
import { Cluster } from '../../local/postgres/cluster.ts'
import { applyMigrations, applySeed } from '../../local/postgres/migrations.ts'
import { preparePlatform } from '../../local/postgres/platform.ts'
import type { Progress } from '../../local/progress.ts'
import { openProject } from '../../local/project.ts'
import type { TestPostgres } from './provided.ts'

const template = 'holdfast_template'

/** Durability is not what tests are about, and the data ends with the run. */
const fastSettings = {
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  max_connections: '200',
  // A checkpoint in the middle of a run would only slow it down.
  checkpoint_timeout: '1h',
  max_wal_size: '4GB',
}

export interface TestClusters {
  servers: TestPostgres[]
  stop(): Promise<void>
}

/**
 * Starts them side by side. `all` takes both servers, otherwise the first alone: the installed one where there is one
 * with pg_cron (or where it can be installed), else npm's.
 */
export async function startClusters(
  options: { directory: string; all: boolean; progress: Progress },
): Promise<TestClusters> {
  const { directory, all, progress } = options
  const binaries = await chooseBinaries(all, progress)
  const started: Cluster[] = []
  const stop = async () => {
    await Promise.all(started.splice(0).map((cluster) => cluster.destroy()))
  }
  const names = binaries.map(({ version }) => version).join(' and ')
  progress.step(`PostgreSQL ${names}: a cluster for this run, migrated and seeded`)
  const startedAt = performance.now()
  const results = await Promise.allSettled(binaries.map((each) => startCluster(each, directory, started)))
  const failure = results.find((result) => result.status === 'rejected')
  if (failure) {
    await stop()
    throw failure.reason
  }
  progress.done(`PostgreSQL ${names} ready in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`)
  return { servers: results.flatMap((result) => result.status === 'fulfilled' ? [result.value] : []), stop }
}

async function chooseBinaries(all: boolean, progress: Progress): Promise<PostgresBinaries[]> {
  const first = await resolvePostgres(progress)
  if (all && first.source === 'installed') await installLinter(first, progress)
  if (!all || first.source === 'embedded') return [first]
  const embedded = await findEmbeddedPostgres()
  return embedded && embedded.version !== first.version ? [first, embedded] : [first]
}

/** `supabase db lint` needs plpgsql_check; where it cannot be installed its test says so and is left out. */
async function installLinter({ version }: PostgresBinaries, progress: Progress): Promise<void> {
  const control = `/usr/share/postgresql/${version}/extension/plpgsql_check.control`
  const found = await Deno.stat(control).then(() => true, () => false)
  if (found || !(await aptCanInstall())) return
  const name = `postgresql-${version}-plpgsql-check`
  progress.step(`Installing ${name} (apt-get)`)
  const failure = await aptInstall([name], progress)
  if (failure) progress.info(`apt-get could not install ${name}: ${failure}`)
}

async function startCluster(
  binaries: PostgresBinaries,
  directory: string,
  started: Cluster[],
): Promise<TestPostgres> {
  const cluster = await Cluster.open({
    binaries,
    directory: join(directory, `pg${binaries.version}`),
    port: 0,
    // pg_cron lives in one database of a cluster, and its launcher stays connected to that. For the length of the
    // set-up this is the template: so every clone has the extension.
    cronDatabase: template,
    settings: fastSettings,
  })
  started.push(cluster)
  await cluster.start()
  await createTemplate(cluster)
  if (binaries.hasCron) {
    // From here on the launcher serves `postgres`: nobody is connected to the template, which can be cloned, and no
    // job of a clone ever runs.
    await cluster.restart({ 'cron.database_name': 'postgres' })
  }
  // Only now: before, `postgres` would have got the stand-in, for pg_cron served the template.
  await preparePlatform({ adminUrl: cluster.adminUrl('postgres'), jwtSecret: localKeys.jwtSecret })
  return {
    major: binaries.version,
    source: binaries.source,
    hasCron: binaries.hasCron,
    port: cluster.port,
    url: cluster.url('postgres'),
    adminUrl: cluster.adminUrl('postgres'),
    template,
    dataDir: cluster.dataDir,
    logFile: cluster.logFile,
  }
}

async function createTemplate(cluster: Cluster): Promise<void> {
  const sql = postgres(cluster.adminUrl('postgres'), { max: 1, onnotice() {} })
  try {
    await sql.unsafe(`create database ${template}`)
    const project = openProject()
    await preparePlatform({ adminUrl: cluster.adminUrl(template), jwtSecret: localKeys.jwtSecret })
    await applyMigrations(project, cluster.url(template))
    await applySeed(project, cluster.url(template))
  } finally {
    await sql.end()
  }
}

/**
 * Which PostgreSQL the stack runs on: an installed one with pg_cron, one that apt-get can install, or npm's.
 */
import { join } from 'node:path'
import { LocalError } from '../errors.ts'
import type { Progress } from '../progress.ts'
import { aptCanInstall, cronPackages, installPostgres } from './apt.ts'
import { findEmbeddedPostgres } from './embedded.ts'
import { run } from './run.ts'

export { findEmbeddedPostgres } from './embedded.ts'

/** Server programs that fit together: `postgres`, `initdb` and `pg_ctl` of one version in one directory. */
export interface PostgresBinaries {
  source: 'installed' | 'embedded'
  /** Major version. */
  version: number
  binDir: string
  /** pg_cron can be loaded; without it a stand-in schema and `startCronRunner` take its place. */
  hasCron: boolean
}

/** Oldest PostgreSQL that the migrations run on. */
export const minimumPostgres = 15

/** The newest installed server with pg_cron; where none has it, the newest without. Undefined when there is none. */
export async function findInstalledPostgres(
  minimumMajor = minimumPostgres,
): Promise<PostgresBinaries | undefined> {
  const found = await Promise.all((await installedDirectories()).map(inspect))
  return found
    .filter((one) => one !== undefined)
    .filter((one) => one.version >= minimumMajor)
    .sort((a, b) => Number(b.hasCron) - Number(a.hasCron) || b.version - a.version)[0]
}

/**
 * The server to use, installing one if need be: an installed one with pg_cron; what `apt-get` gives (as root or by
 * password-less sudo); else npm's embedded one, announced in one line. An installed server without pg_cron comes
 * before npm's only where npm's does not run.
 */
export async function resolvePostgres(progress: Progress): Promise<PostgresBinaries> {
  const installed = await findInstalledPostgres()
  if (installed?.hasCron) return installed

  if (await aptCanInstall()) {
    const failure = await installPostgres(installed?.version, minimumPostgres, progress)
    const fresh = failure === undefined ? await findInstalledPostgres() : undefined
    if (fresh?.hasCron) return fresh
    progress.info(`apt-get could not provide pg_cron: ${failure ?? 'the server it installed was not found'}`)
  }

  const fallback = await findEmbeddedPostgres() ?? installed
  if (fallback === undefined) throw nothingRuns()
  progress.info(await announcement(fallback))
  return fallback
}

/** Directories that package managers put servers in, and whatever is first on PATH. */
async function installedDirectories(): Promise<string[]> {
  const directories = new Set<string>()
  const layouts: [parent: string, entry: RegExp, rest: string][] = [
    ['/usr/lib/postgresql', /^\d+$/, 'bin'],
    ['/usr', /^pgsql-\d+$/, 'bin'],
    ['/opt/homebrew/opt', /^postgresql(@\d+)?$/, 'bin'],
    ['/usr/local/opt', /^postgresql(@\d+)?$/, 'bin'],
    ['/usr/local', /^pgsql$/, 'bin'],
  ]
  for (const [parent, entry, rest] of layouts) {
    for (const name of await entriesOf(parent)) {
      if (entry.test(name)) directories.add(join(parent, name, rest))
    }
  }
  const onPath = await run('pg_config', ['--bindir'])
  if (onPath.success) directories.add(onPath.stdout)
  return [...directories]
}

async function inspect(binDir: string): Promise<PostgresBinaries | undefined> {
  const names = new Set(await entriesOf(binDir))
  if (!['postgres', 'initdb', 'pg_ctl'].every((name) => names.has(name))) return undefined
  const { stdout, success } = await run(join(binDir, 'postgres'), ['--version'])
  const version = Number(/PostgreSQL\) (\d+)/.exec(stdout)?.[1])
  if (!success || !Number.isInteger(version)) return undefined
  return { source: 'installed', version, binDir, hasCron: await cronIn(binDir, version) }
}

/** pg_cron is there when its library is, and the control file that `create extension` reads. */
async function cronIn(binDir: string, version: number): Promise<boolean> {
  const config = join(binDir, 'pg_config')
  const [library, share] = await Promise.all([run(config, ['--pkglibdir']), run(config, ['--sharedir'])])
  // Debian keeps pg_config in a package of its own, so its layout is known here by heart.
  const libraryDir = library.success ? library.stdout : join(binDir, '..', 'lib')
  const shareDir = share.success ? share.stdout : `/usr/share/postgresql/${version}`
  const libraries = await entriesOf(libraryDir)
  const controls = await entriesOf(join(shareDir, 'extension'))
  return libraries.some((name) => /^pg_cron\.(so|dylib)$/.test(name)) && controls.includes('pg_cron.control')
}

async function entriesOf(directory: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(directory))).map((entry) => entry.name)
  } catch {
    return []
  }
}

async function announcement({ source, version }: PostgresBinaries): Promise<string> {
  const what = source === 'embedded' ? `npm's PostgreSQL ${version}` : `PostgreSQL ${version} without pg_cron`
  const packages = await cronPackages(minimumPostgres)
  const remedy = packages === undefined
    ? `install a PostgreSQL from ${minimumPostgres} on with pg_cron; Debian and Ubuntu call it postgresql-N-cron`
    : `sudo apt-get install ${packages.join(' ')}`
  return `Using ${what}; a built-in runner stands in for pg_cron (for the real one: ${remedy})`
}

function nothingRuns(): LocalError {
  return new LocalError(
    `Cannot find a PostgreSQL ${minimumPostgres} or later: none is installed, and npm's does not run here`,
    {
      where: `${Deno.build.os} ${Deno.build.arch}`,
      fix:
        'Install one with pg_cron (Debian, Ubuntu: apt-get install postgresql postgresql-15-cron), or run ' +
        '`npm install` again without --omit=optional.',
    },
  )
}

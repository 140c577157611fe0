/** Installs PostgreSQL and pg_cron on Debian and Ubuntu, without the default cluster Debian would start with it. */
import type { Progress } from '../progress.ts'
import { run, runWithLines } from './run.ts'

const clusterConfig = '/etc/postgresql-common/createcluster.conf'
const clusterConfigDir = '/etc/postgresql-common/createcluster.d'
/** Seconds to wait for a mirror that does not answer, and for another apt-get to end. */
const patience = ['--option=Acquire::http::Timeout=15', '--option=DPkg::Lock::Timeout=120']
const ourClusterConfig = `${clusterConfigDir}/holdfast.conf`

/** Is this a system with apt-get where we are root, or may become root without being asked for a password? */
export async function aptCanInstall(): Promise<boolean> {
  if (!(await run('apt-get', ['--version'])).success) return false
  return Deno.uid() === 0 || (await run('sudo', ['-n', 'true'])).success
}

/** The packages to install for a server with pg_cron; undefined where apt knows of none. */
export async function cronPackages(minimumMajor: number): Promise<string[] | undefined> {
  return await packagesFor(undefined, minimumMajor)
}

/**
 * Installs `postgresql-N-cron`, and the server where there is none.
 * @param serverMajor the server that is there already; without one the newest that has pg_cron is taken
 * @returns why it could not be done, or undefined when it is
 */
export async function installPostgres(
  serverMajor: number | undefined,
  minimumMajor: number,
  progress: Progress,
): Promise<string | undefined> {
  let packages = await packagesFor(serverMajor, minimumMajor)
  const failure = packages && await installServer(packages, progress)
  if (packages !== undefined && failure === undefined) return undefined

  // No lists yet (a fresh container), or lists so old that the packages they name are gone.
  progress.step('Fetching the package lists (apt-get update)')
  const update = await asRoot('apt-get', [...patience, 'update'])
  if (!update.success) return failure ?? lastLine(update.stderr)
  progress.done()
  packages = await packagesFor(serverMajor, minimumMajor)
  if (packages === undefined) {
    return `it knows no package of pg_cron for PostgreSQL ${serverMajor ?? `${minimumMajor} or later`}`
  }
  return await installServer(packages, progress)
}

async function installServer(packages: string[], progress: Progress): Promise<string | undefined> {
  progress.step(`Installing ${packages.join(' and ')} (apt-get)`)
  const unguard = packages.length > 1 ? await withoutDefaultCluster() : undefined
  try {
    return await aptInstall(packages, progress)
  } finally {
    await unguard?.()
  }
}

/** @returns why it could not be done, or undefined when it is */
export async function aptInstall(packages: string[], progress: Progress): Promise<string | undefined> {
  let lastPercent = -1
  const { success, stderr, stdout } = await asRoot('apt-get', [
    ...patience,
    '--option=APT::Status-Fd=1',
    '--yes',
    '--no-install-recommends',
    'install',
    ...packages,
  ], (line) => {
    // `dlstatus:n:percent:text` while it downloads, `pmstatus:package:percent:text` while it unpacks.
    const [, percent, text] = /^(?:dl|pm)status:[^:]*:([\d.]+):(.*)$/.exec(line) ?? []
    if (percent === undefined || Math.floor(Number(percent) / 10) === lastPercent) return
    lastPercent = Math.floor(Number(percent) / 10)
    progress.info(`${Math.round(Number(percent))} % ${text}`)
  })
  if (!success) return lastLine(stderr) || lastLine(stdout)
  progress.done()
  return undefined
}

/** A server that is there is not named, for naming it would upgrade it and restart what runs on it. */
async function packagesFor(
  serverMajor: number | undefined,
  minimumMajor: number,
): Promise<string[] | undefined> {
  const major = serverMajor ?? await newestWithCron(minimumMajor)
  if (major === undefined || !(await hasCandidate(`postgresql-${major}-cron`))) return undefined
  const cron = `postgresql-${major}-cron`
  return serverMajor === undefined ? [`postgresql-${major}`, cron] : [cron]
}

async function newestWithCron(minimumMajor: number): Promise<number | undefined> {
  const { stdout } = await run('apt-cache', ['pkgnames', 'postgresql-'])
  const majors = stdout.split('\n')
    .map((name) => Number(/^postgresql-(\d+)-cron$/.exec(name)?.[1]))
    .filter((major) => major >= minimumMajor)
    .sort((a, b) => b - a)
  for (const major of majors) {
    if (await hasCandidate(`postgresql-${major}`)) return major
  }
  return undefined
}

async function hasCandidate(name: string): Promise<boolean> {
  const { success, stdout } = await run('apt-cache', ['policy', name])
  return success && /Candidate: (?!\(none\))/.test(stdout)
}

/**
 * A newly installed server would create and start a cluster "main" on port 5432, which nobody asked for. A file of
 * ours in the directory Debian provides for it prevents that, and goes away afterwards, so that the choice does not
 * outlive this installation. Where the administrator has made the choice already, it stands.
 */
async function withoutDefaultCluster(): Promise<(() => Promise<void>) | undefined> {
  const configured = await run('grep', [
    '-Ehrs',
    '^[[:space:]]*create_main_cluster',
    clusterConfig,
    clusterConfigDir,
  ])
  if (configured.success) return undefined
  const script = `mkdir -p ${clusterConfigDir} && echo 'create_main_cluster = false' > ${ourClusterConfig}`
  await asRoot('sh', ['-c', script])
  return async () => {
    await asRoot('rm', ['-f', ourClusterConfig])
  }
}

function asRoot(program: string, args: string[], onLine: (line: string) => void = () => {}) {
  const env = { DEBIAN_FRONTEND: 'noninteractive' }
  if (Deno.uid() === 0) return runWithLines(program, args, { env, onLine })
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`)
  return runWithLines('sudo', ['-n', 'env', ...variables, program, ...args], { onLine })
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) ?? ''
}

/** The database that a stack runs on: a private server that we start, or the one that DATABASE_URL names. */
import { join } from 'node:path'
import { LocalError } from '../errors.ts'
import { localKeys } from '../keys.ts'
import { resolvePostgres } from '../postgres/binaries.ts'
import { Cluster } from '../postgres/cluster.ts'
import { withConnection } from '../postgres/connect.ts'
import { hasRealCron, preparePlatform } from '../postgres/platform.ts'
import type { Progress } from '../progress.ts'
import type { Project } from '../project.ts'
import { requireFreePort } from './ports.ts'

export interface StackDatabase {
  /** With the rights that migrations and functions have. */
  url: string
  /** Absent where the platform is somebody else's: then we only migrate, serve functions and forward the rest. */
  adminUrl?: string
  /** Who runs the rows of `cron.job`; absent where that is not our concern. */
  cron?: 'database' | 'runner'
  /** One line for people: which server this is. */
  description: string
  /** Ours alone: a reset may throw it away. */
  isPrivate: boolean
}

/** Directory of the private server below the local directory. */
export function clusterDirectory(project: Project): string {
  return join(project.localDir, 'postgres')
}

/** What DATABASE_URL names, where it is set. */
export interface GivenDatabase {
  url: string
  /** PostgreSQL's major version. */
  version: number
  /** A whole Supabase, which is left as it is; a bare server becomes the platform. */
  supabase: boolean
  superuser: boolean
}

/** Looks at the server of DATABASE_URL; undefined when that is not set. Fails when the server cannot be reached. */
export async function inspectGivenDatabase(progress: Progress): Promise<GivenDatabase | undefined> {
  const url = Deno.env.get('DATABASE_URL')
  if (!url) return undefined
  progress.step('Connecting to DATABASE_URL')
  return { url, ...await inspect(url) }
}

/** Starts the private server, creating it when there is none, with all that Supabase's has before the first migration. */
export async function startCluster(o: {
  project: Project
  port: number
  /** Is given the server as soon as it may run. */
  parts: { cluster?: Cluster }
  progress: Progress
  signal: AbortSignal
}): Promise<StackDatabase> {
  o.progress.step('Starting PostgreSQL')
  const binaries = await resolvePostgres(o.progress)
  o.signal.throwIfAborted()
  const cluster = await Cluster.open({ binaries, directory: clusterDirectory(o.project), port: o.port })
  o.signal.throwIfAborted()
  if (!(await cluster.running())) await requireFreePort(o.port, 'the database')
  o.parts.cluster = cluster
  await cluster.start()
  o.progress.step('Preparing the platform')
  await preparePlatform({ adminUrl: cluster.adminUrl(), jwtSecret: localKeys.jwtSecret })
  const cron = binaries.hasCron ? 'with pg_cron' : 'with a built-in runner for cron jobs'
  return {
    isPrivate: true,
    url: cluster.url(),
    adminUrl: cluster.adminUrl(),
    cron: binaries.hasCron ? 'database' : 'runner',
    description: `PostgreSQL ${binaries.version} (${binaries.source}, ${cron})`,
  }
}

/** A Supabase is taken as it is; a bare server is given what Supabase's has before the first migration. */
export async function takeGiven(given: GivenDatabase, progress: Progress): Promise<StackDatabase> {
  const { url, version, supabase, superuser } = given
  if (supabase) {
    return { url, isPrivate: false, description: `Supabase, PostgreSQL ${version} (DATABASE_URL)` }
  }
  if (!superuser) throw superuserNeeded(url)
  progress.step('Preparing the platform')
  await preparePlatform({ adminUrl: url, jwtSecret: localKeys.jwtSecret })
  return {
    isPrivate: false,
    url,
    adminUrl: url,
    cron: await withConnection(url, 'start', hasRealCron) ? 'database' : 'runner',
    description: `PostgreSQL ${version} (DATABASE_URL)`,
  }
}

async function inspect(url: string): Promise<Omit<GivenDatabase, 'url'>> {
  try {
    return await withConnection(url, 'start', async (sql) => {
      const [row] = await sql<Omit<GivenDatabase, 'url'>[]>`
        select
            current_setting('server_version_num')::int / 10000 as version,
            to_regrole('supabase_auth_admin') is not null
                and to_regclass('auth.schema_migrations') is not null as supabase,
            current_setting('is_superuser') = 'on' as superuser
      `
      if (row === undefined) throw new Error('it answered without a row')
      return row
    })
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new LocalError(`Cannot connect to the database of DATABASE_URL: ${reason}`, {
      where: withoutPassword(url),
      fix: 'Correct DATABASE_URL, or unset it to run on a private PostgreSQL.',
      cause,
    })
  }
}

function superuserNeeded(url: string): LocalError {
  return new LocalError(
    'Cannot make the database of DATABASE_URL into a Supabase: its user is no superuser',
    {
      where: withoutPassword(url),
      fix:
        'Use a superuser of an empty database, a Supabase that runs, or unset DATABASE_URL for a private PostgreSQL.',
    },
  )
}

function withoutPassword(url: string): string {
  try {
    const parsed = new URL(url)
    if (parsed.password !== '') parsed.password = '***'
    return parsed.href
  } catch {
    return 'DATABASE_URL (it is no URL)'
  }
}

/** Applies `supabase/migrations` with the Supabase CLI, as the role and in the way a hosted project does. */
import { join } from 'node:path'
import { LocalError } from '../errors.ts'
import type { Project } from '../project.ts'
import { withConnection } from './connect.ts'
import { superuser } from './dataDirectory.ts'
import { createsEventTrigger, withEventTriggerRights } from './eventTriggerRights.ts'
import { runSupabase } from './supabaseCli.ts'

export { applySeed } from './seed.ts'

/**
 * Applies the migrations that the database has not had yet, each in a transaction of its own. When all are applied
 * already, the CLI is not started (it takes a second).
 * @param url of role `postgres`
 * @returns the file names applied, in order
 * @throws LocalError naming file and line of the statement that failed; earlier migrations stay applied
 */
export async function applyMigrations(project: Project, url: string): Promise<{ applied: string[] }> {
  const { pending, unknown } = await compare(project, url)
  // What the database has had and the project has not is for the CLI to refuse.
  if (pending.length === 0 && !unknown) return { applied: [] }
  const { success, output } = await withHostedRights(project, pending, url, (target) => {
    return runSupabase(project, ['migration', 'up', `--remote=${plainUrl(target)}`, '--yes'])
  })
  if (!success) throw await failure(project, output)
  return { applied: pending }
}

/** Names of the files that the database has not had yet, in order. */
export async function pendingMigrations(project: Project, url: string): Promise<string[]> {
  return (await compare(project, url)).pending
}

async function compare(project: Project, url: string): Promise<{ pending: string[]; unknown: boolean }> {
  const files = await migrationFiles(project)
  const applied = await appliedVersions(url)
  const pending = files.filter(({ version }) => !applied.has(version)).map(({ name }) => name)
  return { pending, unknown: files.length - pending.length < applied.size }
}

/** Takes the detour for event triggers where a pending migration has one and the server's own rights will not do. */
async function withHostedRights<T>(
  project: Project,
  pending: string[],
  url: string,
  work: (url: string) => Promise<T>,
): Promise<T> {
  const texts = await Promise.all(pending.map((name) => Deno.readTextFile(join(project.migrationsDir, name))))
  const adminUrl = texts.some(createsEventTrigger) ? await findSuperuser(url) : undefined
  return adminUrl === undefined ? await work(url) : await withEventTriggerRights({ url, adminUrl }, work)
}

/**
 * The local cluster's superuser, by the password it shares. Undefined where there is none, where supautils serves, and
 * where `postgres`, as whom the CLI migrates, is a superuser anyway.
 */
async function findSuperuser(url: string): Promise<string | undefined> {
  const adminUrl = new URL(url)
  adminUrl.username = superuser
  try {
    return await withConnection(adminUrl.href, 'migrations', async (sql) => {
      const [row] = await sql`
        select current_setting('is_superuser') = 'on' and current_setting('supautils.privileged_role', true) is null
          and exists (select from pg_catalog.pg_roles where rolname = 'postgres' and not rolsuper)
          as needed
      `
      return row?.needed === true ? adminUrl.href : undefined
    })
  } catch {
    return undefined
  }
}

interface MigrationFile {
  name: string
  version: string
}

/** As the CLI sees them: `<digits>_<name>.sql`, in the order of their names. */
async function migrationFiles(project: Project): Promise<MigrationFile[]> {
  const entries = await Array.fromAsync(Deno.readDir(project.migrationsDir)).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return []
    throw error
  })
  return entries.flatMap(({ name }) => {
    const version = /^(\d+)_.*\.sql$/.exec(name)?.[1]
    return version === undefined ? [] : [{ name, version }]
  }).sort((a, b) => a.name < b.name ? -1 : 1)
}

async function appliedVersions(url: string): Promise<Set<string>> {
  return await withConnection(url, 'migrations', async (sql) => {
    const [known] =
      await sql`select to_regclass('supabase_migrations.schema_migrations') is not null as found`
    if (known?.found !== true) return new Set()
    const rows = await sql<{ version: string }[]>`select version from supabase_migrations.schema_migrations`
    return new Set(rows.map(({ version }) => version))
  })
}

/** A local server has no certificate, and the CLI asks for one unless told not to. */
function plainUrl(url: string): string {
  const plain = new URL(url)
  if (plain.hostname === '127.0.0.1' || plain.hostname === 'localhost') {
    plain.searchParams.set('sslmode', 'disable')
  }
  return plain.href
}

/**
 * The CLI says which file it began last, the server's error, and the statement up to the line of the error, marked with
 * a caret where the server knew the place.
 */
async function failure(project: Project, output: string): Promise<LocalError> {
  const name = [...output.matchAll(/^Applying migration (\S+\.sql)/gm)].at(-1)?.[1]
  const error = /^ERROR: ([\s\S]*?)^At statement: \d+\n([\s\S]*)/m.exec(output)
  if (name === undefined || error === null) return otherFailure(project, output)
  const path = join(project.migrationsDir, name)
  const line = lineOf(await Deno.readTextFile(path), error[2] ?? '')
  return new LocalError(`Cannot apply migration ${name}: ${error[1]?.trim()}`, {
    where: `${path}${line === undefined ? '' : `:${line}`}`,
    fix:
      'Correct the statement and start again: nothing of this migration has stayed, all before it is applied.',
    cause: output,
  })
}

function lineOf(text: string, quoted: string): number | undefined {
  const lines = quoted.replace(/\n?Try rerunning the command[\s\S]*$/, '').split('\n')
  const caret = lines.findIndex((line) => /^\s*\^\s*$/.test(line))
  const statement = (caret === -1 ? lines : lines.slice(0, caret)).join('\n').trimEnd()
  const start = text.indexOf(statement)
  if (statement === '' || start === -1) return undefined
  const place = caret === -1 ? start : start + statement.lastIndexOf('\n') + 1
  return text.slice(0, place).split('\n').length
}

function otherFailure(project: Project, output: string): LocalError {
  if (output.includes('Remote migration versions not found')) {
    const versions = /--status reverted ([\d ]+)/.exec(output)?.[1]?.trim()
    return new LocalError(
      `Cannot apply the migrations: the database has had ${
        versions ?? 'some'
      } that the project does not have`,
      {
        where: project.migrationsDir,
        fix: 'Bring the files back (another branch may have them), or start afresh with `npm run reset`.',
        cause: output,
      },
    )
  }
  if (output.includes('inserted before the last migration')) {
    const names = [...output.matchAll(/^\S*?(\d+_\S+\.sql)$/gm)].map(([, name]) => name).join(', ')
    return new LocalError(`Cannot apply ${names || 'a migration'}: the database has had later ones`, {
      where: project.migrationsDir,
      fix:
        'Start afresh with `npm run reset`, or give it a name that sorts last if the data of this database matter.',
      cause: output,
    })
  }
  return new LocalError(
    `Cannot apply the migrations: ${output.split('\n').at(-1) ?? 'the Supabase CLI failed'}`,
    {
      where: project.migrationsDir,
      fix: 'Read what the Supabase CLI says above; `supabase migration up --debug` says more.',
      cause: output,
    },
  )
}

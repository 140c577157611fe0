/** The files of a cluster: where they may live, how they come to be, and whether the server at hand can read them. */
import { join } from 'node:path'
import { LocalError } from '../errors.ts'
import { type Account, canEnter, makeShelter, shelterFor } from './account.ts'
import type { PostgresBinaries } from './binaries.ts'
import { run } from './run.ts'

/** The password of both logins. The server listens on 127.0.0.1 only, and everybody's local stack uses it. */
export const localPassword = 'postgres'

/** The superuser, whose rights only the platform uses. */
export const superuser = 'supabase_admin'

/**
 * The directory to keep the cluster's files in: the one asked for, or, where the account that runs the server cannot
 * reach that, a shelter in /var/tmp. It exists afterwards and belongs to the account.
 */
export async function placeCluster(directory: string, account: Account | undefined): Promise<string> {
  const shelter = shelterFor(directory)
  const sheltered = join(shelter, 'postgres')
  try {
    await makeOwn(directory, account)
    if (account === undefined) return directory
    const reachable = await canEnter(directory, account)
    // What is there counts before what could be, so that data never seems lost because a home's mode has changed.
    const moved = reachable && await hasData(sheltered) && !(await hasData(directory))
    if (reachable && !moved) return directory
    await makeShelter(shelter)
    await makeOwn(sheltered, account)
    return sheltered
  } catch (cause) {
    throw notUsable(directory, cause)
  }
}

/** Removes what `placeCluster` made, files and all. */
export async function removeCluster(directory: string): Promise<void> {
  for (const path of [directory, shelterFor(directory)]) {
    await Deno.remove(path, { recursive: true }).catch(ignoreMissing)
  }
}

/** The server's own directory below the one the cluster was given; the log lies beside it. */
export function dataDirectoryIn(base: string): string {
  return join(base, 'data')
}

/**
 * Creates the database files if there are none yet, and checks that they are of the server's version. The logins are
 * `supabase_admin` (superuser) and `postgres` (with the attributes it has on a hosted Supabase: no superuser).
 */
export async function ensureDataDirectory(
  dataDir: string,
  binaries: PostgresBinaries,
  account: Account | undefined,
): Promise<void> {
  const version = await versionOf(dataDir)
  if (version === undefined) return await initialise(dataDir, binaries, account)
  if (version === String(binaries.version)) return
  throw new LocalError(
    `Cannot open the database: PostgreSQL ${version} wrote its files, and the server at hand is ${binaries.version}`,
    {
      where: dataDir,
      fix: `Install PostgreSQL ${version} again to keep the data, or start afresh with \`npm run reset\`.`,
    },
  )
}

async function makeOwn(directory: string, account: Account | undefined): Promise<void> {
  await Deno.mkdir(directory, { recursive: true })
  if (account !== undefined) await Deno.chown(directory, account.uid, account.gid)
}

async function hasData(base: string): Promise<boolean> {
  return await versionOf(dataDirectoryIn(base)) !== undefined
}

/** Made under another name first, so that an interrupted `initdb` never looks like a database. */
async function initialise(
  dataDir: string,
  binaries: PostgresBinaries,
  account: Account | undefined,
): Promise<void> {
  const unfinished = `${dataDir}.new`
  await Deno.remove(unfinished, { recursive: true }).catch(ignoreMissing)
  const passwordFile = `${dataDir}.password`
  try {
    await Deno.writeTextFile(passwordFile, `${localPassword}\n`, { mode: 0o600 })
    if (account !== undefined) await Deno.chown(passwordFile, account.uid, account.gid)
    const options = { account, cwd: '/' }
    const made = await run(join(binaries.binDir, 'initdb'), [
      `--pgdata=${unfinished}`,
      `--username=${superuser}`,
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      ...localeArguments(binaries.version),
      '--no-instructions',
    ], options)
    if (!made.success) throw initFailed(dataDir, made.stderr)
    const logins = await run(join(binaries.binDir, 'postgres'), ['--single', '-D', unfinished, 'postgres'], {
      ...options,
      input: [
        `create role postgres login createdb createrole replication bypassrls password '${localPassword}'`,
        'alter database postgres owner to postgres',
      ].join('\n') + '\n',
    })
    if (!logins.success || /ERROR|FATAL/.test(logins.stderr)) throw initFailed(dataDir, logins.stderr)
    await Deno.rename(unfinished, dataDir)
  } finally {
    await Deno.remove(passwordFile).catch(ignoreMissing)
    await Deno.remove(unfinished, { recursive: true }).catch(ignoreMissing)
  }
}

/** Sorting by code point, the same on every system; from 17 on PostgreSQL needs no help of the C library for it. */
function localeArguments(version: number): string[] {
  return version >= 17
    ? ['--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8']
    : ['--locale=C.UTF-8']
}

async function versionOf(dataDir: string): Promise<string | undefined> {
  try {
    return (await Deno.readTextFile(join(dataDir, 'PG_VERSION'))).trim()
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined
    throw notUsable(dataDir, cause)
  }
}

function initFailed(dataDir: string, stderr: string): LocalError {
  const reason = stderr.split('\n').find((line) => /error|FATAL/i.test(line)) ?? stderr
  return new LocalError(`Cannot create the database: ${reason}`, {
    where: dataDir,
    fix: 'Check that the disk has room and that the directory can be written, then start again.',
  })
}

function notUsable(path: string, cause: unknown): LocalError {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new LocalError(`Cannot use the database's directory: ${reason}`, {
    where: path,
    fix:
      'It may belong to another user (root, after `sudo npm start`): remove it as that user, or start as that user.',
    cause,
  })
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof Deno.errors.NotFound)) throw error
}

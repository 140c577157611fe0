/** The private database server of a stack that no longer runs: ended, or thrown away with its data. */
import { dirname, join } from 'node:path'
import { LocalError } from '../errors.ts'
import { unprivilegedAccount } from '../postgres/account.ts'
import { dataDirectoryIn, placeCluster, removeCluster } from '../postgres/dataDirectory.ts'
import { clearRemains, findPostmaster, type Postmaster } from '../postgres/postmaster.ts'
import type { Project } from '../project.ts'
import { clusterDirectory } from './database.ts'

/** Time for a checkpoint; a server that takes longer is ended as a crash would, and recovers at its next start. */
const patienceMs = 20_000

/**
 * Ends a server that was left running. False when there is none. It needs no PostgreSQL programs: those that started
 * the server may be gone.
 */
export async function stopRemains(project: Project): Promise<boolean> {
  const dataDir = await existingDataDir(project)
  const server = dataDir === undefined ? undefined : await findPostmaster(dataDir)
  if (dataDir === undefined || server === undefined) return false
  // SIGINT: roll back what runs, write a checkpoint, end. SIGQUIT: end.
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    send(server, signal)
    if (await gone(dataDir, server)) return true
  }
  throw new LocalError(`Cannot stop PostgreSQL, process ${server.pid}`, {
    where: dataDir,
    fix: `End it with kill -9 ${server.pid}, as the user who started it.`,
  })
}

/** Removes the private database and everything in it. */
export async function removeDatabase(project: Project): Promise<void> {
  await stopRemains(project)
  const dataDir = await existingDataDir(project)
  if (dataDir !== undefined) await clearRemains(dataDir)
  await removeCluster(clusterDirectory(project))
}

/** Where the private server writes, whether it runs or not; undefined when there is none. */
export async function databaseLog(project: Project): Promise<string | undefined> {
  const dataDir = await existingDataDir(project)
  return dataDir === undefined ? undefined : join(dirname(dataDir), 'postgres.log')
}

async function existingDataDir(project: Project): Promise<string | undefined> {
  const directory = clusterDirectory(project)
  try {
    await Deno.stat(directory)
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined
    throw error
  }
  return dataDirectoryIn(await placeCluster(directory, await unprivilegedAccount()))
}

async function gone(dataDir: string, server: Postmaster): Promise<boolean> {
  const deadline = Date.now() + patienceMs
  while ((await findPostmaster(dataDir))?.pid === server.pid) {
    if (Date.now() > deadline) return false
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return true
}

function send({ pid }: Postmaster, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal)
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error
  }
}

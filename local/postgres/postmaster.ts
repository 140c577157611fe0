/**
 * The server process of a data directory: is it alive, and is it ours? `postmaster.pid` alone cannot say: after a
 * crash it stays behind, and the number in it may belong to another program by then.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { run } from './run.ts'

export interface Postmaster {
  pid: number
  port: number
  /** What the server wrote last: it is starting, taking connections, or stopping. */
  status: 'starting' | 'ready' | 'stopping'
}

interface Process {
  pid: number
  /** The command line, or the title that the process has given itself. */
  title: string
}

/** Path of the lock file, which a server keeps while it lives. */
function pidFile(dataDir: string): string {
  return join(dataDir, 'postmaster.pid')
}

/** Stands in the title of each process of the cluster (`cluster_name`), so that they can be told from others'. */
export function clusterName(dataDir: string): string {
  return `holdfast-${createHash('sha256').update(dataDir).digest('hex').slice(0, 12)}`
}

/** The live server of the data directory; undefined when it does not run, whatever the lock file says. */
export async function findPostmaster(dataDir: string): Promise<Postmaster | undefined> {
  const lock = await readLock(dataDir)
  if (lock === undefined) return undefined
  const holder = (await processes(lock.pid)).find(({ pid }) => pid === lock.pid)
  return holder !== undefined && isPostmasterOf(dataDir, holder) ? lock : undefined
}

/**
 * Clears what a killed server left behind: the lock file whose process number another program has now (the server
 * would take that program for itself and refuse to start), and backends that have not yet noticed its death
 * (they hold the shared memory, for which it would refuse as well). Call it only when no server lives.
 */
export async function clearRemains(dataDir: string): Promise<void> {
  const lock = await readLock(dataDir)
  if (lock !== undefined && (await processes(lock.pid)).length > 0) await Deno.remove(pidFile(dataDir))
  for (const { pid } of await orphansOf(dataDir)) {
    try {
      Deno.kill(pid, 'SIGQUIT')
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error
    }
  }
  const deadline = Date.now() + 10_000
  while ((await orphansOf(dataDir)).length > 0 && Date.now() < deadline) await pause(20)
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** The lock file's lines: pid, data directory, start time, port, socket directory, address, shared memory, status. */
async function readLock(dataDir: string): Promise<Postmaster | undefined> {
  const text = await Deno.readTextFile(pidFile(dataDir)).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return ''
    throw error
  })
  const lines = text.split('\n').map((line) => line.trim())
  const pid = Math.abs(Number(lines[0]))
  if (!Number.isInteger(pid) || pid === 0) return undefined
  const status = lines[7]
  return {
    pid,
    port: Number(lines[3] ?? 0),
    status: status === 'ready' || status === 'stopping' ? status : 'starting',
  }
}

function isPostmasterOf(dataDir: string, { title }: Process): boolean {
  return /\bpostgres\b/.test(title) && title.includes(`-D ${dataDir}`)
}

async function orphansOf(dataDir: string): Promise<Process[]> {
  const prefix = `postgres: ${clusterName(dataDir)}: `
  return (await processes()).filter(({ title }) => title.startsWith(prefix))
}

/** All processes, or the one with this number if there is one. A zombie is listed with an empty title. */
async function processes(only?: number): Promise<Process[]> {
  if (Deno.build.os !== 'linux') return await processesByPs(only)
  const pids = only === undefined ? await numbersIn('/proc') : [only]
  const found: Process[] = []
  for (const pid of pids) {
    const line = await Deno.readTextFile(`/proc/${pid}/cmdline`).catch(() => undefined)
    if (line !== undefined) found.push({ pid, title: line.replaceAll('\0', ' ').trim() })
  }
  return found
}

async function numbersIn(directory: string): Promise<number[]> {
  const entries = await Array.fromAsync(Deno.readDir(directory))
  return entries.map((entry) => Number(entry.name)).filter(Number.isInteger)
}

async function processesByPs(only?: number): Promise<Process[]> {
  const select = only === undefined ? ['-ax'] : ['-p', String(only)]
  const { stdout } = await run('ps', [...select, '-o', 'pid=,command='])
  return stdout.split('\n').flatMap((line) => {
    const [, pid, title] = /^\s*(\d+)\s+(.*)$/.exec(line) ?? []
    return pid === undefined ? [] : [{ pid: Number(pid), title: title ?? '' }]
  })
}

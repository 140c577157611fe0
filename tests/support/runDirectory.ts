/**
 * The directory of one test run, and the end of runs that could not end themselves. A run that was killed leaves its
 * directory with a marker; the next run stops the servers in it and removes it.
 */
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { canEnter, unprivilegedAccount } from '../../local/postgres/account.ts'
import { listProcesses, startOf } from './processes.ts'
import { waitFor } from './wait.ts'

const prefix = 'holdfast-test-'
const markerFile = 'run.json'

interface Marker {
  pid: number
  startedAt: string
}

/** Makes the directory of this run, which every user may pass through: root's server runs as somebody else. */
export async function openRunDirectory(): Promise<string> {
  const directory = await Deno.makeTempDir({ dir: await temporaryDirectory(), prefix })
  await Deno.chmod(directory, 0o755)
  const marker: Marker = { pid: Deno.pid, startedAt: await startOf(Deno.pid) ?? '' }
  await Deno.writeTextFile(join(directory, markerFile), JSON.stringify(marker))
  return directory
}

/** Ends what earlier runs have left; returns the directories that it removed. */
export async function removeAbandonedRuns(): Promise<string[]> {
  const removed: string[] = []
  const parent = await temporaryDirectory()
  for await (const entry of Deno.readDir(parent)) {
    const directory = join(parent, entry.name)
    if (!entry.isDirectory || !entry.name.startsWith(prefix) || !(await isAbandoned(directory))) continue
    await endProcessesOf(directory)
    await Deno.remove(directory, { recursive: true })
    removed.push(directory)
  }
  return removed
}

/** Ends every process whose command line names a path below the directory: servers, and what they have started. */
async function endProcessesOf(directory: string): Promise<void> {
  const below = async () =>
    (await listProcesses()).filter(({ pid, command }) =>
      pid !== Deno.pid && command.includes(`${directory}/`)
    )
  for (const { pid } of await below()) signalQuietly(pid, 'SIGKILL')
  await waitFor(async () => (await below()).length === 0, {
    what: `the processes of an earlier test run in ${directory} to end`,
  })
}

function signalQuietly(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal)
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error
  }
}

/** Only our own: another user's run is not ours to judge or to end. */
async function isAbandoned(directory: string): Promise<boolean> {
  try {
    const { uid } = await Deno.stat(directory)
    if (uid !== Deno.uid()) return false
    const marker: Marker = JSON.parse(await Deno.readTextFile(join(directory, markerFile)))
    return await startOf(marker.pid) !== marker.startedAt
  } catch (error) {
    // Without a marker it may be a run that starts just now.
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return false
    throw error
  }
}

/** Where root's unprivileged server account can get to: `mktemp -d` of root is a place where it cannot. */
async function temporaryDirectory(): Promise<string> {
  const preferred = await Deno.realPath(tmpdir())
  return await canEnter(preferred, await unprivilegedAccount()) ? preferred : '/tmp'
}

/** Ending a stack from outside, whether its process is alive or was killed. */
import { LocalError } from '../errors.ts'
import type { Project } from '../project.ts'
import { lockStack, processEnded, readState, removeState, type StackState } from '../state.ts'
import { stopRemains } from './remains.ts'

/** A stack stops within its own limit (20 s) or ends by force; then only the operating system can do more. */
const patienceMs = 25_000

/**
 * False when there was nothing to stop. Returns when the stack's process and its database server have ended; isolates
 * end by themselves when their host is gone.
 */
export async function stopStack(project: Project): Promise<boolean> {
  const state = await readState(project.localDir)
  if (state !== undefined) await endProcess(state)
  const lock = await lockStack(project.localDir)
  // Somebody has started a new one meanwhile: that is not ours to end.
  if (lock === undefined) return state !== undefined
  try {
    const remained = await stopRemains(project)
    await removeState(project.localDir)
    return remained || state !== undefined
  } finally {
    lock.release()
  }
}

async function endProcess(state: StackState): Promise<void> {
  send(state.pid, 'SIGTERM')
  if (await processEnded(state, patienceMs)) return
  send(state.pid, 'SIGKILL')
  if (await processEnded(state, 5_000)) return
  throw new LocalError(`Cannot stop process ${state.pid}`, {
    where: `process ${state.pid}`,
    fix: `End it with kill -9 ${state.pid}, as the user who started it.`,
  })
}

function send(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal)
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error
  }
}

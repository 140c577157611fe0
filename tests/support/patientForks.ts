/**
 * Vitest's pool of processes, with time to end in good order: vitest kills a process half a second after it has asked
 * it to end, and Deno needs longer to write the coverage of a file that has loaded much.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { ForksPoolWorker, type PoolOptions, type PoolRunnerInitializer } from 'vitest/node'

const patienceMs = 20_000

export const patientForks: PoolRunnerInitializer = {
  name: 'forks',
  createPoolWorker: (options: PoolOptions) => new PatientFork(options),
}

class PatientFork extends ForksPoolWorker {
  override async stop(): Promise<void> {
    const child = childOf(this)
    if (child && child.exitCode === null) {
      const exited = once(child, 'exit', { signal: AbortSignal.timeout(patienceMs) })
      child.kill('SIGTERM')
      // Too late: vitest kills it, below.
      await exited.catch(() => {})
    }
    await super.stop()
  }
}

/** The process, which vitest keeps to itself. */
function childOf(worker: ForksPoolWorker): ChildProcess | undefined {
  const child: unknown = Reflect.get(worker, '_fork')
  return isChildProcess(child) ? child : undefined
}

function isChildProcess(value: unknown): value is ChildProcess {
  return typeof value === 'object' && value !== null && 'kill' in value && 'exitCode' in value
}

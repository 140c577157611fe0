/** A stack in the background: started as a process of its own session, watched until it is ready, then left alone. */
import { type ChildProcess, spawn } from 'node:child_process'
import { openSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { LocalError } from '../errors.ts'
import { type ProgressDisplay, type ProgressEvent, showEvent } from '../progress.ts'
import type { Project } from '../project.ts'
import type { StackReport } from '../state.ts'
import { logFile, LogFiles } from './logFiles.ts'

/** What the launcher tells the process in the background, as its one argument. */
export interface DaemonOptions {
  root: string
  localDir: string
  port?: number
  isolates: number
  launchedAt: number
}

/** What that process tells the launcher, one JSON object a line on its stdout. */
export type DaemonMessage =
  | { kind: 'progress'; event: ProgressEvent }
  | { kind: 'ready'; report: StackReport }
  /** Another process runs a stack in this local directory. */
  | { kind: 'busy' }
  | { kind: 'failed'; message: string; where?: string; fix?: string; stack?: string }

/** Starts a stack that outlives us and waits until it is ready. Undefined when one runs already. */
export async function startDetached(
  o: { project: Project; port?: number; isolates: number; launchedAt: number },
  progress: ProgressDisplay,
): Promise<StackReport | undefined> {
  const { project: { root, localDir }, port, isolates, launchedAt } = o
  const options: DaemonOptions = { root, localDir, port, isolates, launchedAt }
  // What the process writes to stderr by itself (a crash, a library's warning) is found in the stack's log.
  new LogFiles(localDir).close()
  const stderr = openSync(logFile(localDir, 'stack'), 'a', 0o600)
  const script = fileURLToPath(new URL('./daemon.ts', import.meta.url))
  const child = spawn(Deno.execPath(), ['run', '-A', script, JSON.stringify(options)], {
    cwd: root,
    detached: true,
    stdio: ['ignore', 'pipe', stderr],
  })
  const stop = () => void child.kill('SIGTERM')
  for (const name of launcherSignals) Deno.addSignalListener(name, stop)
  try {
    for await (const message of messagesOf(child)) {
      switch (message.kind) {
        case 'progress':
          showEvent(progress, message.event)
          break
        case 'ready':
          child.unref()
          return message.report
        case 'busy':
          return undefined
        case 'failed':
          throw failureOf(message)
      }
    }
    throw new LocalError('The stack ended before it was ready', {
      where: logFile(localDir, 'stack'),
      fix: 'Read that log, then start again.',
    })
  } catch (error) {
    progress.fail()
    throw error
  } finally {
    for (const name of launcherSignals) Deno.removeSignalListener(name, stop)
  }
}

async function* messagesOf(child: ChildProcess): AsyncGenerator<DaemonMessage> {
  if (child.stdout === null) return
  for await (const line of createInterface({ input: child.stdout })) yield JSON.parse(line)
}

const launcherSignals: Deno.Signal[] = ['SIGINT', 'SIGTERM', 'SIGHUP']

function failureOf({ message, where, fix, stack }: Extract<DaemonMessage, { kind: 'failed' }>): Error {
  const error = fix === undefined ? new Error(message) : new LocalError(message, { where, fix })
  error.stack = stack
  return error
}

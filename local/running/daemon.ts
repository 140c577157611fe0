/** The process of a detached stack. Its stdout is read by the launcher until the stack is ready, and by nobody after. */
import { LocalError } from '../errors.ts'
import { relayedProgress } from '../progress.ts'
import { openProject } from '../project.ts'
import type { DaemonMessage, DaemonOptions } from './detached.ts'
import { LogFiles } from './logFiles.ts'
import { supervise } from './supervisor.ts'

const { root, localDir, ...options }: DaemonOptions = JSON.parse(Deno.args[0] ?? '{}')
const project = openProject({ root, localDir })
const logs = new LogFiles(localDir)
const say = (text: string) => logs.append({ name: 'stack', text, at: new Date(), stream: 'host' })
let launcherReads = true

try {
  const started = await supervise({
    ...options,
    project,
    mode: 'detached',
    progress: relayedProgress((event) => {
      tell({ kind: 'progress', event })
      if (event.text !== undefined) say(event.text)
    }),
    onReady: (report) => {
      say(`Ready in ${report.readySeconds.toFixed(1)} s on ${report.apiUrl}`)
      tell({ kind: 'ready', report })
      launcherReads = false
    },
    onResetFailure: (error) => say(`The reset failed: ${Deno.inspect(error)}`),
    onLog: (entry) => logs.append(entry),
  })
  if (!started) tell({ kind: 'busy' })
} catch (error) {
  say(Deno.inspect(error))
  tell(failureMessage(error))
  Deno.exitCode = 1
}
// A timer or a connection that some library left open shall not keep us.
Deno.exit()

function tell(message: DaemonMessage): void {
  if (!launcherReads) return
  try {
    const bytes = new TextEncoder().encode(`${JSON.stringify(message)}\n`)
    for (let written = 0; written < bytes.length;) written += Deno.stdout.writeSync(bytes.subarray(written))
  } catch {
    // The launcher was killed: the stack comes up without a witness.
    launcherReads = false
  }
}

function failureMessage(error: unknown): DaemonMessage {
  const local = error instanceof LocalError ? { where: error.where, fix: error.fix } : {}
  const { message, stack } = error instanceof Error ? error : new Error(String(error))
  return { kind: 'failed', message, stack, ...local }
}

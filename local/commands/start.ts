/** `npm start`: the whole stack, in this terminal or in the background. */
import { LocalError } from '../errors.ts'
import type { Command } from '../main.ts'
import { terminalProgress } from '../progress.ts'
import type { Project } from '../project.ts'
import { startDetached } from '../running/detached.ts'
import { type LogEntry, LogFiles } from '../running/logFiles.ts'
import { supervise } from '../running/supervisor.ts'
import { readSettledState, type StackReport, type StackState } from '../state.ts'
import { readableLine } from '../terminal/logLines.ts'
import { describeFailure, print, printError, styled } from '../terminal/output.ts'
import { snippetText, summary } from '../terminal/summary.ts'
import { parseOptions, wholeNumber } from './options.ts'

const usage = `
npm start -- [--detach] [--port N] [--isolates N] [--debug]

  --detach      return when everything is ready, and leave it running
  --port N      API on N, database on N+1, payments stand-in on N+9 (54321)
  --isolates N  processes of each function; requests go round (1)
  --debug       show the stack of an error

DATABASE_URL set: no PostgreSQL is started. A Supabase behind it is only migrated, and its auth and REST are reached by
SUPABASE_URL (http://127.0.0.1:54321); a bare server is given what Supabase's database has.
HOLDFAST_LOCAL_DIR keeps data, logs and state elsewhere than in .local.
When a stack runs already, its summary is shown and the exit code is 0.
`

const command: Command = {
  usage,
  async run(project, args) {
    const { values } = parseOptions({
      args,
      usage,
      options: {
        detach: { type: 'boolean', default: false },
        port: { type: 'string' },
        isolates: { type: 'string' },
      },
    })
    const port = wholeNumber('port', values.port, { minimum: 1024, maximum: 65_526 })
    const isolates = wholeNumber('isolates', values.isolates, { minimum: 1, maximum: 64 }) ?? 1
    const launchedAt = Number(Deno.env.get('HOLDFAST_LAUNCHED_AT')) || Date.now()
    const options = { project, port, isolates, launchedAt }
    const running = await readSettledState(project.localDir)
    if (running !== undefined) return showRunning(running)
    const started = values.detach ? await inBackground(options) : await inForeground(options, values.debug)
    return started ? 0 : showRunning(await readSettledState(project.localDir))
  },
}
export default command

interface StartOptions {
  project: Project
  port: number | undefined
  isolates: number
  launchedAt: number
}

async function inForeground(options: StartOptions, debug: boolean): Promise<boolean> {
  const progress = await terminalProgress()
  const files = new LogFiles(options.project.localDir)
  try {
    const started = await supervise({
      ...options,
      mode: 'foreground',
      progress,
      onReady: (report) => {
        showReady(report)
        print(styled('dim', 'The functions log here. Ctrl-C stops everything; the data stay.\n'))
      },
      onResetFailure: (error) => printError(`\n${describeFailure(error, debug)}\n`),
      onLog: (entry) => {
        files.append(entry)
        showLog(entry)
      },
    })
    if (started) print(styled('dim', `\nStopped. The data stay in ${options.project.localDir}`))
    return started
  } catch (error) {
    progress.fail()
    throw error
  } finally {
    files.close()
  }
}

async function inBackground(options: StartOptions): Promise<boolean> {
  const progress = await terminalProgress()
  const report = await startDetached(options, progress)
  if (report === undefined) return false
  showReady(report)
  print(
    styled(
      'dim',
      'It goes on in the background: npm run status, npm run logs -- orders --follow, npm run stop\n',
    ),
  )
  return true
}

/** @returns the exit code: 0 when it can be used */
function showRunning(state: StackState | undefined): number {
  if (state?.phase === 'failed') {
    throw new LocalError(`A stack runs here, but its last reset failed: ${state.resetFailure?.message}`, {
      where: state.resetFailure?.where,
      fix: 'Correct that, then npm run reset; or end it with npm run stop.',
    })
  }
  if (state?.phase !== 'ready' || state.report === undefined) {
    throw new LocalError('Another start in this folder is under way and does not become ready', {
      fix: 'Try again in a moment; npm run stop ends it.',
    })
  }
  print(`\nHoldfast runs already (process ${state.pid}); npm run stop ends it.\n\n${summary(state.report)}\n`)
  return 0
}

function showReady(report: StackReport): void {
  print(
    `\n${styled('green', '●')} ${styled('bold', 'Holdfast is ready')} in ${
      report.readySeconds.toFixed(1)
    } s\n`,
  )
  print(`${summary(report)}\n`)
  print(snippetText(report))
}

function showLog({ name, at, text }: LogEntry): void {
  for (const line of text.replace(/\n$/, '').split('\n')) print(readableLine(name, at, line))
}

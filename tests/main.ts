/**
 * `npm test`: runs the tests, all or those of the named folders, and ends with the line `N passed, N failed`.
 *
 *     npm test                              everything
 *     npm test -- unit db                   two folders
 *     npm test -- db/platform -t 'roles'    files and titles; whatever begins with - goes to vitest
 *     npm run coverage                      everything, with line and branch coverage
 */
import { join } from 'node:path'
import process from 'node:process'
import { type CliOptions, parseCLI, startVitest } from 'vitest/node'
import { openProject } from '../local/project.ts'
import { runWithCoverage, summaryFileVariable } from './support/coverage.ts'
import { formatSummary, isGood, type Summary, SummaryReporter } from './support/summary.ts'

const folders = ['unit', 'db', 'functions', 'rls', 'faults', 'e2e']
const project = openProject()
const args = Deno.args.filter((arg) => arg !== '--coverage')

if (args.length < Deno.args.length) {
  const { summary, exitCode } = await runWithCoverage(project, args)
  end(summary, exitCode)
} else {
  const { summary, exitCode } = await runTests(args)
  const summaryFile = Deno.env.get(summaryFileVariable)
  if (summaryFile === undefined) end(summary, exitCode)
  await Deno.writeTextFile(summaryFile, JSON.stringify(summary))
  Deno.exit(exitCode)
}

/** Says the last line and leaves. Anything that a library still holds open ends here, too. */
function end(summary: Summary, exitCode: number): never {
  Deno.stdout.writeSync(new TextEncoder().encode(`${formatSummary(summary)}\n`))
  Deno.exit(exitCode)
}

async function runTests(args: string[]): Promise<{ summary: Summary; exitCode: number }> {
  const { filter, options } = parseCLI(['vitest', 'run', ...args])
  const filters = filter.map(toPath)
  const counting = new SummaryReporter()
  const { summary } = counting
  const interruption = cancelOnSignals(counting)
  try {
    await startVitest(filters, {
      ...options,
      root: project.root,
      config: join(project.root, 'tests/vitest.config.ts'),
      watch: false,
      provide: { filters },
      reporters: [...chosenReporters(options.reporters), counting],
    })
  } catch (error) {
    summary.failed++
    process.stderr.write(`${Deno.inspect(error)}\n`)
  }
  // What vitest found wrong outside of any test file (its set-up, a wrong option) shows in this process's exit code.
  if (process.exitCode && isGood(summary)) summary.failed++
  return { summary, exitCode: interruption.exitCode ?? (isGood(summary) ? 0 : 1) }
}

/** `db` and `db/platform` are below tests/; anything else is part of a path, as vitest understands it. */
function toPath(name: string): string {
  const [first = '', ...rest] = name.split('/')
  if (!folders.includes(first)) return name
  return `tests/${first}/${rest.join('/')}`
}

function chosenReporters(chosen: CliOptions['reporters']) {
  const defaults = Deno.env.get('GITHUB_ACTIONS') === 'true' ? ['default', 'github-actions'] : ['default']
  return [chosen ?? defaults].flat()
}

/** Ctrl-C ends the running tests, then the servers; a second one ends at once and leaves them to the next run. */
function cancelOnSignals(counting: SummaryReporter): { exitCode?: number } {
  const interruption: { exitCode?: number } = {}
  let interruptedAt = Infinity
  counting.onStart = (vitest) => {
    for (const [signal, exitCode] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 })) {
      // Vitest's own listeners end the process before anything is stopped.
      process.removeAllListeners(signal)
      process.on(signal, () => {
        // One Ctrl-C may come twice: from the terminal, and handed on by npm. A second one comes later.
        if (Date.now() - interruptedAt > 1_000) Deno.exit(exitCode)
        if (interruption.exitCode !== undefined) return
        interruption.exitCode = exitCode
        interruptedAt = Date.now()
        void vitest.cancelCurrentRun('keyboard-input')
      })
    }
  }
  return interruption
}

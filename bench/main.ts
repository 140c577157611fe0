/**
 * `npm run bench -- SUITE…`: measures Holdfast and its peers in the same run, and prints JSON lines on standard
 * output: the machine, each subject's figures, and a verdict for each measure that has an aim. What is going on is
 * said on standard error. A missed aim is a verdict, not a failure: the exit code is 0.
 *
 *     npm run bench -- http                        everything of the suite
 *     npm run bench -- transactions idempotency    one suite after the other
 *     npm run bench -- http --only 'cold start'    the measures whose names begin so
 *     npm run bench -- audit --supa-audit PATH     beside a peer that is no package: a checkout of supa_audit
 */
import process from 'node:process'
import { parseArgs } from 'node:util'
import { LocalError } from '../local/errors.ts'
import { terminalProgress } from '../local/progress.ts'
import { openProject } from '../local/project.ts'
import { describeFailure, printError } from '../local/terminal/output.ts'
import { thisMachine } from './support/machine.ts'
import { Report } from './support/report.ts'
import type { Measure, Suite } from './support/suite.ts'

const suites: Record<string, () => Promise<{ suite: Suite }>> = {
  http: () => import('./http/suite.ts'),
  transactions: () => import('./transactions/suite.ts'),
  idempotency: () => import('./idempotency/suite.ts'),
  retry: () => import('./retry/suite.ts'),
  breaker: () => import('./breaker/suite.ts'),
  cache: () => import('./cache/suite.ts'),
  limiter: () => import('./limiter/suite.ts'),
  rls: () => import('./rls/suite.ts'),
  audit: () => import('./audit/suite.ts'),
}

const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }

try {
  await main(Deno.args)
} catch (error) {
  printError(error instanceof LocalError ? `\n${describeFailure(error, false)}` : Deno.inspect(error))
  Deno.exit(1)
}
// What a library still holds open ends here, too.
Deno.exit(0)

async function main(args: string[]): Promise<void> {
  const { names, only, supaAudit } = readArguments(args)
  const all = await Promise.all(names.map(async (name) => ({ name, suite: (await suites[name]!()).suite })))
  const chosen = choose(all, only)
  const project = openProject()
  const progress = await terminalProgress()
  for (const { name, suite, measures } of chosen) {
    const report = new Report(name, (line) => process.stdout.write(line))
    report.machine(await thisMachine(project, suite, progress))
    for (const measure of measures) {
      progress.step(`${name}: ${measure.name}`)
      await interruptible((resources, signal) =>
        measure.run({ project, report, progress, resources, signal, supaAudit })
      )
      progress.done()
    }
  }
}

function readArguments(args: string[]): { names: string[]; only: string; supaAudit?: string } {
  const { values, positionals } = parseArgs({
    args,
    options: { only: { type: 'string', default: '' }, 'supa-audit': { type: 'string' } },
    allowPositionals: true,
  })
  const unknown = positionals.filter((name) => !Object.hasOwn(suites, name))
  if (positionals.length === 0 || unknown.length > 0) {
    throw new LocalError(
      unknown.length > 0 ? `There is no bench "${unknown.join(', ')}"` : 'No bench is named',
      {
        where: 'npm run bench',
        fix: `Name one or more suites: ${Object.keys(suites).join(', ')}.`,
      },
    )
  }
  return { names: [...new Set(positionals)], only: values.only, supaAudit: values['supa-audit'] }
}

/** The suites that have something to measure, with what. */
function choose<Named extends { suite: Suite }>(
  all: Named[],
  only: string,
): (Named & { measures: Measure[] })[] {
  const chosen = all
    .map((named) => ({
      ...named,
      measures: named.suite.measures.filter(({ name }) => name.startsWith(only) || only.startsWith(name)),
    }))
    .filter(({ measures }) => measures.length > 0)
  if (chosen.length > 0) return chosen
  const names = all.flatMap(({ suite }) => suite.measures.map(({ name }) => name))
  throw new LocalError(`There is no measure "${only}"`, {
    where: 'npm run bench -- --only',
    fix: `Name one of: ${names.join(', ')}.`,
  })
}

/** Closes what `work` has started when it ends, and also when a signal ends the bench. */
async function interruptible(
  work: (resources: AsyncDisposableStack, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const resources = new AsyncDisposableStack()
  const interruption = new AbortController()
  let closing: Promise<void> | undefined
  const close = () => closing ??= resources.disposeAsync()
  const stops = Object.entries(exitCodes).map(([signal, code]) => {
    const stop = () => {
      interruption.abort()
      void close().finally(() => Deno.exit(code))
    }
    process.on(signal, stop)
    return () => process.off(signal, stop)
  })
  try {
    await work(resources, interruption.signal)
  } catch (error) {
    // Whatever fails now fails because it was interrupted: `stop` has the last word.
    if (interruption.signal.aborted) await new Promise(() => {})
    throw error
  } finally {
    await close()
    for (const stop of stops) stop()
  }
}

/**
 * `npm run demo -- NAME`: shows one of Holdfast's promises in the terminal, on a local stack of its own that is gone
 * afterwards. The exit code is 1 when what it shows is not what was promised.
 *
 *     npm run demo -- breaker           three isolates, and a payment provider that breaks
 *     npm run demo -- breaker --json    the same as JSON lines
 *     npm run demo -- audit             who did what to an order, and a superuser who alters the record of it
 */
import process from 'node:process'
import { parseArgs } from 'node:util'
import { LocalError } from '../local/errors.ts'
import { silentProgress, terminalProgress } from '../local/progress.ts'
import { describeFailure, print, printError } from '../local/terminal/output.ts'
import type { Demo, DemoContext } from './support/demo.ts'
import { createScreen } from './support/screen.ts'

/** Loaded when shown. */
const demos: Record<string, () => Promise<{ demo: Demo }>> = {
  breaker: () => import('./breaker/demo.ts'),
  audit: () => import('./audit/demo.ts'),
}

const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }

let exitCode = 1
try {
  exitCode = await main(Deno.args)
} catch (error) {
  printError(`\n${describeFailure(error, Deno.args.includes('--debug'))}`)
}
// What a library still holds open ends here, too.
Deno.exit(exitCode)

async function main(args: string[]): Promise<number> {
  const { values, positionals: [name = '', ...others] } = readArguments(args)
  if (values.help) {
    print(await usage())
    return 0
  }
  if (!Object.hasOwn(demos, name) || others.length > 0) {
    throw new LocalError(
      name === '' ? 'No demo is named' : `There is no demo "${[name, ...others].join(' ')}"`,
      {
        where: 'npm run demo',
        fix: `Name one: npm run demo -- ${Object.keys(demos).join(', ')}.`,
      },
    )
  }
  const { demo } = await demos[name]!()
  const screen = createScreen({ json: values.json })
  const progress = values.json ? silentProgress : await terminalProgress()
  await interruptible((resources, signal) => demo.run({ progress, screen, resources, signal }))
  return screen.failures === 0 ? 0 : 1
}

function readArguments(args: string[]) {
  const flag = { type: 'boolean', default: false } as const
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: { json: flag, debug: flag, help: { ...flag, short: 'h' } },
    })
  } catch (cause) {
    throw new LocalError(cause instanceof Error ? cause.message : String(cause), {
      where: 'npm run demo',
      fix: 'Use npm run demo -- NAME, with --json for JSON lines.',
      cause,
    })
  }
}

async function usage(): Promise<string> {
  const lines = await Promise.all(
    Object.entries(demos).map(async ([name, load]) => `  ${name.padEnd(10)} ${(await load()).demo.summary}`),
  )
  return ['Usage: npm run demo -- NAME [--json]', '', ...lines].join('\n')
}

/** Closes what the demo has started when it ends, and also when a signal ends it. */
async function interruptible(
  work: (resources: DemoContext['resources'], signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const resources = new AsyncDisposableStack()
  const interruption = new AbortController()
  let interrupted: number | undefined
  const stops = Object.entries(exitCodes).map(([name, code]) => {
    const stop = () => {
      interrupted ??= code
      interruption.abort()
    }
    process.on(name, stop)
    return () => process.off(name, stop)
  })
  try {
    await work(resources, interruption.signal)
  } catch (error) {
    // Whatever fails after an interruption fails because of it.
    if (interrupted === undefined) throw error
  } finally {
    await resources.disposeAsync()
    for (const stop of stops) stop()
  }
  if (interrupted !== undefined) Deno.exit(interrupted)
}

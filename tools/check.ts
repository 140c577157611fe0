/**
 * `npm run check` looks at everything that the project promises of itself, then runs all tests.
 *
 *     npm run check            the checks, then the tests
 *     npm run check:static     the checks alone: they need no database
 *     npm run format           formats all files
 */
import process from 'node:process'
import { openProject, type Project } from '../local/project.ts'
import { dependencyReasons, importMaps, versions } from './checks/configuration.ts'
import { floors } from './checks/floors.ts'
import { importEffects } from './checks/importEffects.ts'
import { openApiIsCurrent } from './checks/openApi.ts'
import type { Check, Problem } from './checks/problem.ts'
import { fileLength, links, setAsideTests } from './checks/text.ts'
import { format, lint, sqlLint, types } from './checks/toolchain.ts'

const checks: Check[] = [
  types,
  lint,
  format,
  sqlLint,
  openApiIsCurrent,
  importEffects,
  floors,
  importMaps,
  versions,
  dependencyReasons,
  fileLength,
  links,
  setAsideTests,
]

const project = openProject()
const unknown = Deno.args.filter((arg) => !['--static', '--fix'].includes(arg))

if (unknown.length > 0) {
  say(`Cannot check: unknown option ${unknown.join(' ')}; there are --static and --fix`)
  Deno.exit(2)
}
if (Deno.args.includes('--fix')) Deno.exit(await runDeno(project, ['fmt']))
if (!(await runChecks(project))) Deno.exit(1)
if (!Deno.args.includes('--static')) Deno.exit(await runDeno(project, ['run', '-A', 'tests/main.ts']))

/** Runs all side by side, says each as it ends, and the problems of all at the end. */
async function runChecks(project: Project): Promise<boolean> {
  const width = Math.max(...checks.map((check) => check.name.length))
  const found = await Promise.all(checks.map(async (check) => {
    const startedAt = performance.now()
    const problems = await findProblems(check, project)
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
    const result = problems.length === 0
      ? 'ok'
      : `${problems.length} problem${problems.length > 1 ? 's' : ''}`
    say(`${check.name.padEnd(width)}  ${seconds.padStart(5)} s  ${result}`)
    return { check, problems }
  }))
  const bad = found.filter(({ problems }) => problems.length > 0)
  for (const { check, problems } of bad) {
    say(`\n${check.name}`)
    let lastFix = ''
    for (const { where, message, fix } of problems) {
      if (lastFix !== '' && fix !== lastFix) say(`  -> ${lastFix}`)
      lastFix = fix
      say(`  ${where}${message.includes('\n') ? '\n' : ': '}${message}`)
    }
    say(`  -> ${lastFix}`)
  }
  if (bad.length > 0) say(`\n${bad.length} of ${checks.length} checks found problems`)
  return bad.length === 0
}

/** A check that cannot look is a problem as well. */
async function findProblems(check: Check, project: Project): Promise<Problem[]> {
  try {
    return await check.find(project)
  } catch (error) {
    const message = error instanceof Error ? error.message : Deno.inspect(error)
    return [{ where: check.name, message, fix: 'The check itself failed: make it work first.' }]
  }
}

async function runDeno(project: Project, args: string[]): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), { args, cwd: project.root, stdin: 'null' }).spawn()
  // Ctrl-C reaches the child by the terminal; we stay until it has cleaned up.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => signal === 'SIGTERM' && child.kill(signal))
  }
  return (await child.status).code
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

/**
 * Line and branch coverage of supabase/functions and local, measured by the runtime itself in every Deno process of
 * the run: the tests' own, and the isolates and servers that they start. Deno writes what a process has executed when
 * it ends in good order; a process that is killed (which some tests do on purpose) adds nothing.
 */
import { stripTypeScriptTypes } from 'node:module'
import { join, relative } from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'
import { z } from 'zod'
import type { Project } from '../../local/project.ts'
import { type FileCoverage, parseLcov, percent, total } from './lcov.ts'
import type { Summary } from './summary.ts'

/** Where the run writes its counts instead of saying them: the report comes before the last line. */
export const summaryFileVariable = 'HOLDFAST_TEST_SUMMARY'

const neverLoaded = 'never loaded'
const measured = ['supabase/functions', 'local']

/**
 * Runs the tests in a process of their own, prints the report and writes coverage/lcov.info.
 * A file that no process has loaded counts with all its lines as not covered.
 */
export async function runWithCoverage(
  project: Project,
  args: string[],
): Promise<{ summary: Summary; exitCode: number }> {
  const scratch = await Deno.makeTempDir({ prefix: 'holdfast-coverage-' })
  // Servers that root starts as another account write here too.
  await Deno.chmod(scratch, 0o777)
  try {
    const summaryFile = join(scratch, 'summary.json')
    const profiles = join(scratch, 'profiles')
    const exitCode = await runChild(project, args, {
      DENO_COVERAGE_DIR: profiles,
      [summaryFileVariable]: summaryFile,
    })
    const summary: Summary = await readSummary(summaryFile)
    if (summary.passed > 0) await report(project, profiles)
    return { summary, exitCode }
  } finally {
    await Deno.remove(scratch, { recursive: true })
  }
}

/** Signals reach the child through the terminal or are passed on; either way it ends in good order, and then we do. */
async function runChild(project: Project, args: string[], env: Record<string, string>): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ['run', '-A', join(project.root, 'tests/main.ts'), ...args],
    cwd: project.root,
    env,
    stdin: 'null',
  }).spawn()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal))
  return (await child.status).code
}

async function readSummary(file: string): Promise<Summary> {
  try {
    return JSON.parse(await Deno.readTextFile(file))
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { passed: 0, failed: 1, skipped: 0 }
    throw error
  }
}

async function report(project: Project, profiles: string): Promise<void> {
  const directory = join(project.root, 'coverage')
  await Deno.mkdir(directory, { recursive: true })
  const lcovFile = join(directory, 'lcov.info')
  await tidy(project, profiles)
  const roots = measured.map((folder) => `^file://${escape(join(project.root, folder))}/`)
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ['coverage', '--lcov', `--include=(${roots.join('|')})`, `--output=${lcovFile}`, profiles],
    env: { NO_COLOR: '1' },
    stdout: 'null',
    stderr: 'piped',
  }).output()
  if (!success) throw new Error(`Cannot report coverage: ${new TextDecoder().decode(stderr)}`)
  const loaded = parseLcov(await Deno.readTextFile(lcovFile))
  const files = loaded.map((file) => ({ ...file, path: relative(project.root, file.path) }))
  const known = new Set(files.map((file) => file.path))
  for (const path of await sourceFiles(project)) {
    const file = known.has(path) ? undefined : await untouched(project, path)
    if (file && file.lines.found > 0) files.push(file)
  }
  print(files.sort((a, b) => a.path.localeCompare(b.path)))
}

/**
 * Makes the profiles fit to be read. A process that was killed while it wrote leaves half a file, which `deno coverage`
 * would stop at; and the command line is tested in copies of the project, whose local/ counts as the project's own.
 */
async function tidy(project: Project, profiles: string): Promise<void> {
  for await (const { name } of Deno.readDir(profiles)) {
    const file = join(profiles, name)
    const profile = readProfile(await Deno.readTextFile(file))
    const copied = /\/checkout-[^/]+\/(local\/.*)$/.exec(profile?.url ?? '')?.[1]
    if (profile === undefined) await Deno.remove(file)
    else if (copied !== undefined) {
      const url = pathToFileURL(join(project.root, copied)).href
      await Deno.writeTextFile(file, JSON.stringify({ ...profile, url }))
    }
  }
}

function readProfile(text: string): { url: string } | undefined {
  try {
    return z.looseObject({ url: z.string() }).parse(JSON.parse(text))
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof z.ZodError) return undefined
    throw error
  }
}

async function sourceFiles(project: Project): Promise<string[]> {
  const found: string[] = []
  const walk = async (folder: string) => {
    for await (const entry of Deno.readDir(join(project.root, folder))) {
      const path = `${folder}/${entry.name}`
      if (entry.isDirectory) await walk(path)
      else if (entry.name.endsWith('.ts') && !/\.(test|types|d)\.ts$/.test(entry.name)) found.push(path)
    }
  }
  for (const folder of measured) await walk(folder)
  return found
}

/** What never ran: without its types, each line that is neither empty nor a comment counts. */
async function untouched(project: Project, path: string): Promise<FileCoverage> {
  const text = stripTypeScriptTypes(await Deno.readTextFile(join(project.root, path)))
  const lines = text.split('\n').filter((line) => !/^\s*($|\/\/|\/\*|\*)/.test(line)).length
  return {
    path,
    lines: { found: lines, hit: 0 },
    branches: { found: 0, hit: 0 },
    missing: [neverLoaded],
  }
}

function print(files: FileCoverage[]): void {
  const width = Math.max(...files.map((file) => file.path.length), 'all files'.length)
  const row = (name: string, file: Omit<FileCoverage, 'path'>) =>
    [
      name.padEnd(width),
      percent(file.lines).padStart(7),
      percent(file.branches).padStart(9),
      file.missing.join(', '),
    ]
      .join('  ').trimEnd()
  const unloaded = files.filter((file) => file.missing[0] === neverLoaded).length
  const text = [
    '',
    ['file'.padEnd(width), '  lines', ' branches', 'lines not covered'].join('  '),
    ...files.map((file) => row(file.path, file)),
    ...measured.map((folder) =>
      row(folder, total(files.filter(({ path }) => path.startsWith(`${folder}/`))))
    ),
    row('all files', total(files)),
    ...(unloaded > 0
      ? [`Files never loaded: ${unloaded}; their branches cannot be counted and are left out.`]
      : []),
    '',
  ]
  process.stdout.write(`${text.join('\n')}\n`)
}

function escape(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

/** Runs the real Supabase CLI against a database: without Docker, and without touching the user's home. */
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LocalError } from '../errors.ts'
import type { Project } from '../project.ts'
import { run } from './run.ts'

export interface CliResult {
  success: boolean
  /** What it wrote for programs: generated types, say. */
  stdout: string
  /** Both streams, one after the other: the CLI divides its sentences between them. */
  output: string
}

/** `args` without `--workdir`, which is the project's. The CLI may take five minutes. */
export async function runSupabase(project: Project, args: string[]): Promise<CliResult> {
  // The CLI keeps its settings in its home, and a record of use that is switched off here. Being a Bun program, it
  // unpacks a library of its own into the temporary directory and leaves it there.
  const home = join(project.localDir, 'supabase-cli')
  await Deno.mkdir(home, { recursive: true })
  const { success, code, stdout, stderr } = await run(await findCli(), ['--workdir', project.root, ...args], {
    cwd: project.root,
    env: {
      HOME: home,
      TMPDIR: home,
      BUN_TMPDIR: home,
      SUPABASE_TELEMETRY_DISABLED: '1',
      DO_NOT_TRACK: '1',
      SUPABASE_NO_UPDATE_NOTIFIER: '1',
      NO_COLOR: '1',
    },
    signal: AbortSignal.timeout(300_000),
  })
  if (code === 127) throw notInstalled(stderr)
  return { success, stdout, output: `${stdout}\n${stderr}`.trim() }
}

/** The binary itself where it is found: the npm package's own starter is a Node program that costs a tenth of a second. */
async function findCli(): Promise<string> {
  const arch = { x86_64: 'x64', aarch64: 'arm64' }[Deno.build.arch]
  for (let directory = dirname(fileURLToPath(import.meta.url));; directory = dirname(directory)) {
    const modules = join(directory, 'node_modules')
    for (
      const candidate of [
        join(modules, '@supabase', `cli-${Deno.build.os}-${arch}`, 'bin', 'supabase'),
        join(modules, '.bin', 'supabase'),
      ]
    ) {
      if (await Deno.stat(candidate).then((found) => found.isFile, () => false)) return candidate
    }
    if (directory === dirname(directory)) throw notInstalled('no node_modules has it')
  }
}

function notInstalled(reason: string): LocalError {
  return new LocalError(`Cannot run the Supabase CLI: ${reason}`, {
    fix: 'Run `npm install` again, without --omit=optional and --omit=dev.',
  })
}

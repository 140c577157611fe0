/** pgTAP and `pg_prove`: whether they are there, how Debian and Ubuntu get them, and what a run of them says. */
import type { Progress } from '../progress.ts'
import { aptCanInstall, aptInstall } from './apt.ts'
import { run } from './run.ts'

export interface PgTapServer {
  /** Major version. */
  major: number
  /** pgTAP is among the extensions that it can create. */
  hasPgTap: boolean
}

/** One assertion that did not hold, or a file that did not come to its end. */
export interface PgTapFailure {
  file: string
  /** The description of the assertion, else what pg_prove says of the file. */
  sentence: string
  /** What pgTAP says besides: what it had, what it wanted. */
  details: string
}

export interface PgTapResult {
  success: boolean
  assertions: number
  failures: PgTapFailure[]
  /** All that pg_prove wrote. */
  output: string
}

/**
 * Installs what is missing of the two. A server that is there is not named to apt-get, so it is neither upgraded nor
 * restarted.
 * @returns why they cannot be had here, or undefined when they are there
 */
export async function providePgTap(server: PgTapServer, progress: Progress): Promise<string | undefined> {
  const packages: string[] = []
  if (!server.hasPgTap) packages.push(`postgresql-${server.major}-pgtap`)
  if (!(await run('pg_prove', ['--version'])).success) packages.push('libtap-parser-sourcehandler-pgtap-perl')
  if (packages.length === 0) return undefined
  const names = packages.join(' and ')
  if (!(await aptCanInstall())) {
    return `${names} cannot be installed: there is no apt-get, or not the right to use it`
  }

  progress.step(`Installing ${names} (apt-get)`)
  if (await aptInstall(packages, progress) === undefined) return undefined
  // No lists of packages yet, or old ones.
  await updateLists()
  const failure = await aptInstall(packages, progress)
  return failure === undefined ? undefined : `apt-get could not install ${names}: ${failure}`
}

/** Runs the files, one after the other, each on a session of its own as the user of this URL. */
export async function runPgProve(url: string, files: readonly string[]): Promise<PgTapResult> {
  const { success, stdout, stderr } = await run('pg_prove', [
    '--verbose',
    '--nocolor',
    '--dbname',
    url,
    ...files,
  ])
  const output = `${stdout}\n${stderr}`.trim()
  const { assertions, failures } = readTap(stdout, files)
  // A file that breaks off fails without an assertion that says so.
  if (!success && failures.length === 0) {
    failures.push({ file: files.join(' '), sentence: 'pg_prove failed', details: output })
  }
  return { success, assertions, failures, output }
}

function readTap(text: string, files: readonly string[]): Pick<PgTapResult, 'assertions' | 'failures'> {
  const failures: PgTapFailure[] = []
  let assertions = 0
  let file = ''
  let failed: PgTapFailure | undefined
  const lines = text.split('\n')
  const summary = lines.indexOf('Test Summary Report')
  for (const line of summary < 0 ? lines : lines.slice(0, summary)) {
    file = files.find((candidate) => line.startsWith(`${candidate} ..`)) ?? file
    const [, verdict, sentence = ''] = /^(ok|not ok) \d+(?: - (.*))?$/.exec(line) ?? []
    if (verdict !== undefined) {
      assertions++
      failed = verdict === 'ok' ? undefined : { file, sentence, details: '' }
      if (failed !== undefined) failures.push(failed)
    } else if (failed !== undefined && line.startsWith('# ')) failed.details += `${line.slice(2)}\n`
  }
  return { assertions, failures }
}

async function updateLists(): Promise<void> {
  if (Deno.uid() === 0) await run('apt-get', ['update'])
  else await run('sudo', ['-n', 'apt-get', 'update'])
}

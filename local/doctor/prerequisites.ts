/** Is what the stack needs on this machine there, and are its ports free? */
import { join } from 'node:path'
import { z } from 'zod'
import { LocalError } from '../errors.ts'
import { findEmbeddedPostgres, findInstalledPostgres, minimumPostgres } from '../postgres/binaries.ts'
import { describePortHolder } from '../postgres/portHolder.ts'
import { run } from '../postgres/run.ts'
import { runSupabase } from '../postgres/supabaseCli.ts'
import type { Project } from '../project.ts'
import { defaultPort, isFree, portsFrom, suggestPort } from '../running/ports.ts'
import type { StackState } from '../state.ts'
import { type Finding, findings } from './finding.ts'

const { ok, problem, skipped } = findings('Prerequisites')
const installPackages = 'Remove node_modules and run npm ci --include=dev --include=optional.'

export async function checkPrerequisites(project: Project): Promise<Finding[]> {
  return await Promise.all([
    checkNode(),
    checkDeno(project),
    checkSupabaseCli(project),
    checkPostgres(),
    checkLocalDir(project),
  ])
}

/** Free, or held by the stack of this folder. */
export async function checkPorts(state: StackState | undefined): Promise<Finding[]> {
  const area = findings('Ports')
  const ours = new Set(
    [state?.report?.apiUrl, state?.report?.paymentsUrl, state?.report?.databaseUrl].flatMap((url) =>
      url === undefined ? [] : [Number(new URL(url).port)]
    ),
  )
  const base = state?.report === undefined ? defaultPort : Number(new URL(state.report.apiUrl).port)
  const uses = Object.entries(portsFrom(base))
  return await Promise.all(uses.map(async ([use, port]) => {
    const name = `${port} (${use})`
    if (ours.has(port)) return area.ok(name, 'used by the stack of this folder')
    if (isFree(port)) return area.ok(name, 'free')
    const holder = await describePortHolder(port) ?? 'another program'
    return area.problem(name, `taken by ${holder}`, `End it, or npm start -- --port ${suggestPort(base)}`)
  }))
}

async function checkNode(): Promise<Finding> {
  const { success, stdout } = await run('node', ['--version'])
  if (!success) return problem('Node', 'node is not on PATH', 'Install Node 20 or later.')
  const major = Number(/^v(\d+)/.exec(stdout)?.[1])
  return major >= 20
    ? ok('Node', stdout)
    : problem('Node', `${stdout} is too old`, 'Install Node 20 or later.')
}

async function checkDeno(project: Project): Promise<Finding> {
  const pinned = await pinnedVersion(project, 'deno')
  if (pinned === Deno.version.deno) return ok('Deno', `${pinned}, from npm`)
  return problem('Deno', `${Deno.version.deno} runs, package.json asks for ${pinned}`, installPackages)
}

async function checkSupabaseCli(project: Project): Promise<Finding> {
  const name = 'Supabase CLI'
  const pinned = await pinnedVersion(project, 'supabase')
  const { success, output } = await runSupabase(project, ['--version']).catch((error: unknown) => {
    if (!(error instanceof LocalError)) throw error
    return { success: false, output: error.message }
  })
  if (!success) return problem(name, `it does not run: ${errorLine(output)}`, installPackages)
  if (output === pinned) return ok(name, `${pinned}, from npm`)
  return problem(name, `${output} is installed, package.json asks for ${pinned}`, installPackages)
}

/** The CLI shows its own source around an error. */
function errorLine(output: string): string {
  const lines = output.split('\n')
  return (lines.find((line) => /^\w*error: /i.test(line)) ?? lines[0] ?? '').slice(0, 200)
}

async function pinnedVersion(project: Project, name: string): Promise<string | undefined> {
  const file = JSON.parse(await Deno.readTextFile(join(project.root, 'package.json')))
  const schema = z.object({ devDependencies: z.record(z.string(), z.string()) })
  return schema.parse(file).devDependencies[name]
}

async function checkPostgres(): Promise<Finding> {
  if (Deno.env.get('DATABASE_URL')) return skipped('PostgreSQL', 'DATABASE_URL is set: none is started')
  const found = await findInstalledPostgres()
  if (found?.hasCron) return ok('PostgreSQL', `${found.version} with pg_cron in ${found.binDir}`)
  const used = await findEmbeddedPostgres() ?? found
  const install = 'Debian, Ubuntu: sudo apt-get install postgresql-15-cron (or your version of it)'
  if (used === undefined) {
    return problem('PostgreSQL', `none of version ${minimumPostgres} or later was found`, install)
  }
  return ok(
    'PostgreSQL',
    `${used.version} (${used.source}) without pg_cron: a built-in runner stands in. ${install}`,
  )
}

async function checkLocalDir(project: Project): Promise<Finding> {
  const name = 'Local directory'
  try {
    await Deno.mkdir(project.localDir, { recursive: true })
    const probe = await Deno.makeTempFile({ dir: project.localDir, prefix: 'doctor.' })
    await Deno.remove(probe)
    return ok(name, `${project.localDir} can be written`)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return problem(
      name,
      reason,
      `Make ${project.localDir} writable, or set HOLDFAST_LOCAL_DIR to another place.`,
    )
  }
}

/** Would the functions load here, and deploy as they are? */
import { join, relative } from 'node:path'
import { parseEnv } from 'node:util'
import { z } from 'zod'
import { LocalError } from '../errors.ts'
import { type FunctionConfig, type Project, readFunctions } from '../project.ts'
import { findFunctionProblems } from '../running/functionCheck.ts'
import { type Finding, findings } from './finding.ts'

const { ok, problem, skipped } = findings('Functions')

export async function checkProjectFunctions(project: Project): Promise<Finding[]> {
  const functions = await readFunctions(project).catch((error: unknown) => {
    if (error instanceof LocalError) return error
    throw error
  })
  if (functions instanceof LocalError) return [problem('config.toml', functions.message, functions.fix)]
  const enabled = functions.filter((config) => config.enabled)
  if (enabled.length === 0) return [skipped('Functions', 'there are none')]
  return [
    ...await checkModules(project, enabled),
    ...checkVerifyJwt(enabled),
    ...await checkImportMaps(project, enabled),
    await checkSecrets(project),
  ]
}

async function checkModules(project: Project, functions: FunctionConfig[]): Promise<Finding[]> {
  const problems = await findFunctionProblems(project, functions)
  if (problems.length === 0) return [ok('Modules', `those of ${names(functions)} parse and resolve`)]
  return problems.map((one) =>
    problem(`Modules of ${one.function}`, `${one.message} (${one.where})`, one.fix)
  )
}

/** With it on, the platform refuses publishable and secret keys before the function can look at them: they are no JWTs. */
function checkVerifyJwt(functions: FunctionConfig[]): Finding[] {
  const guarded = functions.filter((config) => config.verifyJwt)
  if (guarded.length === 0) {
    return [ok('verify_jwt', `off for ${names(functions)}: they check their callers themselves`)]
  }
  return guarded.map(({ name }) =>
    problem(
      'verify_jwt',
      `the platform refuses calls of ${name} with a publishable or secret key`,
      `Under [functions.${name}] of supabase/config.toml: verify_jwt = false`,
    )
  )
}

/** Deploying finds no shared map by itself: each function has to name it. */
async function checkImportMaps(project: Project, functions: FunctionConfig[]): Promise<Finding[]> {
  const found: Finding[] = functions.filter((config) => config.importMap === undefined).map(({ name }) =>
    problem(
      'Import map',
      `${name} names none, so its bare imports fail when it is deployed`,
      `Under [functions.${name}] of supabase/config.toml: import_map = "./functions/deno.json"`,
    )
  )
  const maps = new Set(functions.flatMap(({ importMap }) => importMap ?? []))
  for (const map of maps) found.push(...await checkPins(project, map))
  return found
}

/** One version of each package, exactly pinned, for functions (the map) and for everything else (package.json). */
async function checkPins(project: Project, map: string): Promise<Finding[]> {
  const path = relative(project.root, map)
  const imports = await readImports(map)
  if (imports === undefined) {
    const fix = `Create or correct that file, or name another as import_map in supabase/config.toml.`
    return [problem('Import map', `${path} cannot be read as an import map`, fix)]
  }
  const versions = await packageVersions(project)
  const found: Finding[] = []
  for (const target of Object.values(imports)) {
    const [, name, version] = /^npm:\/?((?:@[^/@]+\/)?[^/@]+)(?:@([^/]+))?/.exec(target) ?? []
    if (name === undefined) continue
    if (version === undefined || !/^\d+\.\d+\.\d+/.test(version)) {
      found.push(
        problem(
          'Import map',
          `${path} does not pin ${name}`,
          `Write npm:${name}@${versions[name] ?? '1.2.3'}`,
        ),
      )
    } else if (versions[name] !== version) {
      const other = versions[name] === undefined ? 'lacks it' : `has ${versions[name]}`
      found.push(
        problem(
          'Import map',
          `${path} has ${name} ${version}, package.json ${other}`,
          `Make them agree, then run npm install.`,
        ),
      )
    }
  }
  return found.length > 0 ? found : [ok('Import map', `${path} agrees with package.json`)]
}

async function readImports(map: string): Promise<Record<string, string> | undefined> {
  try {
    const schema = z.object({ imports: z.record(z.string(), z.string()).default({}) })
    return schema.parse(JSON.parse(await Deno.readTextFile(map))).imports
  } catch {
    return undefined
  }
}

async function packageVersions(project: Project): Promise<Record<string, string>> {
  const versions = z.record(z.string(), z.string()).default({})
  const schema = z.object({ dependencies: versions, devDependencies: versions })
  const file = schema.parse(JSON.parse(await Deno.readTextFile(join(project.root, 'package.json'))))
  return { ...file.devDependencies, ...file.dependencies }
}

async function checkSecrets(project: Project): Promise<Finding> {
  const file = join(project.functionsDir, '.env')
  const text = await Deno.readTextFile(file).catch(() => undefined)
  if (text === undefined) return ok('Secrets', 'no supabase/functions/.env: nothing to check')
  const reserved = Object.keys(parseEnv(text)).filter((name) => name.startsWith('SUPABASE_'))
  if (reserved.length === 0) return ok('Secrets', 'supabase/functions/.env holds no reserved name')
  return problem(
    'Secrets',
    `supabase/functions/.env sets ${reserved.join(', ')}, which the platform refuses`,
    "Rename them: names that begin with SUPABASE_ are the platform's.",
  )
}

function names(functions: FunctionConfig[]): string {
  return functions.map(({ name }) => name).join(', ')
}

/** Where a Supabase project keeps its parts, and what its `config.toml` says of its functions. */
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse, TomlError } from 'smol-toml'
import { z } from 'zod'
import { LocalError } from './errors.ts'

export interface Project {
  /** Absolute path of the checkout. */
  root: string
  supabaseDir: string
  configFile: string
  migrationsDir: string
  seedFile: string
  functionsDir: string
  /** Everything the local stack writes: database, logs, state, caches. Ignored by git. */
  localDir: string
}

export interface FunctionConfig {
  name: string
  enabled: boolean
  /** The platform checks the caller's JWT before the function runs. */
  verifyJwt: boolean
  /** Absolute path of the function's import map or `deno.json`, if it has one. */
  importMap?: string
  /** Absolute path of the module that is served. */
  entrypoint: string
}

const functionTable = z.object({
  enabled: z.boolean().default(true),
  verify_jwt: z.boolean().default(true),
  import_map: z.string().optional(),
  entrypoint: z.string().optional(),
})
const configSchema = z.object({ functions: z.record(z.string(), functionTable).default({}) })

/** The project this file belongs to; `localDir` can be moved, so that several stacks share one checkout. */
export function openProject(options: { root?: string; localDir?: string } = {}): Project {
  const root = resolve(options.root ?? join(dirname(fileURLToPath(import.meta.url)), '..'))
  const supabaseDir = join(root, 'supabase')
  return {
    root,
    supabaseDir,
    configFile: join(supabaseDir, 'config.toml'),
    migrationsDir: join(supabaseDir, 'migrations'),
    seedFile: join(supabaseDir, 'seed.sql'),
    functionsDir: join(supabaseDir, 'functions'),
    localDir: resolve(options.localDir ?? join(root, '.local')),
  }
}

/**
 * The functions of a project: every folder below `supabase/functions` that holds an entry point, with what
 * `[functions.NAME]` says of it. Read afresh at each call, so that an edit takes effect.
 * Relative paths count from `supabase/`, as for the Supabase CLI.
 */
export async function readFunctions(project: Project): Promise<FunctionConfig[]> {
  const tables = await readConfig(project)
  const names = new Set(Object.keys(tables))
  for (const name of await functionFolders(project)) names.add(name)
  const functions: FunctionConfig[] = []
  for (const name of [...names].sort()) {
    const table = tables[name] ?? functionTable.parse({})
    const entrypoint = table.entrypoint === undefined
      ? join(project.functionsDir, name, 'index.ts')
      : resolve(project.supabaseDir, table.entrypoint)
    if (!(await exists(entrypoint))) {
      if (name in tables) {
        throw new LocalError(`Cannot read function "${name}": its entry point ${entrypoint} does not exist`, {
          where: project.configFile,
          fix: `Create the file, or remove [functions.${name}] from config.toml.`,
        })
      }
      continue
    }
    functions.push({
      name,
      enabled: table.enabled,
      verifyJwt: table.verify_jwt,
      importMap: await importMapOf(project, name, table.import_map),
      entrypoint,
    })
  }
  return functions
}

async function functionFolders(project: Project): Promise<string[]> {
  try {
    const entries = await Array.fromAsync(Deno.readDir(project.functionsDir))
    return entries.filter((entry) => entry.isDirectory && !/^[._]/.test(entry.name)).map(({ name }) => name)
  } catch (cause) {
    throw new LocalError('Cannot read the functions of the project', {
      where: project.functionsDir,
      fix: 'Run from a checkout of the project, where supabase/functions exists.',
      cause,
    })
  }
}

async function readConfig(project: Project) {
  const text = await Deno.readTextFile(project.configFile).catch((cause) => {
    throw new LocalError('Cannot read the project configuration', {
      where: project.configFile,
      fix: 'Run from a checkout of the project, where supabase/config.toml exists.',
      cause,
    })
  })
  try {
    return configSchema.parse(parse(text)).functions
  } catch (cause) {
    const detail = cause instanceof z.ZodError
      ? z.prettifyError(cause)
      : cause instanceof TomlError
      ? cause.message.trimEnd()
      : String(cause)
    throw new LocalError(`Cannot read supabase/config.toml: ${detail}`, {
      where: project.configFile,
      fix: 'Correct the file; [functions.NAME] takes enabled, verify_jwt, import_map and entrypoint.',
      cause,
    })
  }
}

/** As the CLI looks for it: the configured one, else a `deno.json(c)` or `import_map.json` beside the function. */
async function importMapOf(project: Project, name: string, configured?: string): Promise<string | undefined> {
  if (configured !== undefined) return resolve(project.supabaseDir, configured)
  for (const file of ['deno.json', 'deno.jsonc', 'import_map.json']) {
    const path = join(project.functionsDir, name, file)
    if (await exists(path)) return path
  }
  return undefined
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path)
    return true
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false
    throw error
  }
}

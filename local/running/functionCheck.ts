/** Reads every function's modules before anything is served, so that a slip of the pen is told at the start. */
import { fileURLToPath } from 'node:url'
import { relative } from 'node:path'
import { z } from 'zod'
import { LocalError } from '../errors.ts'
import { importArguments } from '../functions/isolateProcess.ts'
import { type FunctionConfig, type Project, readFunctions } from '../project.ts'

export interface FunctionProblem {
  function: string
  message: string
  /** `path/of/module.ts:line:column`, the path counted from the project's folder. */
  where: string
  fix: string
}

const spanSchema = z.object({ start: z.object({ line: z.number(), character: z.number() }) })
type Span = z.infer<typeof spanSchema>

const dependencySchema = z.object({
  specifier: z.string(),
  code: z.object({
    /** What it resolves to. */
    specifier: z.string().optional(),
    error: z.string().optional(),
    span: spanSchema.optional(),
  }).optional(),
})
const graphSchema = z.object({
  modules: z.array(z.object({
    specifier: z.string(),
    error: z.string().optional(),
    dependencies: z.array(dependencySchema).default([]),
  })),
})

/** Throws one `LocalError` that names every module of an enabled function that cannot be parsed or resolved. */
export async function checkFunctions(project: Project): Promise<void> {
  const problems = await findFunctionProblems(project, await readFunctions(project))
  const [first, ...others] = problems
  if (first === undefined) return
  const names = [...new Set(problems.map((problem) => `"${problem.function}"`))]
  const rest = others.map((problem) => `\n\n${problem.message}\n    at ${problem.where}`).join('')
  throw new LocalError(`Cannot serve ${names.join(', ')}: ${first.message}${rest}`, {
    where: first.where,
    fix: first.fix,
  })
}

/**
 * What keeps the enabled functions from being loaded; nothing of theirs is run. Only the project's own files are
 * looked at, so it takes no network.
 */
export async function findFunctionProblems(
  project: Project,
  functions: FunctionConfig[],
): Promise<FunctionProblem[]> {
  const checked = functions.filter((config) => config.enabled).map((config) => problemsOf(project, config))
  const problems = (await Promise.all(checked)).flat()
  // A shared module would otherwise be reported once for each function that imports it.
  const seen = new Set<string>()
  return problems.filter(({ where, message }) => !seen.has(where + message) && seen.add(where + message))
}

async function problemsOf(project: Project, config: FunctionConfig): Promise<FunctionProblem[]> {
  // Packages and remote modules are left out: whether they can be had may change until the first request.
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...['info', '--json', '--no-remote', '--no-npm', '--no-lock'],
      ...importArguments({ importMap: config.importMap, packages: 'node_modules' }),
      config.entrypoint,
    ],
    cwd: project.root,
    env: { NO_COLOR: '1' },
    stdin: 'null',
  }).output()
  const decoder = new TextDecoder()
  if (!success) {
    return [{
      function: config.name,
      message: withoutBacktrace(decoder.decode(stderr)).replace(/^error: /, ''),
      where: relative(project.root, config.importMap ?? config.entrypoint),
      fix: 'Correct the import map, or the name of it in supabase/config.toml, then start again.',
    }]
  }
  const { modules } = graphSchema.parse(JSON.parse(decoder.decode(stdout)))
  const own = modules.filter(({ specifier }) => specifier.startsWith('file:'))
  const importers = new Map(
    own.flatMap((module) =>
      module.dependencies.flatMap(({ code }) =>
        code?.specifier === undefined ? [] : [[code.specifier, placeOf(project, module.specifier, code.span)]]
      )
    ),
  )
  return own.flatMap((module) => [
    ...(module.error === undefined
      ? []
      : [moduleProblem(project, config.name, module.specifier, module.error, importers)]),
    ...module.dependencies.flatMap(({ specifier, code }) => {
      if (code?.error === undefined || /^(https?|jsr|npm):/.test(specifier)) return []
      return [{
        function: config.name,
        message: `Cannot resolve the import "${specifier}"`,
        where: placeOf(project, module.specifier, code.span),
        fix: 'Correct the import, or add the package to package.json and to supabase/functions/deno.json.',
      }]
    }),
  ])
}

/** Deno adds a backtrace of its own code, which helps nobody here. */
function withoutBacktrace(stderr: string): string {
  return stderr.replace(/\n+Stack backtrace:[\s\S]*$/, '').trim()
}

/** Deno ends its message with `at file:///…:line:column`; that is the place, and the rest is what is wrong there. */
function moduleProblem(
  project: Project,
  name: string,
  specifier: string,
  error: string,
  importers: Map<string, string>,
): FunctionProblem {
  const [, message, file, position] = /^([\s\S]*?)\n\s+at (file:\S+?)((?::\d+)+)$/.exec(error) ?? []
  const missing = /^Module not found/.test(error)
  return {
    function: name,
    message: missing ? `The module ${shortPath(project, specifier)} does not exist` : message ?? error,
    where: file === undefined
      ? importers.get(specifier) ?? shortPath(project, specifier)
      : shortPath(project, file) + position,
    fix: missing ? 'Create the file, or correct the import of it.' : 'Correct the line, then start again.',
  }
}

function placeOf(project: Project, specifier: string, span: Span | undefined): string {
  const at = span === undefined ? '' : `:${span.start.line + 1}:${span.start.character + 1}`
  return shortPath(project, specifier) + at
}

function shortPath(project: Project, specifier: string): string {
  return relative(project.root, fileURLToPath(specifier))
}

/** Versions and import maps: what has to say the same in several places. */
import { join } from 'node:path'
import { parse } from 'smol-toml'
import { z } from 'zod'
import { type Project, readFunctions } from '../../local/project.ts'
import type { Check, Problem } from './problem.ts'

const importMapPath = './functions/deno.json'

/** The Supabase CLI does not look for `supabase/functions/deno.json` by itself, so each function names it. */
export const importMaps: Check = {
  name: 'import maps',
  async find(project) {
    const file = 'supabase/config.toml'
    const schema = z.object({
      functions: z.record(z.string(), z.object({ import_map: z.string().optional() })).default({}),
    })
    const { functions } = schema.parse(parse(await Deno.readTextFile(project.configFile)))
    const names = (await readFunctions(project)).map((each) => each.name)
    const problems: Problem[] = []
    for (const name of new Set([...Object.keys(functions), ...names])) {
      if (functions[name]?.import_map === importMapPath) continue
      problems.push({
        where: file,
        message:
          `[functions.${name}] does not name the import map, so deploying it would not find its packages`,
        fix: `Write import_map = "${importMapPath}" below [functions.${name}].`,
      })
    }
    return problems
  },
}

const packageSchema = z.object({
  dependencies: z.record(z.string(), z.string()).default({}),
  devDependencies: z.record(z.string(), z.string()).default({}),
  optionalDependencies: z.record(z.string(), z.string()).default({}),
})

/** Exact everywhere; what functions import is the version that the tests have run with. */
export const versions: Check = {
  name: 'versions',
  async find(project) {
    const installed = await dependenciesOf(project)
    const problems: Problem[] = []
    for (const [name, version] of Object.entries(installed)) {
      if (isExact(version)) continue
      problems.push({
        where: 'package.json',
        message: `${name} is not pinned: "${version}"`,
        fix: 'Name one exact version, as 1.2.3.',
      })
    }
    const map = z.object({ imports: z.record(z.string(), z.string()) })
      .parse(JSON.parse(await Deno.readTextFile(join(project.functionsDir, 'deno.json'))))
    for (const [name, target] of Object.entries(map.imports)) {
      const message = judgeImport(name, target, installed)
      if (!message) continue
      problems.push({
        where: 'supabase/functions/deno.json',
        message,
        fix: `Give both files the same exact version: "npm:${name}@${installed[name] ?? '1.2.3'}".`,
      })
    }
    return problems
  },
}

/** Each dependency has a reason that can be read. */
export const dependencyReasons: Check = {
  name: 'dependencies',
  async find(project) {
    const file = 'docs/dependencies.md'
    const text = await Deno.readTextFile(join(project.root, file)).catch((error) => {
      if (error instanceof Deno.errors.NotFound) return ''
      throw error
    })
    const named = new Set([...text.matchAll(/^(?:\||[-*] ).*$/gm)].flatMap(([line]) => namesIn(line)))
    return Object.keys(await dependenciesOf(project))
      .filter((name) => !named.has(name) && !named.has(`${name.split('/')[0]}/*`))
      .map((name) => ({
        where: file,
        message: `has no line for ${name}`,
        fix:
          'Add a line that names the package in backticks and says why the project uses it, or remove the package.',
      }))
  },
}

async function dependenciesOf(project: Project): Promise<Record<string, string>> {
  const text = await Deno.readTextFile(join(project.root, 'package.json'))
  const { dependencies, devDependencies, optionalDependencies } = packageSchema.parse(JSON.parse(text))
  return { ...dependencies, ...devDependencies, ...optionalDependencies }
}

function judgeImport(name: string, target: string, installed: Record<string, string>): string | undefined {
  const [, packageName = '', version = ''] = /^npm:((?:@[^/@]+\/)?[^/@]+)@([^/]+)/.exec(target) ?? []
  if (!isExact(version)) return `"${name}" is not an exact npm version: "${target}"`
  const tested = installed[packageName]
  if (tested === undefined) return `imports ${packageName}, which package.json does not have`
  return tested === version ? undefined : `imports ${packageName} ${version}, package.json has ${tested}`
}

function isExact(version: string): boolean {
  return /^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)
}

function namesIn(line: string): string[] {
  return [...line.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name.replace(/(?<=.)@[\d.].*$/, ''))
}

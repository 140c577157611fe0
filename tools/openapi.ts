/**
 * `npm run openapi` writes docs/openapi.json: one document for all functions, from the routes they declare.
 * With `--check` it writes nothing and fails when the document is behind.
 */
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { z } from 'zod'
import { openProject, type Project, readFunctions } from '../local/project.ts'
import { openApiDocument } from '../supabase/functions/_shared/http/openapi.ts'
import { runCommand } from './command.ts'

const documentPath = 'docs/openapi.json'
const packageSchema = z.object({ version: z.string() })

if (import.meta.main) {
  await runCommand(async () => {
    const project = openProject()
    if (!Deno.args.includes('--check')) {
      await Deno.writeTextFile(join(project.root, documentPath), await renderDocument(project))
      return `Wrote ${documentPath}`
    }
    if (await isCurrent(project)) return `${documentPath} is current`
    throw new Error(`${documentPath} is behind the routes: run \`npm run openapi\``)
  })
}

/** The document as it should be now. Functions that declare no routes are not part of it. */
async function renderDocument(project: Project): Promise<string> {
  const apis: Api[] = []
  for (const { name, enabled, entrypoint } of await readFunctions(project)) {
    if (!enabled) continue
    const module: { default?: unknown } = await import(pathToFileURL(entrypoint).href)
    if (isApi(module.default)) apis.push(module.default)
    else if (!isServable(module.default)) {
      throw new Error(`Cannot describe function "${name}": ${entrypoint} has no default export with fetch`)
    }
  }
  const { version } = packageSchema.parse(
    JSON.parse(await Deno.readTextFile(join(project.root, 'package.json'))),
  )
  return `${JSON.stringify(openApiDocument(apis, { title: 'Holdfast', version }), null, 2)}\n`
}

type Api = Parameters<typeof openApiDocument>[0][number]

async function isCurrent(project: Project): Promise<boolean> {
  const wanted = await renderDocument(project)
  const found = await Deno.readTextFile(join(project.root, documentPath)).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return ''
    throw error
  })
  return wanted === found
}

function isServable(value: unknown): value is { fetch: unknown } {
  return typeof value === 'object' && value !== null && 'fetch' in value && typeof value.fetch === 'function'
}

function isApi(value: unknown): value is Api {
  return isServable(value) && 'routes' in value
}

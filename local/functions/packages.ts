/** Where a function's `npm:` imports are found. */
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { LocalError } from '../errors.ts'
import type { PackageSource } from './isolateProcess.ts'

const importMapSchema = z.object({ imports: z.record(z.string(), z.string()).default({}) })
const packageSchema = z.object({ version: z.string() })

/**
 * `node_modules` if it holds every `npm:` package of the import map in the version asked for (much the fastest, and
 * it works offline), else Deno's cache, which Deno fills from the registry; `announce` then says why.
 */
export async function choosePackages(
  importMap: string | undefined,
  announce: (text: string) => void,
): Promise<PackageSource> {
  if (importMap === undefined) return 'cache'
  for (const target of Object.values(await readImports(importMap))) {
    const wanted = /^npm:\/?((?:@[^/@]+\/)?[^/@]+)(?:@([^/]+))?/.exec(target)
    if (wanted?.[1] === undefined) continue
    const found = await installedVersion(dirname(importMap), wanted[1])
    // Ranges are Deno's to resolve: we only vouch for the exact versions that pins name.
    if (found === undefined || found !== wanted[2]) {
      announce(
        `${wanted[1]}@${wanted[2] ?? 'latest'} is not in node_modules; Deno fetches the packages itself`,
      )
      return 'cache'
    }
  }
  return 'node_modules'
}

async function readImports(importMap: string): Promise<Record<string, string>> {
  try {
    return importMapSchema.parse(JSON.parse(withoutComments(await Deno.readTextFile(importMap)))).imports
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause)
    throw new LocalError(`Cannot read the import map: ${detail}`, {
      where: importMap,
      fix: 'Correct the file, or the import_map that config.toml names.',
      cause,
    })
  }
}

/** Comments and trailing commas of a `deno.jsonc`; strings stay whole. */
function withoutComments(text: string): string {
  return text
    .replace(/("(?:[^"\\]|\\.)*")|\/\/[^\n]*|\/\*[^]*?\*\//g, (_, string: string | undefined) => string ?? '')
    .replace(/("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])/g, (_, string: string | undefined) => string ?? '')
}

/** Looks upwards, as Node and Deno do. */
async function installedVersion(directory: string, name: string): Promise<string | undefined> {
  try {
    return packageSchema.parse(JSON.parse(
      await Deno.readTextFile(join(directory, 'node_modules', name, 'package.json')),
    )).version
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error
    const parent = dirname(directory)
    return parent === directory ? undefined : await installedVersion(parent, name)
  }
}

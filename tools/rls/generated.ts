/** The files that are generated from the declaration of the matrix, and whether those in the tree are the same. */
import { join } from 'node:path'

export interface StaleFile {
  /** From the root of the project. */
  path: string
  /** What it should hold; undefined when it should not be there. */
  text?: string
}

const matrixPath = 'docs/rls-matrix.md'
const testsFolder = 'supabase/tests'
/** Stands in the head of every generated pgTAP file. What has no such head is somebody's own, and is left alone. */
const mark = 'npm run rls -- --write'

/** All of them, by their path from the root of the project. */
export async function renderFiles(): Promise<Map<string, string>> {
  const { renderMatrix } = await import('./renderMatrix.ts')
  const { renderPgTap } = await import('./renderPgTap.ts')
  const files = new Map([[matrixPath, renderMatrix()]])
  for (const [name, text] of renderPgTap()) files.set(`${testsFolder}/${name}`, text)
  return files
}

/** Those that are missing, that hold something else, or that nothing renders any more. Sorted by path. */
export async function staleFiles(root: string, files: ReadonlyMap<string, string>): Promise<StaleFile[]> {
  const stale: StaleFile[] = []
  for (const [path, text] of files) {
    if (await contentOf(join(root, path)) !== text) stale.push({ path, text })
  }
  for (const name of await sqlFiles(join(root, testsFolder))) {
    const path = `${testsFolder}/${name}`
    if (!files.has(path) && isGenerated(await contentOf(join(root, path)))) stale.push({ path })
  }
  return stale.sort((a, b) => a.path.localeCompare(b.path))
}

export async function writeFiles(root: string, stale: readonly StaleFile[]): Promise<void> {
  await Deno.mkdir(join(root, testsFolder), { recursive: true })
  for (const { path, text } of stale) {
    if (text === undefined) await Deno.remove(join(root, path))
    else await Deno.writeTextFile(join(root, path), text)
  }
}

function isGenerated(text: string | undefined): boolean {
  return text?.split('\n', 5).some((line) => line.includes(mark)) ?? false
}

async function contentOf(file: string): Promise<string | undefined> {
  return await Deno.readTextFile(file).catch(ignoreNotFound)
}

async function sqlFiles(folder: string): Promise<string[]> {
  const entries = await Array.fromAsync(Deno.readDir(folder)).catch(ignoreNotFound) ?? []
  return entries.filter(({ isFile, name }) => isFile && name.endsWith('.sql')).map(({ name }) => name)
}

function ignoreNotFound(error: unknown): undefined {
  if (error instanceof Deno.errors.NotFound) return undefined
  throw error
}

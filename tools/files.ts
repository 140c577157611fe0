/** The files of the project: what a clone has, without what is installed, generated or kept by the local stack. */
import { join } from 'node:path'

export interface ProjectFile {
  /** From the root of the project, with forward slashes. */
  path: string
  absolute: string
}

const skipped = new Set(['node_modules', 'coverage', '.git', '.local', '.temp', '.spike'])

/** Every file below `folders` whose name ends like one of `endings`, sorted; folders that do not exist are empty. */
export async function projectFiles(
  root: string,
  folders: string[],
  endings: string[],
): Promise<ProjectFile[]> {
  const files: ProjectFile[] = []
  const walk = async (folder: string) => {
    for (const entry of await entriesOf(join(root, folder))) {
      const path = folder === '.' ? entry.name : `${folder}/${entry.name}`
      if (entry.isDirectory && !skipped.has(entry.name)) await walk(path)
      if (entry.isFile && endings.some((ending) => entry.name.endsWith(ending))) {
        files.push({ path, absolute: join(root, path) })
      }
    }
  }
  for (const folder of folders) await walk(folder)
  return files.sort((a, b) => a.path.localeCompare(b.path))
}

async function entriesOf(directory: string): Promise<Deno.DirEntry[]> {
  try {
    return await Array.fromAsync(Deno.readDir(directory))
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return []
    throw error
  }
}

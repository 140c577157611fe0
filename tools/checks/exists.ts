/** Does a file or folder of the project exist? */
import { join } from 'node:path'
import type { Project } from '../../local/project.ts'

export async function exists(project: Project, path: string): Promise<boolean> {
  try {
    await Deno.stat(join(project.root, path))
    return true
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false
    throw error
  }
}

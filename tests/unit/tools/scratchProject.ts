/** A project on disk for one test of the checks. */
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'
import { openProject, type Project } from '../../../local/project.ts'

/** Writes the files, given by their paths from the root; they go with the test. */
export async function scratchProject(files: Record<string, string>): Promise<Project> {
  const root = await Deno.makeTempDir({ prefix: 'holdfast-check-' })
  onTestFinished(() => Deno.remove(root, { recursive: true }))
  for (const [path, text] of Object.entries(files)) {
    await Deno.mkdir(dirname(join(root, path)), { recursive: true })
    await Deno.writeTextFile(join(root, path), text)
  }
  return openProject({ root })
}

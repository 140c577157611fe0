/**
 * Importing a file of `_shared` has no effect: no timer, no connection, no environment read, no output. Each file is
 * imported in a process that may read files and nothing else, where timers, output and requests are watched.
 */
import { fileURLToPath } from 'node:url'
import { projectFiles } from '../files.ts'
import { runTool } from '../run.ts'
import { shared } from './floors.ts'
import type { Check } from './problem.ts'

const probe = fileURLToPath(new URL('./importProbe.ts', import.meta.url))

export const importEffects: Check = {
  name: 'import-time effects',
  async find(project) {
    const files = await projectFiles(project.root, [shared], ['.ts'])
    if (files.length === 0) return []
    const { success, output } = await runTool(project, 'deno', [
      'run',
      '--no-prompt',
      '--allow-read',
      '--config',
      'supabase/functions/deno.json',
      '--node-modules-dir=manual',
      '--no-lock',
      probe,
      ...files.map((file) => file.absolute),
    ])
    if (success && output === '') return []
    return [{
      where: shared,
      message: output || 'the probe ended without a word',
      fix: 'Do this work in a function that is called, not while the file is imported.',
    }]
  },
}

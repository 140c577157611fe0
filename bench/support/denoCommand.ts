/** The command line of a script that runs as a function does: the functions' import map, the host's flags. */
import { join } from 'node:path'
import { importArguments } from '../../local/functions/isolateProcess.ts'
import type { Project } from '../../local/project.ts'

export interface DenoScript {
  project: Project
  script: string
  args: string[]
}

/** The program and its arguments. */
export function denoCommand({ project, script, args }: DenoScript): [program: string, ...args: string[]] {
  const importMap = join(project.functionsDir, 'deno.json')
  return [
    Deno.execPath(),
    'run',
    '--quiet',
    '--no-prompt',
    '--no-lock',
    ...importArguments({ importMap, packages: 'node_modules' }),
    '--allow-net',
    '--allow-env',
    '--allow-read',
    '--allow-sys',
    '--unstable-no-legacy-abort',
    script,
    ...args,
  ]
}

/** Format, lint, types and SQL lint: what well-known tools find. */
import { exists } from './exists.ts'
import { projectFiles } from '../files.ts'
import { type Finished, runTool } from '../run.ts'
import type { Check, Problem } from './problem.ts'

/** Everything that is TypeScript of ours. */
export const codeFolders = ['supabase/functions', 'local', 'tests', 'tools', 'bench']

export const format: Check = {
  name: 'format',
  async find(project) {
    const { success, output } = await runTool(project, 'deno', ['fmt', '--check'])
    if (success) return []
    const files = [...output.matchAll(/^from (.*?):?$/gm)].map(([, file = '']) => file)
    const fix = 'Run `npm run format`.'
    if (files.length === 0) return [{ where: 'deno fmt', message: output, fix }]
    return files.map((file) => ({
      where: file.replace(`${project.root}/`, ''),
      message: 'is not formatted',
      fix,
    }))
  },
}

export const lint: Check = {
  name: 'lint',
  async find(project) {
    const finished = await runTool(project, 'deno', ['lint', '--quiet'])
    return problemOf('deno lint', finished, 'Change the code as each hint says.')
  },
}

export const types: Check = {
  name: 'types',
  async find(project) {
    const folders: string[] = []
    for (const folder of codeFolders) if (await exists(project, folder)) folders.push(folder)
    const finished = await runTool(project, 'deno', ['check', '--quiet', ...folders])
    return problemOf('deno check', finished, 'Correct the types; `deno check FILE` looks at one file.')
  },
}

export const sqlLint: Check = {
  name: 'SQL lint',
  async find(project) {
    const files = await projectFiles(project.root, ['supabase/migrations'], ['.sql'])
    if (files.length === 0) return []
    const paths = files.map((file) => file.path)
    const finished = await runTool(project, 'squawk', [
      '--config',
      '.squawk.toml',
      '--reporter',
      'gcc',
      ...paths,
    ])
    if (finished.success) return []
    const fix = 'Change the migration, or put `-- squawk-ignore RULE` and the reason above the statement.'
    const problems: Problem[] = []
    for (
      const [, where = '', message = ''] of finished.output.matchAll(
        /^(\S+?:\d+:\d+): (?:warning|error): (.*)$/gm,
      )
    ) {
      problems.push({ where, message, fix })
    }
    return problems.length > 0 ? problems : problemOf('squawk', finished, fix)
  },
}

function problemOf(where: string, finished: Finished, fix: string): Problem[] {
  return finished.success ? [] : [{ where, message: finished.output, fix }]
}

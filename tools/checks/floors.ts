/** A file of `_shared` imports only from its own folder or from a lower floor, so that each can be taken out alone. */
import { dirname, posix } from 'node:path'
import { projectFiles } from '../files.ts'
import { importsOf } from '../imports.ts'
import type { Check, Problem } from './problem.ts'

export const shared = 'supabase/functions/_shared'

const floorOf: Record<string, number> = {
  core: 0,
  observability: 1,
  db: 2,
  resilience: 3,
  jobs: 4,
  security: 4,
  http: 5,
  adapters: 6,
}
const plan = 'core 0, observability 1, db 2, resilience 3, jobs and security 4, http 5, adapters 6'

export const floors: Check = {
  name: 'floors',
  async find(project) {
    const problems: Problem[] = []
    for (const file of await projectFiles(project.root, [shared], ['.ts'])) {
      const text = await Deno.readTextFile(file.absolute)
      for (const { specifier, line } of importsOf(text)) {
        const message = judge(file.path, specifier)
        if (message) problems.push({ where: `${file.path}:${line}`, message, fix: `Floors: ${plan}.` })
      }
      if (folderOf(file.path) === undefined) {
        problems.push({
          where: file.path,
          message: 'is on no floor',
          fix: `Move it into a folder of _shared: ${plan}.`,
        })
      }
    }
    return problems
  },
}

function judge(path: string, specifier: string): string | undefined {
  if (!specifier.startsWith('.')) return undefined
  const target = posix.join(dirname(path), specifier)
  if (!target.startsWith(`${shared}/`)) return `imports ${specifier}, which is outside of _shared`
  const [from, to] = [folderOf(path), folderOf(target)]
  if (from === undefined || to === undefined || from === to) return undefined
  const [fromFloor = 0, toFloor = 0] = [floorOf[from], floorOf[to]]
  if (toFloor < fromFloor) return undefined
  return `imports ${specifier}: ${to} (floor ${toFloor}) is not below ${from} (floor ${fromFloor})`
}

/** The folder of `_shared` a file is in, if it is one of the plan. */
function folderOf(path: string): string | undefined {
  const folder = path.slice(shared.length + 1).split('/')[0] ?? ''
  return folder in floorOf ? folder : undefined
}

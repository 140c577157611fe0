/** `npm run reset`: a fresh database, whether the stack runs or not. */
import { LocalError } from '../errors.ts'
import type { Command } from '../main.ts'
import { type ProgressDisplay, terminalProgress } from '../progress.ts'
import type { Project } from '../project.ts'
import { removeDatabase } from '../running/remains.ts'
import { lockStack, readSettledState, removeState, type StackState } from '../state.ts'
import { print } from '../terminal/output.ts'
import { parseOptions } from './options.ts'

const usage = `
npm run reset

Throws the private database away, data and all. A stack that runs goes on with a fresh one (migrated, with the demo
data) at the same address; otherwise the next start makes it.
`

const command: Command = {
  usage,
  async run(project, args) {
    parseOptions({ args, usage, options: {} })
    const progress = await terminalProgress()
    try {
      const state = await readSettledState(project.localDir)
      if (state === undefined) await resetAtRest(project, progress)
      else await resetRunning(project, state, progress)
      return 0
    } catch (error) {
      progress.fail()
      throw error
    }
  },
}
export default command

async function resetAtRest(project: Project, progress: ProgressDisplay): Promise<void> {
  if (Deno.env.get('DATABASE_URL')) throw notOurs()
  const lock = await lockStack(project.localDir)
  if (lock === undefined) throw busy(project)
  try {
    progress.step('Removing the database')
    await removeDatabase(project)
    await removeState(project.localDir)
    progress.done('Removed the database')
    print('npm start makes a fresh one.')
  } finally {
    lock.release()
  }
}

async function resetRunning(project: Project, before: StackState, progress: ProgressDisplay): Promise<void> {
  if (before.report?.privateDatabase === false) throw notOurs()
  progress.step('Making a fresh database')
  Deno.kill(before.pid, 'SIGUSR2')
  const after = await readSettledState(project.localDir, { since: before.generation })
  if (after?.phase === 'ready') {
    progress.done('Made a fresh database')
    print(`${after.report?.apiUrl} answers again.`)
    return
  }
  const { message, where, fix } = after?.resetFailure ?? { message: 'The stack ended during the reset' }
  throw new LocalError(message, { where, fix: fix ?? 'Read npm run logs -- stack, then start again.' })
}

function notOurs(): LocalError {
  return new LocalError(
    'Cannot reset the database of DATABASE_URL: it is not the private one of this folder',
    {
      where: 'DATABASE_URL',
      fix: 'Reset it by its own means (supabase db reset, or drop and create it), or unset DATABASE_URL.',
    },
  )
}

function busy(project: Project): LocalError {
  return new LocalError('Cannot reset the database: a stack is just starting or stopping', {
    where: project.localDir,
    fix: 'Try again in a moment.',
  })
}

/**
 * The command line of the local stack: `npm start` and its relatives come here by way of run.mjs. A command returns its
 * exit code; what it throws is told as what happened, where, and what to do.
 */
import { LocalError } from './errors.ts'
import { openProject, type Project } from './project.ts'
import { describeFailure, print, printError } from './terminal/output.ts'

export interface Command {
  /** The first line says how it is called, the others what its options mean. */
  usage: string
  /** @returns the exit code */
  run(project: Project, args: string[]): Promise<number>
}

/** Loaded when used: `status` shall not wait for what `start` needs. */
const commands: Record<string, () => Promise<{ default: Command }>> = {
  start: () => import('./commands/start.ts'),
  stop: () => import('./commands/stop.ts'),
  status: () => import('./commands/status.ts'),
  reset: () => import('./commands/reset.ts'),
  logs: () => import('./commands/logs.ts'),
  doctor: () => import('./commands/doctor.ts'),
}

async function main([name = '', ...args]: string[]): Promise<number> {
  const debug = args.includes('--debug')
  try {
    const load = commands[name]
    if (load === undefined) {
      throw new LocalError(`There is no command "${name}"`, {
        fix: `Use one of ${Object.keys(commands).join(', ')}.`,
      })
    }
    const { default: command } = await load()
    if (args.includes('--help') || args.includes('-h')) {
      print(`Usage: ${command.usage.trim()}`)
      return 0
    }
    return await command.run(openProject({ localDir: Deno.env.get('HOLDFAST_LOCAL_DIR') || undefined }), args)
  } catch (error) {
    printError(`\n${describeFailure(error, debug)}`)
    return 1
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args))

/**
 * `npm run rls`: who may do what. Explains one case against a database, and writes what is generated from the
 * declaration of all cases.
 *
 *     npm run rls -- --explain public.orders update --as ada@example.com
 *     npm run rls -- --write
 *     npm run rls -- --check
 */
import { LocalError } from '../../local/errors.ts'
import { openProject, type Project } from '../../local/project.ts'
import { readState } from '../../local/state.ts'
import { describeFailure, print, printError } from '../../local/terminal/output.ts'
import { readTask, type Task, usage } from './explainArguments.ts'

/** @returns the exit code. An explanation is no failure, whatever it says. */
async function main(args: string[]): Promise<number> {
  try {
    const project = openProject({ localDir: Deno.env.get('HOLDFAST_LOCAL_DIR') || undefined })
    return await run(project, readTask(args))
  } catch (error) {
    printError(`\n${describeFailure(error, args.includes('--debug'))}`)
    return 1
  }
}

/** Loaded when used: an explanation needs no renderer, and a renderer no database. */
async function run(project: Project, task: Task): Promise<number> {
  if (task.kind === 'usage') {
    print(`Usage: ${usage.trim()}`)
    return 0
  }
  if (task.kind === 'explain') {
    const { explain } = await import('./explain.ts')
    const { explanationText } = await import('./explainText.ts')
    const url = task.databaseUrl ?? await localDatabaseUrl(project)
    const explanation = await explain(url, task.request)
    print(task.json ? JSON.stringify(explanation, null, 2) : explanationText(explanation))
    return 0
  }
  const { renderFiles, staleFiles, writeFiles } = await import('./generated.ts')
  const files = await renderFiles()
  const stale = await staleFiles(project.root, files)
  if (task.kind === 'check') {
    if (stale.length === 0) {
      print(`${files.size} files are current`)
      return 0
    }
    throw new LocalError(`Not current: ${stale.map(({ path }) => path).join(', ')}`, {
      where: 'npm run rls -- --check',
      fix: 'npm run rls -- --write',
    })
  }
  await writeFiles(project.root, stale)
  const done = stale.map(({ path, text }) => `${text === undefined ? 'Removed' : 'Wrote'} ${path}`)
  print(done.length === 0 ? `${files.size} files were current` : done.join('\n'))
  return 0
}

async function localDatabaseUrl(project: Project): Promise<string> {
  const state = await readState(project.localDir)
  if (state?.phase === 'ready' && state.report !== undefined) return state.report.databaseUrl
  throw new LocalError(
    state === undefined
      ? 'Cannot explain: the local stack does not run'
      : `Cannot explain: the local stack is ${state.phase}`,
    {
      where: project.localDir,
      fix: state === undefined
        ? 'Start it: npm start -- --detach. Or name a database: --db-url URL.'
        : 'See npm run status. Or name a database: --db-url URL.',
    },
  )
}

if (import.meta.main) Deno.exit(await main(Deno.args))

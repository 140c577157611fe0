/** Notices when a project's functions change. */
import { basename, dirname } from 'node:path'
import { LocalError } from '../errors.ts'
import type { FunctionConfig, Project } from '../project.ts'

export interface ChangeWatch {
  /** The functions are others now: so may be the files that lie elsewhere. */
  update(functions: FunctionConfig[]): void
  close(): void
}

/** Editors and tools write in bursts; a burst is one change. */
const quietMs = 60

/**
 * Calls back once for each burst of changes below `supabase/functions`, to `config.toml`, or to an entry point or
 * import map that lies elsewhere. What editors write beside the files they save does not count.
 */
export function watchFunctions(
  project: Project,
  functions: FunctionConfig[],
  changed: () => void,
): ChangeWatch {
  const below = `${project.functionsDir}/`
  const watchers = new Map<string, Deno.FsWatcher>()
  let elsewhere = new Set<string>()
  let timer: ReturnType<typeof setTimeout> | undefined

  function counts(path: string): boolean {
    return path.startsWith(below) ? !isScratch(basename(path)) : elsewhere.has(path)
  }

  async function follow(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { kind, paths } of watcher) {
      if (kind === 'access' || kind === 'other' || !paths.some(counts)) continue
      clearTimeout(timer)
      timer = setTimeout(changed, quietMs)
    }
  }

  function update(functions: FunctionConfig[]): void {
    const files = functions.flatMap(({ entrypoint, importMap }) =>
      importMap ? [entrypoint, importMap] : [entrypoint]
    )
    elsewhere = new Set([project.configFile, ...files].filter((file) => !file.startsWith(below)))
    const folders = new Set([project.functionsDir, ...[...elsewhere].map(dirname)])
    for (const [folder, watcher] of watchers) {
      if (folders.has(folder)) continue
      watcher.close()
      watchers.delete(folder)
    }
    for (const folder of folders) {
      if (watchers.has(folder)) continue
      const watcher = open(folder, folder === project.functionsDir)
      watchers.set(folder, watcher)
      void follow(watcher)
    }
  }

  function close(): void {
    clearTimeout(timer)
    for (const watcher of watchers.values()) watcher.close()
    watchers.clear()
  }

  try {
    update(functions)
  } catch (error) {
    close()
    throw error
  }
  return { update, close }
}

function open(folder: string, recursive: boolean): Deno.FsWatcher {
  try {
    return Deno.watchFs(folder, { recursive })
  } catch (cause) {
    throw new LocalError(
      `Cannot watch for changes: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        where: folder,
        fix: 'If it exists, raise the number of file watches: sysctl fs.inotify.max_user_instances=1024.',
        cause,
      },
    )
  }
}

/** Swap, backup and probe files of the usual editors; `.env` is the one hidden file that means something. */
function isScratch(name: string): boolean {
  return (name.startsWith('.') && name !== '.env') || /~$|\.sw[a-z]$|\.tmp$|^4913$|^#.*#$/.test(name)
}

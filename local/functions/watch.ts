/** Notices when a project's functions change. */
import { basename, dirname } from 'node:path'
import type { FunctionConfig, Project } from '../project.ts'

export interface ChangeWatch {
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
  const elsewhere = [
    project.configFile,
    ...functions.flatMap((one) => [one.entrypoint, one.importMap ?? []].flat()),
  ]
    .filter((file) => !file.startsWith(`${project.functionsDir}/`))
  const watchers = [
    Deno.watchFs(project.functionsDir, { recursive: true }),
    ...new Set(elsewhere.map(dirname)).values().map((folder) => Deno.watchFs(folder, { recursive: false })),
  ]
  let timer: ReturnType<typeof setTimeout> | undefined

  const counts = (path: string) =>
    path.startsWith(`${project.functionsDir}/`) ? !isScratch(basename(path)) : elsewhere.includes(path)

  async function follow(watcher: Deno.FsWatcher): Promise<void> {
    for await (const event of watcher) {
      if (event.kind === 'access' || event.kind === 'other' || !event.paths.some(counts)) continue
      clearTimeout(timer)
      timer = setTimeout(changed, quietMs)
    }
  }
  for (const watcher of watchers) void follow(watcher)

  return {
    close() {
      clearTimeout(timer)
      for (const watcher of watchers) watcher.close()
    },
  }
}

/** Swap, backup and probe files of the usual editors; `.env` is the one hidden file that means something. */
function isScratch(name: string): boolean {
  return (name.startsWith('.') && name !== '.env') || /~$|\.sw[a-z]$|\.tmp$|^4913$|^#.*#$/.test(name)
}

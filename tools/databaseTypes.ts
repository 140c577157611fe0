/**
 * `npm run types` writes the TypeScript types of the database, as `supabase gen types` gives them for a database with
 * all migrations. tests/db/databaseTypes.test.ts fails when the file is behind.
 */
import { join } from 'node:path'
import { terminalProgress } from '../local/progress.ts'
import { openProject, type Project } from '../local/project.ts'
import { startClusters } from '../tests/support/clusters.ts'
import { openRunDirectory } from '../tests/support/runDirectory.ts'
import { runCommand } from './command.ts'
import { supabaseCli } from './supabaseCli.ts'

export const typesPath = 'supabase/functions/_shared/db/database.types.ts'

if (import.meta.main) {
  await runCommand(async () => {
    const project = openProject()
    const directory = await openRunDirectory()
    try {
      const clusters = await startClusters({ directory, all: false, progress: await terminalProgress() })
      try {
        const [server] = clusters.servers
        if (!server) throw new Error('No PostgreSQL was started')
        const text = await generateTypes(project, server.url.replace(/\/postgres$/, `/${server.template}`))
        await Deno.writeTextFile(join(project.root, typesPath), text)
      } finally {
        await clusters.stop()
      }
    } finally {
      await Deno.remove(directory, { recursive: true })
    }
    return `Wrote ${typesPath}`
  })
}

/** The types of the schemas that the API exposes, formatted as the project formats its code. */
export async function generateTypes(project: Project, databaseUrl: string): Promise<string> {
  const text = await supabaseCli(
    project,
    ['gen', 'types', '--lang=typescript', '--schema=public'],
    databaseUrl,
  )
  const header = '// Written by `npm run types` from the migrations; not to be edited.\n'
  return await formatted(project, `${header}${text}`)
}

async function formatted(project: Project, text: string): Promise<string> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ['fmt', '--quiet', '--config', join(project.root, 'deno.json'), '--ext', 'ts', '-'],
    stdin: 'piped',
    stdout: 'piped',
    stderr: 'piped',
  }).spawn()
  const writer = child.stdin.getWriter()
  await writer.write(new TextEncoder().encode(text))
  await writer.close()
  const { success, stdout, stderr } = await child.output()
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes))
  if (!success) throw new Error(`Cannot format the generated types: ${err}`)
  return out ?? ''
}

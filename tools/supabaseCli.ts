/** The Supabase CLI against one database, as the local stack runs it. */
import { runSupabase } from '../local/postgres/supabaseCli.ts'
import type { Project } from '../local/project.ts'

/** @returns what it wrote to its standard output; throws with all it said when it fails */
export async function supabaseCli(project: Project, args: string[], databaseUrl: string): Promise<string> {
  const target = new URL(databaseUrl)
  target.searchParams.set('sslmode', 'disable')
  const { success, stdout, output } = await runSupabase(project, [
    ...args,
    `--remote=${target.href}`,
    '--yes',
  ])
  if (!success) throw new Error(`supabase ${args.join(' ')} failed:\n${output}`)
  return stdout
}

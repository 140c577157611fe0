/** Fills a migrated database with what `supabase/seed.sql` holds. */
import postgres from 'postgres'
import { LocalError } from '../errors.ts'
import type { Project } from '../project.ts'
import { withConnection } from './connect.ts'

/**
 * Runs `supabase/seed.sql` as one transaction; a project without the file has nothing to seed.
 * @param url of role `postgres`
 * @throws LocalError naming the line of the statement that failed; nothing of the file has stayed then
 */
export async function applySeed(project: Project, url: string): Promise<void> {
  const text = await Deno.readTextFile(project.seedFile).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return ''
    throw error
  })
  if (text.trim() === '') return
  await withConnection(url, 'seed', async (sql) => {
    try {
      await sql.unsafe(text).simple()
    } catch (cause) {
      if (!(cause instanceof postgres.PostgresError)) throw cause
      throw failure(project, text, cause)
    }
  })
}

function failure(project: Project, text: string, error: postgres.PostgresError): LocalError {
  const detail = error.detail === undefined ? '' : ` (${error.detail})`
  const line = error.position === undefined ? '' : `:${lineAt(text, Number(error.position))}`
  return new LocalError(`Cannot seed the database: ${error.message}${detail}, SQLSTATE ${error.code}`, {
    where: `${project.seedFile}${line}`,
    fix: 'Correct the statement and run `npm run reset`, which seeds a fresh database.',
    cause: error,
  })
}

/** The server counts characters from 1, as code points. */
function lineAt(text: string, position: number): number {
  return [...text].slice(0, position - 1).filter((letter) => letter === '\n').length + 1
}

/** Are the connection strings of the kind that their users need? */
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import type { Project } from '../project.ts'
import { type Finding, findings } from './finding.ts'

const { ok, problem } = findings('Pooler')
/** Where Supabase's pooler hands a connection out for one transaction only. */
const transactionPort = '6543'

export async function checkPooler(project: Project): Promise<Finding[]> {
  return [checkMigrationUrl(Deno.env.get('DATABASE_URL')), await checkFunctionUrl(project)]
}

/** Migrations keep one session: settings, locks and temporary tables last beyond a transaction. */
function checkMigrationUrl(text: string | undefined): Finding {
  const name = 'DATABASE_URL'
  if (!text) return ok(name, 'not set: the private server is reached directly')
  if (!URL.canParse(text)) {
    return problem(name, 'it is no URL', 'Use postgresql://USER:PASSWORD@HOST:5432/DATABASE')
  }
  const { port, host } = new URL(text)
  if (port !== transactionPort) return ok(name, `${host}, with a session of its own`)
  return problem(name, `${host} is the pooler's transaction mode`, 'Migrate through port 5432 instead.')
}

/** Under many isolates functions need the transaction mode, which is why the library uses nothing of a session. */
async function checkFunctionUrl(project: Project): Promise<Finding> {
  const name = 'HOLDFAST_DB_URL'
  const secrets = await Deno.readTextFile(join(project.functionsDir, '.env')).then(parseEnv, () => undefined)
  const text = secrets?.[name]
  if (!text) return ok(name, "not set: functions use the platform's direct connection")
  if (!URL.canParse(text)) {
    return problem(name, 'it is no URL', 'Use postgresql://USER:PASSWORD@HOST:6543/DATABASE')
  }
  const { port, hostname, host } = new URL(text)
  if (/(^|\.)pooler\.supabase\.com$/.test(hostname) && port !== transactionPort) {
    return problem(
      name,
      `${host} is the pooler's session mode: each isolate would hold its connections`,
      `In supabase/functions/.env use port ${transactionPort}, the transaction mode.`,
    )
  }
  return ok(name, host)
}

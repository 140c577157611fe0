/** A real pooler in transaction mode (PgBouncer), as hosted projects have one in front of PostgreSQL. */
import { join } from 'node:path'
import { inject } from 'vitest'
import { unprivilegedAccount } from '../../local/postgres/account.ts'
import { aptCanInstall, aptInstall } from '../../local/postgres/apt.ts'
import { freePort } from '../../local/postgres/cluster.ts'
import { silentProgress } from '../../local/progress.ts'
import { waitFor } from './wait.ts'

export interface Pooler {
  /** The database's URL through the pooler. */
  url: string
  close(): Promise<void>
}

const program = '/usr/sbin/pgbouncer'

/**
 * Starts it in front of the database, with `serverConnections` to share among all clients. Undefined where PgBouncer
 * is not installed and cannot be.
 */
export async function startPooler(
  databaseUrl: string,
  serverConnections: number,
): Promise<Pooler | undefined> {
  if (!(await installed()) && await aptCanInstall()) await aptInstall(['pgbouncer'], silentProgress)
  if (!(await installed())) return undefined

  const database = new URL(databaseUrl)
  const port = freePort()
  const config = join(inject('runDir'), `pgbouncer-${port}.ini`)
  await Deno.writeTextFile(
    config,
    `[databases]
* = host=${database.hostname} port=${database.port} user=${database.username} password=${database.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = ${serverConnections}
max_client_conn = 200
`,
  )
  const account = await unprivilegedAccount()
  const child = new Deno.Command(program, {
    args: ['-q', config],
    cwd: '/',
    uid: account?.uid,
    gid: account?.gid,
    stdin: 'null',
    stdout: 'null',
    stderr: 'null',
  }).spawn()
  await waitFor(async () => (await Deno.connect({ hostname: '127.0.0.1', port })).close() ?? true, {
    what: `PgBouncer on port ${port}`,
  })
  database.port = String(port)
  return {
    url: database.href,
    async close() {
      child.kill('SIGKILL')
      await child.status
      await Deno.remove(config)
    },
  }
}

async function installed(): Promise<boolean> {
  return await Deno.stat(program).then(() => true, () => false)
}

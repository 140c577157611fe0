/** The server's settings: what the local stack needs, and what the caller adds or overrides. */
import { join } from 'node:path'
import { clusterName } from './postmaster.ts'

export type Settings = Record<string, string>

/** Read last by the server, so that it wins over what `initdb` wrote. Rewritten at each start. */
const settingsFile = 'holdfast.conf'

/**
 * As on a hosted Supabase where it matters to migrations and functions (UTC, logical WAL, pg_cron in the one database
 * that may have it); closed to the network; nothing traded for speed.
 */
export function localSettings(o: { dataDir: string; port: number; cronDatabase?: string }): Settings {
  const preload = o.cronDatabase === undefined ? ['pg_stat_statements'] : ['pg_stat_statements', 'pg_cron']
  return {
    listen_addresses: '127.0.0.1',
    port: String(o.port),
    // None: a socket's path may hold 107 bytes only, and everything here speaks TCP.
    unix_socket_directories: '',
    cluster_name: clusterName(o.dataDir),
    max_connections: '200',
    max_worker_processes: '24',
    wal_level: 'logical',
    timezone: 'UTC',
    log_timezone: 'UTC',
    log_line_prefix: '%m [%p] %q%u@%d %a ',
    log_lock_waits: 'on',
    shared_preload_libraries: preload.join(','),
    ...(o.cronDatabase === undefined ? {} : {
      'cron.database_name': o.cronDatabase,
      // Jobs run in workers of the server: logging in over TCP, pg_cron's other way, would want a password.
      'cron.use_background_workers': 'on',
      'cron.max_running_jobs': '8',
    }),
  }
}

/**
 * Writes the settings for the next start.
 * @returns whether they differ from those of the last one
 */
export async function writeSettings(dataDir: string, settings: Settings): Promise<boolean> {
  const text = Object.entries(settings).map(([name, value]) => `${checked(name)} = ${quoted(value)}\n`).join(
    '',
  )
  const file = join(dataDir, settingsFile)
  const before = await Deno.readTextFile(file).catch(() => undefined)
  if (before === text) return false
  await includeOnce(dataDir)
  await Deno.writeTextFile(file, text, { mode: 0o644 })
  return true
}

async function includeOnce(dataDir: string): Promise<void> {
  const main = join(dataDir, 'postgresql.conf')
  const line = `include_if_exists = '${settingsFile}'`
  if ((await Deno.readTextFile(main)).includes(line)) return
  await Deno.writeTextFile(main, `\n${line}\n`, { append: true })
}

function checked(name: string): string {
  if (/^[a-z_][a-z0-9_.]*$/i.test(name)) return name
  throw new TypeError(`Cannot set "${name}": not the name of a PostgreSQL setting`)
}

function quoted(value: string): string {
  return `'${value.replaceAll("'", "''")}'`
}

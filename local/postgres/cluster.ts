/** A PostgreSQL server of our own: private files, 127.0.0.1 only, gone without a trace when destroyed. */
import { dirname, join } from 'node:path'
import { LocalError } from '../errors.ts'
import { type Account, unprivilegedAccount } from './account.ts'
import type { PostgresBinaries } from './binaries.ts'
import { withConnection } from './connect.ts'
import {
  dataDirectoryIn,
  ensureDataDirectory,
  localPassword,
  placeCluster,
  removeCluster,
  superuser,
} from './dataDirectory.ts'
import { withLock } from './lock.ts'
import { describePortHolder } from './portHolder.ts'
import { clearRemains, findPostmaster } from './postmaster.ts'
import { run } from './run.ts'
import { localSettings, type Settings, writeSettings } from './settings.ts'

export interface ClusterOptions {
  binaries: PostgresBinaries
  /** Everything of the cluster lies below it. Not reachable for the server's account: /var/tmp takes its place. */
  directory: string
  /** 0 takes a free one. */
  port: number
  /** The one database that pg_cron runs jobs of, where the server has it. @default 'postgres' */
  cronDatabase?: string
  /** Over the local ones: `{ fsync: 'off' }` for a database that may be lost, say. */
  settings?: Settings
}

/** Seconds that a start (with recovery after a crash) or a stop (with its checkpoint) may take. */
const patienceSeconds = 60
const logLimitBytes = 10 * 1024 * 1024

export class Cluster {
  readonly port: number
  readonly dataDir: string
  readonly logFile: string
  readonly #directory: string
  readonly #binaries: PostgresBinaries
  readonly #account: Account | undefined
  readonly #cronDatabase: string | undefined
  #overrides: Settings

  private constructor(o: ClusterOptions, port: number, base: string, account: Account | undefined) {
    this.port = port
    this.dataDir = dataDirectoryIn(base)
    this.logFile = join(base, 'postgres.log')
    this.#directory = o.directory
    this.#binaries = o.binaries
    this.#account = account
    this.#cronDatabase = o.binaries.hasCron ? o.cronDatabase ?? 'postgres' : undefined
    this.#overrides = o.settings ?? {}
  }

  /**
   * Opens the cluster in the directory, creating its files (about a second) when there are none. Starts nothing.
   * Fails with a `LocalError` when the directory cannot be used or another major version wrote it.
   */
  static async open(o: ClusterOptions): Promise<Cluster> {
    const account = await unprivilegedAccount()
    const base = await placeCluster(o.directory, account)
    await withLock(lockFile(base), () => ensureDataDirectory(dataDirectoryIn(base), o.binaries, account))
    return new Cluster(o, o.port === 0 ? freePort() : o.port, base, account)
  }

  /**
   * Returns when the server takes connections. A server of this directory that runs already is kept if it has the
   * same settings, else restarted; what a killed one left behind is cleared first.
   */
  async start(): Promise<void> {
    await withLock(lockFile(dirname(this.dataDir)), () => this.#start())
  }

  async #start(): Promise<void> {
    const running = await findPostmaster(this.dataDir)
    const settings = { ...localSettings(this.#place), ...this.#overrides }
    const changed = await writeSettings(this.dataDir, settings)
    if (running !== undefined) {
      if (running.status === 'ready' && !changed && await this.#answers()) return
      await this.stop()
    }
    await clearRemains(this.dataDir)
    const logStart = await this.#trimLog()
    const { success } = await this.#control(['start', '-w', '-l', this.logFile])
    if (!success) throw await this.#startFailure(logStart)
  }

  /**
   * Returns when the server is gone. `fast` rolls back what runs and writes a checkpoint; `immediate` is a crash on
   * purpose, made good at the next start. Does nothing when the server does not run.
   */
  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    if (!(await this.running())) return
    const { success, stderr } = await this.#control(['stop', '-w', '-m', mode])
    if (success || !(await this.running())) return
    if (mode === 'fast') return await this.stop('immediate')
    throw new LocalError(`Cannot stop PostgreSQL: ${stderr}`, {
      where: this.logFile,
      fix: `End the process whose number is in the first line of ${join(this.dataDir, 'postmaster.pid')}.`,
    })
  }

  /** Is the server of this directory alive? */
  async running(): Promise<boolean> {
    return await findPostmaster(this.dataDir) !== undefined
  }

  /** Stops and starts; `settings` join those given before and stay for later starts of this object. */
  async restart(settings: Settings = {}): Promise<void> {
    this.#overrides = { ...this.#overrides, ...settings }
    await this.stop()
    await this.start()
  }

  /** Stops the server and removes all its files: every database in it is lost. */
  async destroy(): Promise<void> {
    await this.stop('immediate')
    await clearRemains(this.dataDir)
    await removeCluster(this.#directory)
  }

  /** With a hosted project's rights: role `postgres`, no superuser. */
  url(database = 'postgres'): string {
    return this.#urlOf('postgres', database)
  }

  /** As superuser: for the platform's own work only. */
  adminUrl(database = 'postgres'): string {
    return this.#urlOf(superuser, database)
  }

  /** A server that was killed this moment still shows as a process; a dead one does not let anybody log in. */
  async #answers(): Promise<boolean> {
    return await withConnection(this.adminUrl(), 'start', (sql) => sql`select`).then(() => true, () => false)
  }

  #urlOf(user: string, database: string): string {
    return `postgresql://${user}:${localPassword}@127.0.0.1:${this.port}/${encodeURIComponent(database)}`
  }

  get #place() {
    return { dataDir: this.dataDir, port: this.port, cronDatabase: this.#cronDatabase }
  }

  #control(args: string[]) {
    return run(join(this.#binaries.binDir, 'pg_ctl'), [
      ...args,
      '-D',
      this.dataDir,
      '-t',
      String(patienceSeconds),
    ], { account: this.#account, cwd: '/' })
  }

  /** Keeps one older log. @returns where in the file the coming start begins */
  async #trimLog(): Promise<number> {
    const size = await Deno.stat(this.logFile).then((found) => found.size, () => 0)
    if (size < logLimitBytes) return size
    await Deno.rename(this.logFile, `${this.logFile}.1`)
    return 0
  }

  async #startFailure(logStart: number): Promise<LocalError> {
    const log = await Deno.readFile(this.logFile).catch(() => new Uint8Array())
    const said = new TextDecoder().decode(log.subarray(logStart)).trim()
    if (/could not bind .*: Address already in use/.test(said)) {
      const holder = await describePortHolder(this.port)
      return new LocalError(
        `Cannot start PostgreSQL: port ${this.port} is taken${holder ? ` by ${holder}` : ''}`,
        {
          where: `127.0.0.1:${this.port}`,
          fix: 'End that program, or choose another port.',
        },
      )
    }
    // What is wrong with a setting is said before the final word that something is.
    const reason =
      /(?:FATAL|PANIC|LOG):\s*((?!starting|listening).*(?:parameter|setting).*)/.exec(said)?.[1] ??
        /(?:FATAL|PANIC):\s*(.*)/.exec(said)?.[1]
    return new LocalError(
      `Cannot start PostgreSQL: ${reason ?? `it was not ready after ${patienceSeconds} s`}`,
      {
        where: this.logFile,
        fix:
          'Read the end of that log; `npm run reset` starts with a fresh database if this one is beyond repair.',
      },
    )
  }
}

function lockFile(base: string): string {
  return join(base, 'lock')
}

/** A port of 127.0.0.1 that nobody listens on now. */
export function freePort(): number {
  const listener = Deno.listen({ hostname: '127.0.0.1', port: 0 })
  try {
    return listener.addr.port
  } finally {
    listener.close()
  }
}

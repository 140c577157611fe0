/** From nothing to a stack that answers, and back: the one place that knows the order of the parts. */
import { LocalError } from '../errors.ts'
import { platformEnvironment } from '../functions/environment.ts'
import { localKeys } from '../keys.ts'
import { findPostmaster } from '../postgres/postmaster.ts'
import type { Progress } from '../progress.ts'
import type { Project } from '../project.ts'
import type { Stack, StackOptions } from '../stack.ts'
import type { StackReport } from '../state.ts'
import {
  type GivenDatabase,
  inspectGivenDatabase,
  type StackDatabase,
  startCluster,
  takeGiven,
} from './database.ts'
import type { Cluster } from '../postgres/cluster.ts'
import { checkFunctions } from './functionCheck.ts'
import type { LogEntry } from './logFiles.ts'
import { defaultPort, isFree, portsFrom, requireFreePort, type StackPorts, suggestPort } from './ports.ts'
import { bringSchema, type SchemaReport } from './schema.ts'

export interface BringUpOptions {
  project: Project
  /** As the person asked; absent: `supabase start`'s, or the next free ones beside a Supabase that runs. */
  port?: number
  /** Isolates of each function. */
  isolates: number
  /** Unix time in ms from which the readiness figure counts. */
  launchedAt: number
  onLog: (entry: LogEntry) => void
}

/** What has been started so far. The caller keeps it, and can stop it at any moment, ready or not. */
export class StackParts {
  cluster?: Cluster
  stack?: Stack

  /** Stops everything in order. */
  async close(): Promise<void> {
    await this.stack?.close()
    await this.cluster?.stop()
  }

  /** Ends what would outlive this process, within seconds and by force; the next start mends what that leaves. */
  async kill(): Promise<void> {
    for (const { pid } of this.stack?.host.isolates() ?? []) endByForce(pid)
    if (this.cluster === undefined) return
    const stopped = this.cluster.stop('immediate').then(() => true, () => false)
    if (await Promise.race([stopped, after(forceMs)])) return
    const server = await findPostmaster(this.cluster.dataDir)
    if (server !== undefined) endByForce(server.pid)
  }
}

/** How long PostgreSQL may take to drop everything, before it is killed. */
const forceMs = 2_000

function after(ms: number): Promise<false> {
  return new Promise((resolve) => setTimeout(() => resolve(false), ms))
}

function endByForce(pid: number): void {
  try {
    Deno.kill(pid, 'SIGKILL')
  } catch (error) {
    // It has ended meanwhile.
    if (!(error instanceof Deno.errors.NotFound)) throw error
  }
}

/**
 * Starts database, schema, gateway and functions, putting each into `parts` as soon as there is something to stop.
 * Breaks off between two steps when `signal` fires.
 */
export async function bringUp(
  options: BringUpOptions,
  parts: StackParts,
  progress: Progress,
  signal: AbortSignal,
): Promise<StackReport> {
  const { project } = options
  const given = await inspectGivenDatabase(progress)
  const ports = choosePorts(options.port, given, progress)
  await requireFreePort(ports.api, 'the API')
  await requireFreePort(ports.payments, 'the payments stand-in')

  // What waits for the disk and for other processes goes on side by side.
  const checked = settled(checkFunctions(project))
  const loaded = settled(import('../stack.ts'))
  const database = given === undefined
    ? await startCluster({ project, port: ports.database, parts, progress, signal })
    : await takeGiven(given, progress)
  ;(await checked)()
  signal.throwIfAborted()
  const schema = await bringSchema(project, database, progress)
  signal.throwIfAborted()
  progress.step('Starting the gateway')
  const { startStack } = (await loaded)()
  parts.stack = await startStack(stackOptions(options, ports, database))
  signal.throwIfAborted()
  await requireAnswer(parts.stack.url)
  progress.done()
  return await reportOf(options, parts.stack, database, schema)
}

/** Beside somebody else's Supabase our own gateway needs another port than that one's. */
function choosePorts(
  port: number | undefined,
  given: GivenDatabase | undefined,
  progress: Progress,
): StackPorts {
  if (port !== undefined) return portsFrom(port)
  if (!given?.supabase || (isFree(defaultPort) && new URL(upstreamUrl()).port !== String(defaultPort))) {
    return portsFrom(defaultPort)
  }
  const other = suggestPort(defaultPort)
  progress.info(`Port ${defaultPort} is Supabase's own: this project's functions are served on ${other}`)
  return portsFrom(other)
}

/** Takes the failure of a promise that is awaited later, so that it is not reported as nobody's meanwhile. */
function settled<T>(promise: Promise<T>): Promise<() => T> {
  return promise.then(
    (value) => () => value,
    (error) => () => {
      throw error
    },
  )
}

function stackOptions(options: BringUpOptions, ports: StackPorts, database: StackDatabase): StackOptions {
  const { project, isolates, onLog } = options
  return {
    project,
    port: ports.api,
    paymentsPort: ports.payments,
    databaseUrl: database.url,
    adminUrl: database.adminUrl,
    apiUrl: database.adminUrl === undefined ? upstreamUrl() : undefined,
    cron: database.cron,
    isolates,
    watch: true,
    // What no function wrote is the stack's own.
    onLog: ({ function: name, isolate, stream, text, at }) =>
      onLog({ name: name || 'stack', text, at, isolate, stream }),
  }
}

/** Where somebody else's Supabase answers: asked for only when DATABASE_URL is one. */
function upstreamUrl(): string {
  return Deno.env.get('SUPABASE_URL') || 'http://127.0.0.1:54321'
}

async function requireAnswer(url: string): Promise<void> {
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000) })
  await response.body?.cancel()
  if (response.ok) return
  throw new LocalError(`The gateway answers with status ${response.status}`, {
    where: url,
    fix: 'Read npm run logs -- stack.',
  })
}

async function reportOf(
  { launchedAt, isolates }: BringUpOptions,
  stack: Stack,
  database: StackDatabase,
  schema: SchemaReport,
): Promise<StackReport> {
  const env = await platformEnvironment({
    url: stack.url,
    databaseUrl: database.url,
    publishableKey: localKeys.publishable,
    secretKey: localKeys.secret,
    jwtSecret: localKeys.jwtSecret,
  })
  return {
    apiUrl: stack.url,
    functionsUrl: stack.functionsUrl,
    paymentsUrl: stack.paymentsUrl,
    databaseUrl: database.url,
    publishableKey: localKeys.publishable,
    secretKey: localKeys.secret,
    jwtSecret: localKeys.jwtSecret,
    anonKey: env.SUPABASE_ANON_KEY ?? '',
    serviceRoleKey: env.SUPABASE_SERVICE_ROLE_KEY ?? '',
    database: database.description,
    privateDatabase: database.isPrivate,
    demoUsers: schema.demoUsers,
    sku: schema.sku,
    isolates,
    readySeconds: (Date.now() - launchedAt) / 1000,
  }
}

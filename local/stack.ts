/** The local stack above its database: gateway, API, functions, sender for `net`, payments stand-in. */
import type { FunctionsHost, HostLimits, LogLine } from './functions/host.ts'
import { startFunctionsHost } from './functions/host.ts'
import { platformEnvironment } from './functions/environment.ts'
import { platformError } from './functions/platformError.ts'
import { startApi } from './gateway/api.ts'
import { startNetWorker } from './gateway/netWorker.ts'
import type { Health } from './gateway/page.ts'
import { renderPage } from './gateway/page.ts'
import type { Route } from './gateway/server.ts'
import { startGateway } from './gateway/server.ts'
import { localKeys } from './keys.ts'
import { startPayments } from './payments/server.ts'
import { storeVaultSecrets } from './postgres/vaultSecrets.ts'
import type { Project } from './project.ts'

export interface StackOptions {
  project: Project
  /** Port of the gateway; 0 takes any free one. */
  port: number
  /** @default 0 */
  paymentsPort?: number
  /** What functions get as `SUPABASE_DB_URL`. */
  databaseUrl: string
  /** The platform's own connection. Absent where someone else's Supabase runs: `apiUrl` then answers for it. */
  adminUrl?: string
  /** Where `/auth/v1` and `/rest/v1` are forwarded to when there is no `adminUrl`. */
  apiUrl?: string
  isolates?: number
  limits?: Partial<HostLimits>
  onLog?: (line: LogLine) => void
  /** Reloads functions when their files change. */
  watch?: boolean
  /** Who runs `cron.job`: the database itself, or a runner of ours. @default 'database' */
  cron?: 'database' | 'runner'
  /** More variables for functions. */
  env?: Record<string, string>
}

export interface Stack {
  url: string
  functionsUrl: string
  paymentsUrl: string
  databaseUrl: string
  port: number
  host: FunctionsHost
  /** Stops everything that was started; the database stays. */
  close(): Promise<void>
}

/** Starts the parts and resolves when all answer. If one cannot start, those already started are closed again. */
export async function startStack(options: StackOptions): Promise<Stack> {
  const closers: (() => Promise<void>)[] = []
  let closing: Promise<void> | undefined
  const close = () => closing ??= closeAll(closers)
  try {
    return { ...await start(options, (closer) => closers.unshift(closer)), close }
  } catch (error) {
    await close()
    throw error
  }
}

async function start(
  options: StackOptions,
  closeLater: (closer: () => Promise<void>) => void,
): Promise<Omit<Stack, 'close'>> {
  const { project, databaseUrl } = options
  const payments = await startPayments({ port: options.paymentsPort ?? 0 })
  closeLater(() => payments.close())

  let page = () => Promise.resolve(platformError('SERVICE_UNAVAILABLE', 'The local stack is starting'))
  const gateway = startGateway({ port: options.port, page: () => page() })
  closeLater(() => gateway.close())

  const host = await startFunctionsHost({
    project,
    isolates: options.isolates,
    jwtSecret: localKeys.jwtSecret,
    limits: options.limits,
    onLog: options.onLog,
    watch: options.watch,
    env: {
      ...await platformEnvironment({
        url: gateway.url,
        databaseUrl,
        publishableKey: localKeys.publishable,
        secretKey: localKeys.secret,
        jwtSecret: localKeys.jwtSecret,
      }),
      PAYMENTS_URL: payments.url,
      ...options.env,
    },
  })
  closeLater(() => host.close())

  const backend = await startBackend(options, gateway.url, closeLater)
  gateway.open([
    { prefix: '/functions/v1', strip: '/functions/v1', fetch: (request) => host.fetch(request) },
    { prefix: '/auth/v1', strip: '', fetch: backend.fetch },
    { prefix: '/rest/v1', strip: '', fetch: backend.fetch },
  ])
  // Once more, as what was started last closes first: nobody shall come in while the parts behind it close.
  closeLater(() => gateway.close())
  page = async () =>
    renderPage({
      url: gateway.url,
      databaseUrl,
      paymentsUrl: payments.url,
      publishableKey: localKeys.publishable,
      functions: host.functions().map((config) => ({
        config,
        isolates: host.isolates().filter((isolate) => isolate.function === config.name).length,
      })),
      health: [
        ...await backend.health(),
        await probe('Payments stand-in', () => expectOk(`${payments.url}/_control`)),
      ],
    })
  return {
    url: gateway.url,
    functionsUrl: `${gateway.url}/functions/v1`,
    paymentsUrl: payments.url,
    databaseUrl,
    port: gateway.port,
    host,
  }
}

/** What answers `/auth/v1` and `/rest/v1`. */
interface Backend {
  fetch: Route['fetch']
  health(): Promise<Health[]>
}

/** Auth and REST, with the platform's background work beside them; or the way to someone else's. */
async function startBackend(
  { adminUrl, apiUrl, cron = 'database', onLog = () => {} }: StackOptions,
  url: string,
  closeLater: (closer: () => Promise<void>) => void,
): Promise<Backend> {
  if (adminUrl === undefined) return forwardTo(apiUrl)
  const api = await startApi({
    adminUrl,
    url,
    publishableKey: localKeys.publishable,
    secretKey: localKeys.secret,
    jwtSecret: localKeys.jwtSecret,
    onLog: (line) =>
      onLog({ function: '', isolate: '', stream: 'stderr', text: `API: ${line}`, at: new Date() }),
  })
  closeLater(() => api.close())
  await storeVaultSecrets(adminUrl, { holdfast_url: url, holdfast_secret_key: localKeys.secret })
  const net = await startNetWorker({ adminUrl })
  closeLater(() => net.close())
  if (cron === 'runner') {
    const { startCronRunner } = await import('./postgres/cronRunner.ts')
    const runner = await startCronRunner({ adminUrl })
    closeLater(() => runner.close())
  }
  return {
    fetch: (request, peerAddress) => api.fetch(request, peerAddress),
    health: async () => [await probe('Database', () => api.ping())],
  }
}

/** Hands requests on to a Supabase that runs elsewhere. */
function forwardTo(apiUrl: string | undefined): Backend {
  if (apiUrl === undefined) {
    return {
      fetch: () => Promise.resolve(platformError('NOT_IMPLEMENTED', 'No API is known for this database')),
      health: () => Promise.resolve([]),
    }
  }
  return {
    async fetch(request) {
      const { pathname, search } = new URL(request.url)
      try {
        return await fetch(`${apiUrl}${pathname}${search}`, {
          method: request.method,
          headers: request.headers,
          body: request.body,
          redirect: 'manual',
          signal: request.signal,
        })
      } catch (error) {
        return platformError('SERVICE_UNAVAILABLE', `The API at ${apiUrl} does not answer: ${String(error)}`)
      }
    },
    health: async () => [await probe('API', () => expectOk(`${apiUrl}/auth/v1/health`))],
  }
}

async function probe(name: string, ask: () => Promise<unknown>): Promise<Health> {
  const started = performance.now()
  try {
    await ask()
    return { name, healthy: true, detail: `${Math.round(performance.now() - started)} ms` }
  } catch (error) {
    return { name, healthy: false, detail: error instanceof Error ? error.message : String(error) }
  }
}

async function expectOk(url: string): Promise<void> {
  const response = await fetch(url, {
    headers: { apikey: localKeys.publishable },
    signal: AbortSignal.timeout(2_000),
  })
  await response.body?.cancel()
  if (!response.ok) throw new Error(`status ${response.status}`)
}

/** In reverse order of their start; one that fails does not keep the others open. */
async function closeAll(closers: (() => Promise<void>)[]): Promise<void> {
  const failures: unknown[] = []
  for (const closer of closers) await closer().catch((error) => failures.push(error))
  if (failures.length > 0) throw new AggregateError(failures, 'Cannot stop the local stack cleanly')
}

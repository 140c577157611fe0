/**
 * The functions host: serves a project's functions as the platform does, each in processes of its own, so that
 * nothing one function does can reach another.
 */
import { LocalError } from '../errors.ts'
import type { FunctionConfig, Project } from '../project.ts'
import { readFunctions } from '../project.ts'
import { openControlServer } from './controlServer.ts'
import type { Parcel } from './delivery.ts'
import { readSecrets } from './environment.ts'
import type { IsolateSurroundings } from './isolate.ts'
import type { HostLimits } from './limits.ts'
import { hostedLimits, LimitWatch } from './limits.ts'
import { platformError } from './platformError.ts'
import { Pool } from './pool.ts'
import { startReaper } from './reaper.ts'
import { ReplayableBody } from './replayableBody.ts'
import { makeSocketDirectory } from './socketDirectory.ts'
import { refuseInvalidJwt } from './verifyJwt.ts'
import type { ChangeWatch } from './watch.ts'
import { watchFunctions } from './watch.ts'

export type { HostLimits } from './limits.ts'

export interface LogLine {
  function: string
  /** Empty where the line is about the function rather than one of its isolates. */
  isolate: string
  stream: 'stdout' | 'stderr' | 'host'
  text: string
  at: Date
}

export interface FunctionsHostOptions {
  project: Project
  /** Isolates of each function; requests go round. @default 1 */
  isolates?: number
  /** What every function sees beside its own secrets; see `platformEnvironment`. */
  env: Record<string, string>
  jwtSecret: string
  limits?: Partial<HostLimits>
  onLog?: (line: LogLine) => void
  /** Reloads functions when their files change. @default false */
  watch?: boolean
}

export interface IsolateInfo {
  function: string
  id: string
  pid: number
  inFlight: number
  startedAt: Date
}

export interface FunctionsHost {
  /**
   * Answers a request whose path is `/<function>/…`, as the function shall see it. Never rejects: what goes wrong is
   * answered as the platform would.
   */
  fetch(request: Request): Promise<Response>
  /** What is being served now. */
  functions(): FunctionConfig[]
  isolates(): IsolateInfo[]
  /** Ends every isolate, and leaves no process, socket, timer or file. */
  close(): Promise<void>
}

const methods = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS'

/** Reads the project's functions and serves them; isolates start with their first requests. */
export async function startFunctionsHost(options: FunctionsHostOptions): Promise<FunctionsHost> {
  const { project, jwtSecret, isolates: size = 1, onLog = () => {} } = options
  if (!Number.isInteger(size) || size < 1) {
    throw new RangeError(
      `Cannot start the functions host: isolates must be a positive whole number, received ${size}`,
    )
  }
  const limits: HostLimits = { ...hostedLimits, ...options.limits }
  const log = (name: string, isolate: string, stream: LogLine['stream'], text: string) => {
    onLog({ function: name, isolate, stream, text, at: new Date() })
  }
  let functions = await readFunctions(project)
  let secrets = await readSecrets(project, refuseSecret)

  const directory = await makeSocketDirectory()
  const surroundings: IsolateSurroundings = {
    project,
    limits,
    directory,
    control: openControlServer(directory),
    reaper: startReaper(directory),
    watch: new LimitWatch(limits),
  }
  let started = 0
  let version = 1
  let pools = openPools()
  const retired = new Set<Pool>()
  let closing: Promise<void> | undefined
  let reloading = Promise.resolve()
  let watcher: ChangeWatch | undefined
  try {
    if (options.watch === true) watcher = watchFunctions(project, functions, reload)
  } catch (error) {
    await close()
    throw error
  }

  function refuseSecret(name: string): void {
    log(
      '',
      '',
      'host',
      `supabase/functions/.env: ${name} is left out, the platform reserves SUPABASE_ for itself`,
    )
  }

  function openPools(): Map<string, Pool> {
    return new Map(
      functions.filter((one) => one.enabled).map((config) => [
        config.name,
        new Pool({
          ...surroundings,
          config,
          size,
          version: String(version),
          env: { ...secrets, ...options.env },
          nextId: () => `${config.name.slice(0, 20)}-${++started}`,
          log: (isolate, stream, text) => log(config.name, isolate, stream, text),
        }),
      ]),
    )
  }

  /** One after the other: what was read last stands. Files may be in any state meanwhile, which must not end us. */
  function reload(): void {
    reloading = reloading.then(async () => {
      if (closing !== undefined) return
      try {
        await replacePools()
      } catch (error) {
        const problem = error instanceof Error ? error.message : String(error)
        const fix = error instanceof LocalError ? ` ${error.fix}` : ''
        log('', '', 'host', `${problem}; the functions stay as they were.${fix}`)
      }
    })
  }

  async function replacePools(): Promise<void> {
    const found = await readFunctions(project)
    const foundSecrets = await readSecrets(project, refuseSecret)
    if (closing !== undefined) return
    watcher?.update(found)
    functions = found
    secrets = foundSecrets
    version += 1
    const old = pools
    pools = openPools()
    for (const pool of old.values()) void drain(pool)
    log('', '', 'host', 'functions reloaded')
  }

  async function drain(pool: Pool): Promise<void> {
    retired.add(pool)
    await pool.drain()
    retired.delete(pool)
  }

  async function answer(request: Request): Promise<Response> {
    const name = functionNameOf(request)
    const pool = name === undefined ? undefined : pools.get(name)
    if (pool === undefined) return notFound(name ?? 'the path names none')
    const unsupported = refuseUnsupported(request)
    if (unsupported !== undefined) return unsupported
    if (pool.config.verifyJwt && request.method !== 'OPTIONS') {
      const refusal = await refuseInvalidJwt(request.headers, jwtSecret)
      if (refusal !== undefined) return refusal
    }
    const parcel = parcelOf(request)
    let response = await pool.fetch(parcel)
    while (response === undefined) {
      const next = pools.get(pool.config.name)
      response = next === undefined ? notFound(pool.config.name) : await next.fetch(parcel)
    }
    return response
  }

  async function close(): Promise<void> {
    watcher?.close()
    await reloading
    await Promise.all([...pools.values(), ...retired].map((pool) => pool.close()))
    surroundings.watch.close()
    surroundings.control.close()
    await surroundings.reaper.close()
  }

  return {
    functions: () => functions,
    isolates: () =>
      [...pools.values(), ...retired].flatMap((pool) =>
        pool.isolates.map(({ id, pid, inFlight, startedAt }) => ({
          function: pool.config.name,
          id,
          pid,
          inFlight,
          startedAt,
        }))
      ),
    async fetch(request) {
      if (closing !== undefined) return platformError('SERVICE_UNAVAILABLE', 'The local stack is stopping')
      try {
        return await answer(request)
      } catch (error) {
        log('', '', 'host', `cannot answer ${request.method} ${request.url}: ${String(error)}`)
        return platformError('WORKER_ERROR', 'The functions host failed; see the log')
      }
    },
    close: () => closing ??= close(),
  }
}

function functionNameOf(request: Request): string | undefined {
  const segment = new URL(request.url).pathname.split('/')[1]
  return segment === undefined || segment === '' ? undefined : segment
}

function notFound(name: string): Response {
  return platformError('NOT_FOUND', `Requested function was not found: ${name}`)
}

/** What the platform refuses, and what a request that goes through `fetch` cannot carry. */
function refuseUnsupported(request: Request): Response | undefined {
  if (!methods.split(', ').includes(request.method)) {
    return platformError('METHOD_NOT_ALLOWED', `Functions take ${methods}, not ${request.method}`, {
      allow: methods,
    })
  }
  if (request.headers.get('upgrade')?.toLowerCase() === 'websocket') {
    return platformError('NOT_IMPLEMENTED', 'The local functions host does not carry WebSockets')
  }
  if (request.headers.has('trailer')) {
    return platformError('NOT_IMPLEMENTED', 'The local functions host does not carry HTTP trailers')
  }
  return undefined
}

/** Headers that speak of one connection only. */
const hopByHop = [
  'connection',
  'keep-alive',
  'te',
  'transfer-encoding',
  'upgrade',
  'expect',
  'proxy-connection',
]

function parcelOf(request: Request): Parcel {
  const forwarded = request.headers.get('x-forwarded-for')
  return {
    url: request.url.replace(/^https:/, 'http:'),
    method: request.method,
    headers: [...request.headers].filter(([name]) => !hopByHop.includes(name)),
    peerAddress: forwarded?.split(',').at(-1)?.trim() ?? '127.0.0.1',
    body: request.body === null ? undefined : new ReplayableBody(request.body),
    signal: request.signal,
  }
}

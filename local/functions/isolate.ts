/** One isolate: a process that serves one function from its boot to its end. */
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { FunctionConfig, Project } from '../project.ts'
import type { ControlServer } from './controlServer.ts'
import type { PackageSource } from './isolateProcess.ts'
import { spawnIsolate } from './isolateProcess.ts'
import type { HostLimits, LimitWatch, Watched } from './limits.ts'
import { retirementMs } from './limits.ts'
import { type LineSink, readLines, Tail } from './outputLines.ts'
import type { FromIsolate, RetireReason } from './protocol.ts'
import type { Reaper } from './reaper.ts'

/** How an isolate came to its end: on request, with its host, by its own fault, or over a limit. */
export type Ending =
  | { kind: 'retired' }
  | { kind: 'stopped' }
  | { kind: 'crash'; message: string }
  | { kind: 'limit'; message: string }

/** What all isolates of one host share. */
export interface IsolateSurroundings {
  project: Project
  limits: HostLimits
  directory: string
  control: ControlServer
  reaper: Reaper
  watch: LimitWatch
}

export interface IsolateOptions extends IsolateSurroundings {
  config: FunctionConfig
  id: string
  packages: PackageSource
  env: Record<string, string>
  log(stream: 'stdout' | 'stderr' | 'host', text: string): void
}

/** The function's code could not be brought to the point of serving. */
export class BootError extends Error {
  override readonly name = 'BootError'
  /** Somebody else ended the process: another attempt may well succeed. */
  readonly killed: boolean

  constructor(message: string, killed = false) {
    super(message)
    this.killed = killed
  }
}

export class Isolate implements Watched {
  readonly id: string
  readonly pid: number
  readonly startedAt = new Date()
  readonly client: Deno.HttpClient
  /** Resolves when requests can be handed over; rejects with {@linkcode BootError}. */
  readonly ready: Promise<void>
  /** Resolves when the process is gone and all it said has been heard. */
  readonly ended: Promise<Ending>
  /** Requests handed over whose responses are not yet fully sent. */
  inFlight = 0

  readonly #options: IsolateOptions
  readonly #process: Deno.ChildProcess
  readonly #errors = new Tail()
  readonly #boot = Promise.withResolvers<void>()
  readonly #hungUp = Promise.withResolvers<void>()
  readonly #started = new Map<string, () => void>()
  readonly #timers: ReturnType<typeof setTimeout>[] = []
  #pong = Promise.withResolvers<void>()
  #waiting = 0
  #accepting = true
  #connected = false
  #booted = false
  #bootMessage: string | undefined
  #verdict: Ending | undefined
  #retireReason: RetireReason | undefined

  constructor(options: IsolateOptions) {
    this.#options = options
    this.id = options.id
    const servePath = join(options.directory, options.id)
    options.control.register(options.id, {
      message: (message) => this.#hear(message),
      closed: () => this.#hungUp.resolve(),
    })
    this.#process = spawnIsolate({
      setup: {
        id: options.id,
        controlPath: options.control.path,
        servePath,
        entrypoint: pathToFileURL(options.config.entrypoint).href,
      },
      cwd: options.project.root,
      importMap: options.config.importMap,
      packages: options.packages,
      memoryMb: options.limits.memoryMb,
      env: options.env,
    })
    this.pid = this.#process.pid
    options.reaper.watch(this.pid)
    options.watch.add(this)
    this.client = Deno.createHttpClient({ proxy: { transport: 'unix', path: servePath } })
    this.#schedule(options.limits.bootMs, () => this.#bootTimedOut())
    this.ready = this.#boot.promise
    this.ready.catch(() => {})
    this.ended = this.#end(servePath)
  }

  /** It has been ready to serve at some time. */
  get booted(): boolean {
    return this.#booted
  }

  /** New requests may be handed over. */
  get accepting(): boolean {
    return this.#accepting
  }

  get busy(): boolean {
    return this.inFlight > 0 || this.#waiting > 0
  }

  /** Calls back when the isolate reports that it has begun with this request. */
  expect(deliveryId: string, started: () => void): void {
    this.#started.set(deliveryId, started)
  }

  forget(deliveryId: string): void {
    this.#started.delete(deliveryId)
    this.#leaveIfRetired()
  }

  /** Nobody waits for this answer any more. */
  abandon(deliveryId: string): void {
    this.#options.control.send(this.id, { type: 'abandoned', id: deliveryId })
  }

  /** Takes no more requests; ends when what is under way, background work included, has finished. */
  retire(reason: RetireReason): void {
    this.#accepting = false
    this.#retireReason ??= reason
    this.#leaveIfRetired()
  }

  /** Ends the process at once. The first verdict stands. */
  kill(verdict: Ending): void {
    this.#accepting = false
    this.#verdict ??= verdict
    try {
      this.#process.kill('SIGKILL')
    } catch {
      // It has ended by itself.
    }
  }

  ping(): Promise<void> | undefined {
    this.#pong = Promise.withResolvers<void>()
    return this.#options.control.send(this.id, { type: 'ping' }) ? this.#pong.promise : undefined
  }

  exceeded(message: string): void {
    this.kill({ kind: 'limit', message })
  }

  #hear(message: FromIsolate): void {
    this.#connected = true
    switch (message.type) {
      case 'hello':
        return
      case 'ready':
        return this.#serveUntilWallClock()
      case 'bootError':
        this.#bootMessage = this.#readable(message.message)
        return
      case 'started':
        return this.#started.get(message.id)?.()
      case 'waiting':
        this.#waiting = message.count
        return
      case 'pong':
        return this.#pong.resolve()
    }
  }

  #serveUntilWallClock(): void {
    const { limits } = this.#options
    this.#clearTimers()
    const age = Date.now() - this.startedAt.getTime()
    this.#schedule(limits.wallClockMs - retirementMs(limits) - age, () => this.retire('wall_clock'))
    this.#schedule(limits.wallClockMs - age, () => {
      this.kill({
        kind: 'limit',
        message: `it reached its wall clock limit of ${limits.wallClockMs / 1000} s`,
      })
    })
    this.#booted = true
    this.#boot.resolve()
  }

  #bootTimedOut(): void {
    this.#bootMessage ??= `it was not ready to serve after ${this.#options.limits.bootMs / 1000} s`
    this.kill({ kind: 'crash', message: 'its boot took too long' })
  }

  #leaveIfRetired(): void {
    if (this.#retireReason === undefined || this.inFlight > 0) return
    this.#verdict ??= { kind: 'retired' }
    const asked = this.#options.control.send(this.id, { type: 'retire', reason: this.#retireReason })
    if (!asked) this.kill({ kind: 'retired' })
  }

  async #end(servePath: string): Promise<Ending> {
    const { control, reaper, watch, log } = this.#options
    const stderr: LineSink = (line) => {
      this.#errors.push(line)
      if (!ourFrame.test(line)) log('stderr', line)
    }
    const output = Promise.all([
      readLines(this.#process.stdout, (line) => log('stdout', line)),
      readLines(this.#process.stderr, stderr),
    ])
    const status = await this.#process.status
    this.#accepting = false
    reaper.release(this.pid)
    watch.remove(this)
    this.#clearTimers()
    await output
    // What it said last may still be on its way: why it could not start, above all.
    if (!this.#connected) await control.catchUp()
    if (this.#connected) await this.#hungUp.promise
    control.forget(this.id)
    this.client.close()
    await Deno.remove(servePath).catch(() => {})
    const ending = this.#verdict ??
      explainExit(status, this.#readable(this.#errors.uncaught() ?? ''), this.#errors)
    const killed = this.#verdict === undefined && status.signal === 'SIGKILL'
    this.#boot.reject(new BootError(this.#bootMessage ?? messageOf(ending), killed))
    return ending
  }

  /** File URLs of the project as the paths one would open. */
  #readable(text: string): string {
    return text.replaceAll(`file://${this.#options.project.root}/`, '')
  }

  #schedule(ms: number, action: () => void): void {
    this.#timers.push(setTimeout(action, Math.max(0, ms)))
  }

  #clearTimers(): void {
    for (const timer of this.#timers.splice(0)) clearTimeout(timer)
  }
}

/** Lines of a stack trace that are about the runtime around the function. */
const ourFrame = /^\s+at .*\/local\/functions\/runtime\.ts:\d+:\d+/

/** What the log and the answers say of an ending. */
export function messageOf(ending: Ending): string {
  if (ending.kind === 'retired') return 'it was retired'
  return ending.kind === 'stopped' ? 'the local stack was stopped' : ending.message
}

function explainExit(status: Deno.CommandStatus, uncaught: string, errors: Tail): Ending {
  if (errors.has(/^# Fatal .*out of memory|Reached heap limit/)) {
    return { kind: 'limit', message: 'it ran out of heap memory' }
  }
  if (uncaught !== '') return { kind: 'crash', message: uncaught }
  return {
    kind: 'crash',
    message: status.signal === null
      ? `it exited with code ${status.code}`
      : `it was ended by ${status.signal}`,
  }
}

/**
 * The one process that owns a stack from start to stop: holds the lock, tells the state, obeys signals (SIGINT, SIGTERM
 * and SIGHUP stop it, a second one at once; SIGUSR2 resets the database) and starts PostgreSQL again should it die.
 */
import { LocalError } from '../errors.ts'
import type { ProgressDisplay } from '../progress.ts'
import {
  lockStack,
  processStartOf,
  removeState,
  type StackReport,
  type StackState,
  writeState,
} from '../state.ts'
import { bringUp, type BringUpOptions, StackParts } from './bringUp.ts'
import type { LogEntry } from './logFiles.ts'

export interface SuperviseOptions extends Omit<BringUpOptions, 'onLog'> {
  mode: StackState['mode']
  progress: ProgressDisplay
  /** Each time the stack has become ready: at the start, and after a reset. */
  onReady: (report: StackReport) => void
  /** A reset failed: nothing is served until another one succeeds. */
  onResetFailure: (error: unknown) => void
  onLog: (entry: LogEntry) => void
}

/** Ctrl-C arrives several times at once (from the terminal, from npm, from run.mjs): within this it is one. */
const sameSignalMs = 1_000
/** A stop that takes longer is forced. */
const stopLimitMs = 20_000
const databaseCheckMs = 2_000

type Wish = 'stop' | 'reset' | 'mendDatabase'

/**
 * Runs the stack until it is asked to stop. False when another process runs one in this local directory already.
 * Whatever happens, nothing that it started is left running.
 */
export async function supervise(options: SuperviseOptions): Promise<boolean> {
  const lock = await lockStack(options.project.localDir)
  if (lock === undefined) return false
  const supervisor = new Supervisor(options)
  try {
    await supervisor.run()
    return true
  } finally {
    lock.release()
  }
}

class Supervisor {
  readonly #options: SuperviseOptions
  readonly #stopping = new AbortController()
  readonly #wishes = new Set<Wish>()
  #woken = Promise.withResolvers<void>()
  #parts = new StackParts()
  #state: StackState | undefined
  #stopAskedAt = 0
  #uncaught: unknown

  constructor(options: SuperviseOptions) {
    this.#options = options
  }

  async run(): Promise<void> {
    const release = this.#listen()
    try {
      await this.#writeState({ phase: 'starting' })
      await this.#bringUp(this.#options.launchedAt)
      await this.#obey()
    } catch (error) {
      // Asked to stop before it was ready: that it broke off is what was wanted.
      if (!this.#stopping.signal.aborted) throw error
    } finally {
      await this.#stop()
      release()
    }
    if (this.#uncaught !== undefined) throw this.#uncaught
  }

  /** One wish after the other, in the order of their weight. */
  async #obey(): Promise<void> {
    const check = setInterval(() => void this.#checkDatabase(), databaseCheckMs)
    try {
      while (!this.#stopping.signal.aborted) {
        if (this.#wishes.delete('reset')) await this.#reset()
        else if (this.#wishes.delete('mendDatabase')) await this.#mendDatabase()
        else await this.#woken.promise
        this.#woken = Promise.withResolvers()
        if (this.#wishes.size > 0) this.#woken.resolve()
      }
    } finally {
      clearInterval(check)
    }
  }

  #wish(wish: Wish): void {
    if (wish === 'stop') {
      this.#stopping.abort(new LocalError('Stopped', { fix: 'Start again with npm start.' }))
    } else this.#wishes.add(wish)
    this.#woken.resolve()
  }

  async #bringUp(launchedAt: number): Promise<void> {
    const { progress, onReady } = this.#options
    const report = await bringUp(
      { ...this.#options, launchedAt },
      this.#parts,
      progress,
      this.#stopping.signal,
    )
    await this.#writeState({
      phase: 'ready',
      generation: this.#nextGeneration(),
      report,
      resetFailure: undefined,
    })
    onReady(report)
  }

  async #reset(): Promise<void> {
    const launchedAt = Date.now()
    const old = this.#parts
    try {
      await this.#writeState({ phase: 'resetting' })
      await old.close()
      this.#parts = new StackParts()
      await old.cluster?.destroy()
      await this.#bringUp(launchedAt)
    } catch (error) {
      if (this.#stopping.signal.aborted) throw error
      this.#options.progress.fail()
      await this.#parts.close()
      const { message, where, fix } = asFailure(error)
      await this.#writeState({
        phase: 'failed',
        generation: this.#nextGeneration(),
        resetFailure: { message, where, fix },
      })
      this.#options.onResetFailure(error)
    }
  }

  #nextGeneration(): number {
    return (this.#state?.generation ?? 0) + 1
  }

  async #checkDatabase(): Promise<void> {
    if (this.#state?.phase !== 'ready') return
    if (await this.#parts.cluster?.running() === false) this.#wish('mendDatabase')
  }

  async #mendDatabase(): Promise<void> {
    const cluster = this.#parts.cluster
    if (cluster === undefined || await cluster.running()) return
    this.#log('PostgreSQL has ended unexpectedly; starting it again')
    await cluster.start()
    this.#log('PostgreSQL runs again')
  }

  async #stop(): Promise<void> {
    const limit = setTimeout(() => void this.#force('it did not stop in time'), stopLimitMs)
    try {
      if (this.#parts.stack !== undefined) await this.#writeState({ phase: 'stopping' })
      await this.#parts.close()
      await removeState(this.#options.project.localDir)
    } finally {
      clearTimeout(limit)
    }
  }

  /** Ends this process without waiting for anybody but the operating system. */
  async #force(reason: string): Promise<never> {
    this.#log(`Forced to stop: ${reason}`)
    await this.#parts.kill()
    Deno.exit(1)
  }

  #listen(): () => void {
    const onStop = () => {
      const again = this.#stopping.signal.aborted
      if (!again) this.#stopAskedAt = Date.now()
      else if (Date.now() - this.#stopAskedAt > sameSignalMs) void this.#force('asked twice')
      this.#wish('stop')
    }
    const onReset = () => this.#wish('reset')
    const onRejection = (event: PromiseRejectionEvent) => {
      // A library's forgotten promise (a connection that was cut, say) is no reason to end everything.
      event.preventDefault()
      this.#log(`Unhandled rejection: ${describe(event.reason)}`)
    }
    const onError = (event: ErrorEvent) => {
      // Nobody knows what state an uncaught error leaves: end, but in order, with the database closed.
      event.preventDefault()
      this.#log(`Uncaught: ${describe(event.error)}`)
      this.#uncaught ??= event.error
      this.#wish('stop')
    }
    for (const name of stopSignals) Deno.addSignalListener(name, onStop)
    Deno.addSignalListener('SIGUSR2', onReset)
    globalThis.addEventListener('error', onError)
    globalThis.addEventListener('unhandledrejection', onRejection)
    const orphaned = this.#options.mode === 'foreground' ? whenOrphaned(() => this.#wish('stop')) : undefined
    return () => {
      for (const name of stopSignals) Deno.removeSignalListener(name, onStop)
      Deno.removeSignalListener('SIGUSR2', onReset)
      globalThis.removeEventListener('unhandledrejection', onRejection)
      globalThis.removeEventListener('error', onError)
      clearInterval(orphaned)
    }
  }

  #log(text: string): void {
    this.#options.onLog({ name: 'stack', text, at: new Date(), stream: 'host' })
  }

  async #writeState(change: Partial<StackState>): Promise<void> {
    const { project, mode } = this.#options
    this.#state = {
      pid: Deno.pid,
      processStart: await processStartOf(Deno.pid) ?? '',
      mode,
      phase: 'starting',
      generation: 0,
      startedAt: new Date().toISOString(),
      ...this.#state,
      ...change,
    }
    await writeState(project.localDir, this.#state)
  }
}

const stopSignals: Deno.Signal[] = ['SIGINT', 'SIGTERM', 'SIGHUP']

/** A launcher that was killed cannot tell us to stop: without it nobody waits for us, and Ctrl-C would not reach us. */
function whenOrphaned(stop: () => void): ReturnType<typeof setInterval> {
  const parent = Deno.ppid
  return setInterval(() => {
    if (Deno.ppid !== parent) stop()
  }, 1_000)
}

function asFailure(error: unknown): { message: string; where?: string; fix?: string } {
  if (error instanceof LocalError) return { message: error.message, where: error.where, fix: error.fix }
  return { message: error instanceof Error ? error.message : String(error) }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.stack ?? error.message : Deno.inspect(error)
}

/** All isolates of one function in one version of its code. */
import { LocalError } from '../errors.ts'
import type { FunctionConfig } from '../project.ts'
import { deliver, type Parcel } from './delivery.ts'
import { BootError, Isolate, type IsolateSurroundings, messageOf } from './isolate.ts'
import type { PackageSource } from './isolateProcess.ts'
import { choosePackages } from './packages.ts'
import { platformError } from './platformError.ts'

export interface PoolOptions extends IsolateSurroundings {
  config: FunctionConfig
  /** How many isolates take turns. */
  size: number
  /** Names this version of the code, for `DENO_DEPLOYMENT_ID`. */
  version: string
  env: Record<string, string>
  nextId(): string
  log(isolate: string, stream: 'stdout' | 'stderr' | 'host', text: string): void
}

/** How many isolates may end under a request before it had begun, until we stop offering it. */
const maxOffers = 5

export class Pool {
  readonly config: FunctionConfig
  readonly #options: PoolOptions
  /** Isolates that take requests, by their turn. */
  readonly #slots: (Isolate | undefined)[]
  readonly #living = new Set<Isolate>()
  #turn = 0
  #packages: Promise<PackageSource> | undefined
  #lastBootError = ''
  #draining = false
  #closed = false

  constructor(options: PoolOptions) {
    this.#options = options
    this.config = options.config
    this.#slots = Array.from({ length: options.size })
  }

  get isolates(): Isolate[] {
    return [...this.#living]
  }

  /**
   * Answers the request by the isolate whose turn it is; starts that one if need be. Undefined when this version was
   * replaced before the request began: the next version shall answer it.
   */
  async fetch(parcel: Parcel): Promise<Response | undefined> {
    const turn = this.#turn++ % this.#slots.length
    for (let offer = 0; offer < maxOffers && !this.#closed; offer += 1) {
      let isolate: Isolate
      try {
        isolate = await this.#isolate(turn)
      } catch (error) {
        if (this.#draining) return undefined
        if (error instanceof BootError && (error.killed || await this.#fetchesInstead(error))) continue
        if (error instanceof BootError || error instanceof LocalError) return this.#bootError(error)
        throw error
      }
      const response = await deliver(parcel, isolate, this.#options.limits)
      if (response !== undefined) return response
    }
    if (this.#closed) return platformError('SERVICE_UNAVAILABLE', 'The local stack is stopping')
    return platformError(
      'WORKER_ERROR',
      `The function's isolates ended ${maxOffers} times before the request began`,
    )
  }

  /** This version is replaced: its isolates finish what is under way, then end. Resolves when all have. */
  async drain(): Promise<void> {
    this.#draining = true
    for (const isolate of this.#living) isolate.retire('termination')
    await Promise.all([...this.#living].map((isolate) => isolate.ended))
  }

  /** Ends every isolate at once and resolves when all are gone. */
  async close(): Promise<void> {
    this.#closed = true
    const living = [...this.#living]
    if (Deno.env.has('DENO_COVERAGE_DIR')) await leaveInGoodOrder(living)
    for (const isolate of living) isolate.kill({ kind: 'stopped' })
    await Promise.all(living.map((isolate) => isolate.ended))
  }

  async #isolate(turn: number): Promise<Isolate> {
    this.#packages ??= choosePackages(this.config.importMap, (text) => this.#options.log('', 'host', text))
    const packages = await this.#packages
    let isolate = this.#slots[turn]
    if (isolate === undefined || !isolate.accepting) isolate = this.#slots[turn] = this.#start(packages)
    await isolate.ready
    // It may have been retired while we waited; then it is the next one's turn.
    return isolate.accepting ? isolate : await this.#isolate(turn)
  }

  /** An `npm:` import in the code itself may not be in `node_modules`, whatever the import map says. */
  async #fetchesInstead(error: BootError): Promise<boolean> {
    if (await this.#packages !== 'node_modules' || !/node_modules/.test(error.message)) return false
    this.#options.log('', 'host', 'a package is not in node_modules; Deno fetches the packages itself')
    this.#packages = Promise.resolve('cache')
    return true
  }

  #start(packages: PackageSource): Isolate {
    const { nextId, log, config, version, env } = this.#options
    if (this.#closed || this.#draining) throw new BootError('the functions host is replacing or ending it')
    const id = nextId()
    const isolate = new Isolate({
      ...this.#options,
      id,
      packages,
      env: {
        ...env,
        SUPABASE_FUNCTION_SLUG: config.name,
        SB_EXECUTION_ID: crypto.randomUUID(),
        DENO_DEPLOYMENT_ID: `local_${config.name}_${version}`,
      },
      log: (stream, text) => log(id, stream, text),
    })
    this.#living.add(isolate)
    isolate.ready.then(() => {
      log(
        id,
        'host',
        `isolate ${id} is ready (process ${isolate.pid}, ${Date.now() - isolate.startedAt.getTime()} ms)`,
      )
    }, () => {})
    void isolate.ended.then((ending) => {
      this.#living.delete(isolate)
      if (isolate.booted && ending.kind !== 'retired' && !this.#closed) {
        log(id, 'host', `isolate ${id} ended: ${messageOf(ending)}`)
      }
    })
    return isolate
  }

  #bootError(error: BootError | LocalError): Response {
    const message = `Function "${this.config.name}" failed to start: ${error.message}`
    if (message !== this.#lastBootError) this.#options.log('', 'host', message)
    this.#lastBootError = message
    return platformError('BOOT_ERROR', message)
  }
}

/** Deno writes the coverage of a process that ends by itself; one that is killed has shown nothing. */
async function leaveInGoodOrder(isolates: Isolate[]): Promise<void> {
  for (const isolate of isolates) isolate.retire('termination')
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, 2_000))
  await Promise.race([Promise.all(isolates.map((isolate) => isolate.ended)), late])
  clearTimeout(timer)
}

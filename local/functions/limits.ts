/** What the platform allows an isolate, and the watch that finds out when it takes more. */
import { readProcessUsage } from './processUsage.ts'

export interface HostLimits {
  /** Memory of one isolate, V8's heap and everything outside it, in MiB. @default 256 */
  memoryMb: number
  /** Life of an isolate, background work included. @default 400000 */
  wallClockMs: number
  /** Time to the first byte of a response. @default 150000 */
  requestIdleMs: number
  /** Unbroken computing, during which the event loop answers nobody. @default 2000 */
  cpuMs: number
  /** Time from the start of the process to being ready to serve. @default 30000 */
  bootMs: number
}

/** As hosted Supabase has them (paid plan's wall clock). */
export const hostedLimits: HostLimits = {
  memoryMb: 256,
  wallClockMs: 400_000,
  requestIdleMs: 150_000,
  cpuMs: 2_000,
  bootMs: 30_000,
}

/** How long before its end an isolate takes no more requests, so that those under way can finish. */
export function retirementMs(limits: HostLimits): number {
  return Math.min(30_000, limits.wallClockMs * 0.2)
}

export interface Watched {
  readonly pid: number
  /** Something is under way: requests, or work that was handed to `waitUntil`. */
  readonly busy: boolean
  /** Asks the event loop for an answer; resolves when it comes. Undefined while nobody is there to be asked. */
  ping(): Promise<void> | undefined
  exceeded(message: string): void
}

/** How often a busy isolate is looked at; an idle one every tenth time. */
const lookEveryMs = 100

/** Watches memory and event loop of isolates until it is closed. */
export class LimitWatch {
  readonly #limits: HostLimits
  readonly #watched = new Map<Watched, { pingedAtCpuMs: number | undefined }>()
  #timer: ReturnType<typeof setTimeout> | undefined
  #round = 0
  #closed = false

  constructor(limits: HostLimits) {
    this.#limits = limits
  }

  add(isolate: Watched): void {
    this.#watched.set(isolate, { pingedAtCpuMs: undefined })
    if (!this.#closed) this.#timer ??= setTimeout(() => void this.#look(), lookEveryMs)
  }

  remove(isolate: Watched): void {
    this.#watched.delete(isolate)
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#watched.clear()
  }

  async #look(): Promise<void> {
    this.#round += 1
    const due = [...this.#watched.keys()].filter((isolate) => isolate.busy || this.#round % 10 === 0)
    await Promise.all(due.map((isolate) => this.#check(isolate)))
    const wanted = !this.#closed && this.#watched.size > 0
    this.#timer = wanted ? setTimeout(() => void this.#look(), lookEveryMs) : undefined
  }

  async #check(isolate: Watched): Promise<void> {
    const usage = await readProcessUsage(isolate.pid)
    const state = this.#watched.get(isolate)
    if (usage === undefined || state === undefined) return
    const { memoryMb, cpuMs } = this.#limits
    if (usage.memoryBytes > memoryMb * 1024 * 1024) {
      isolate.exceeded(`it used more than ${memoryMb} MB of memory`)
    } else if (state.pingedAtCpuMs === undefined) {
      const answer = isolate.ping()
      if (answer === undefined) return
      state.pingedAtCpuMs = usage.cpuMs
      void answer.then(() => state.pingedAtCpuMs = undefined)
    } else if (usage.cpuMs - state.pingedAtCpuMs > cpuMs) {
      isolate.exceeded(`it computed for more than ${cpuMs} ms without returning to its event loop`)
    }
  }
}

/**
 * When the breakers of one isolate talk to their store: all of them in one trip, one trip at a time, at once when
 * something happened and otherwise at most every `refreshMs`. Calls start it; nothing runs while there are none.
 */
import type { Logger } from '../../observability/logger.ts'
import { count } from '../../observability/metrics.ts'
import { BackgroundWork } from '../backgroundWork.ts'
import type { BreakerView, ProbeRight } from './breakerView.ts'
import type { BreakerReport, BreakerStatus, BreakerStore } from '../stores/breakerStore.ts'
import type { Timers } from '../timers.ts'

/** Undefined: there is none, each isolate is on its own. */
export type StoreSource = () => Promise<BreakerStore | undefined>

export interface ExchangeOptions {
  /** Undefined: there is no store. */
  store: StoreSource | undefined
  refreshMs: number
  timers: Timers
  log: () => Logger
}

/** Reports that travel with somebody's trip to the store. One of `arrived`, `failed` and `end` ends it. */
export interface BreakerTrip {
  readonly reports: BreakerReport[]
  /** In the order of the reports. */
  arrived(statuses: readonly BreakerStatus[]): void
  failed(error: unknown): void
  /** Nobody listened, though the store is there: what was to be told is told with the next trip. */
  end(): void
}

type Asker = (right: ProbeRight | undefined) => void

/** A trip without an answer after this time is given up; the store counts as away, and a later answer for nothing. */
const patienceMs = 2_000
/** What a call waits for the store at most, where it has to wait at all. */
const waitMs = 500
/** Breakers in one trip. */
const mostReports = 500

export class BreakerExchange {
  /** A call that begins at that time or later must `look`. */
  dueAt: number
  readonly #views: Map<string, BreakerView> = new Map()
  readonly #options: ExchangeOptions
  readonly #background = new BackgroundWork()
  /** Between trips that failures cause. */
  readonly #paceMs: number
  readonly #firsts = new Map<BreakerView, Promise<void>>()
  readonly #askers = new Map<BreakerView, Asker>()
  #store: Promise<BreakerStore | undefined> | undefined
  #trip: Trip | undefined
  #lastTripAt = -Infinity
  #timer: unknown
  #away = false
  #alone: boolean

  constructor(options: ExchangeOptions) {
    this.#options = options
    this.#paceMs = Math.min(options.refreshMs / 10, 100)
    this.#alone = options.store === undefined
    this.dueAt = this.#alone ? Infinity : -Infinity
  }

  add(view: BreakerView): void {
    this.#views.set(view.name, view)
  }

  /** Each breaker decides by itself: there is no store, or it is away. */
  get isLocal(): boolean {
    return this.#alone || this.#away
  }

  get isAlone(): boolean {
    return this.#alone
  }

  /** Sends what there is, if nothing is on its way. */
  look(now: number): void {
    if (this.#trip !== undefined) {
      this.dueAt = now + patienceMs
      if (now - this.#trip.startedAt < patienceMs) return
      this.#trip.failed(lateAnswer())
      if (this.#trip !== undefined) return
    }
    if (!this.#send(now)) this.dueAt = now + this.#options.refreshMs
  }

  /** Something happened. Sent at once where it matters to all, else together with what follows it closely. */
  tell(view: BreakerView): void {
    if (this.isLocal || this.#trip !== undefined) return
    const now = this.#options.timers.now()
    const inMs = view.isUrgent ? 0 : this.#lastTripAt + this.#paceMs - now
    if (inMs <= 0) this.#send(now)
    else this.#timer ??= this.#options.timers.set(this.#sendNews, inMs)
  }

  /** Resolves when the store has spoken of it, or did not within `waitMs`. */
  first(view: BreakerView): Promise<void> {
    let first = this.#firsts.get(view)
    if (first === undefined) {
      const known = this.#trip?.views.includes(view) ? this.#trip.over : this.#nextTrip()
      first = this.#bounded(known).then(() => void this.#firsts.delete(view))
      this.#firsts.set(view, first)
    }
    return first
  }

  /**
   * Asks for the right to probe. Undefined when it is not granted, or not within `waitMs`: a right that comes later is
   * kept for the next call.
   */
  async ask(view: BreakerView): Promise<ProbeRight | undefined> {
    let right: ProbeRight | undefined
    const asker = (granted: ProbeRight | undefined) => {
      right = granted
    }
    this.#askers.set(view, asker)
    view.wantsProbe = true
    await this.#bounded(this.#nextTrip())
    if (this.#askers.get(view) === asker) this.#askers.delete(view)
    return right
  }

  /** Resolves when the store has heard what there is to tell, or cannot be reached, or after `waitMs`. */
  async told(): Promise<void> {
    if (!this.isLocal) await this.#bounded(this.#nextTrip())
  }

  /** For whoever makes a trip to the same database anyway: what is due, undefined when nothing is. */
  outgoing(): BreakerTrip | undefined {
    if (this.#alone || this.#trip !== undefined) return undefined
    const now = this.#options.timers.now()
    const stale = now - this.#options.refreshMs
    const views = this.#pick((view) => view.hasNews || view.heardAt <= stale)
    return views.length === 0 ? undefined : this.#begin(views, now)
  }

  /** Says it to the store, and rejects with the store's error when that cannot be done. */
  async force(view: BreakerView, to: 'open' | 'closed' | null, reason: string): Promise<void> {
    const { timers } = this.#options
    const store = await this.#storeOf()
    if (store === undefined) return view.force(to, reason, timers.now())
    for (let trip = this.#trip; trip !== undefined; trip = this.#trip) {
      await this.#bounded(trip.over, patienceMs)
      trip.failed(lateAnswer())
    }
    const turn = this.#begin([], timers.now())
    try {
      view.arrived(await store.force(view.name, to, reason, view.rules), timers.now())
    } finally {
      turn.end()
    }
  }

  /** Resolves when nothing is under way. */
  async settled(): Promise<void> {
    await this.#background.settled()
  }

  async close(): Promise<void> {
    this.#alone = true
    this.dueAt = Infinity
    if (this.#timer !== undefined) this.#options.timers.clear(this.#timer)
    await this.#bounded(this.#background.settled(), patienceMs)
    const store = await this.#store?.catch(() => undefined)
    await store?.close()
  }

  /** No more than fit into one trip, the urgent ones first. */
  #pick(matches: (view: BreakerView) => boolean): BreakerView[] {
    const views = [...this.#views.values()].filter(matches)
    if (views.length <= mostReports) return views
    return views.sort((a, b) => Number(b.isUrgent) - Number(a.isUrgent)).slice(0, mostReports)
  }

  /** The end of the trip that takes along all that is there now. */
  async #nextTrip(): Promise<void> {
    await this.#trip?.over
    if (this.#trip === undefined) this.#send(this.#options.timers.now())
    await this.#trip?.over
  }

  #bounded(promise: Promise<void>, ms = waitMs): Promise<void> {
    const { timers } = this.#options
    const { promise: bounded, resolve } = Promise.withResolvers<void>()
    const timer = timers.set(resolve, ms)
    void promise.then(() => {
      timers.clear(timer)
      resolve()
    })
    return bounded
  }

  /** False when there is nothing to say. */
  #send(now: number): boolean {
    const views = this.#alone ? [] : this.#pick((view) => view.touched || view.hasNews)
    if (views.length === 0) return false
    const trip = this.#begin(views, now)
    this.#background.add(this.#exchange(trip))
    return true
  }

  async #exchange(trip: Trip): Promise<void> {
    try {
      const store = await this.#storeOf()
      if (store === undefined) trip.end()
      else trip.arrived(await store.exchange(trip.reports))
    } catch (error) {
      trip.failed(error)
    }
  }

  async #storeOf(): Promise<BreakerStore | undefined> {
    if (this.#alone) return undefined
    try {
      const store = await (this.#store ??= this.#options.store!())
      if (store === undefined) this.#alone = true
      return store
    } catch (error) {
      this.#store = undefined
      throw error
    }
  }

  readonly #sendNews = () => {
    this.#timer = undefined
    if (!this.isLocal && this.#trip === undefined) this.#send(this.#options.timers.now())
  }

  #begin(views: BreakerView[], now: number): Trip {
    this.dueAt = now + patienceMs
    return this.#trip = new Trip(views, now, (trip, end) => this.#ended(trip, end))
  }

  #ended(trip: Trip, { statuses, error }: TripEnd): void {
    const now = this.#options.timers.now()
    if (statuses !== undefined) this.#back()
    else if (error !== undefined) this.#lost(error)
    trip.views.forEach((view, index) => {
      const status = statuses?.[index]
      let right: ProbeRight | undefined
      if (status === undefined) view.lost()
      else right = view.arrived(status, now)
      if (view.wantsProbe) return
      const asker = this.#askers.get(view)
      this.#askers.delete(view)
      if (asker !== undefined) asker(right)
      else if (right !== undefined) view.keepSpare(right, now)
    })
    // Not before: what they tell their observers may lead to calls.
    this.#trip = undefined
    this.#lastTripAt = trip.startedAt
    this.dueAt = this.#alone ? Infinity : Math.max(now, trip.startedAt + this.#options.refreshMs)
    if (this.isLocal) return
    if (this.#pick((view) => view.isUrgent).length > 0) this.#send(now)
    else if (this.#pick((view) => view.hasNews).length > 0) {
      this.#timer ??= this.#options.timers.set(this.#sendNews, this.#paceMs)
    }
  }

  #lost(error: unknown): void {
    count('circuit_breaker_exchanges_total', { outcome: 'failed' })
    if (this.#away) return
    this.#away = true
    this.#options.log().warn('Circuit breakers decide by themselves: their store is away', { error })
  }

  #back(): void {
    count('circuit_breaker_exchanges_total', { outcome: 'answered' })
    if (!this.#away) return
    this.#away = false
    this.#options.log().info('Circuit breakers share their state again')
  }
}

const lateAnswer = () => new Error(`no answer within ${patienceMs} ms`)

interface TripEnd {
  statuses?: readonly BreakerStatus[]
  error?: unknown
}

class Trip implements BreakerTrip {
  readonly reports: BreakerReport[]
  readonly views: readonly BreakerView[]
  readonly startedAt: number
  readonly over: Promise<void>
  #isOver = false
  readonly #tell: (trip: Trip, end: TripEnd) => void
  readonly #resolve: () => void

  constructor(views: readonly BreakerView[], now: number, tell: (trip: Trip, end: TripEnd) => void) {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.over = promise
    this.#resolve = resolve
    this.#tell = tell
    this.views = views
    this.startedAt = now
    this.reports = views.map((view) => view.report(now))
  }

  arrived(statuses: readonly BreakerStatus[]): void {
    const { length } = this.reports
    if (statuses.length === length) this.#end({ statuses })
    else this.failed(new Error(`${length} reports were answered with ${statuses.length} states`))
  }

  failed(error: unknown): void {
    this.#end({ error })
  }

  end(): void {
    this.#end({})
  }

  #end(end: TripEnd): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#tell(this, end)
    this.#resolve()
  }
}

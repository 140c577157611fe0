/** What a cache is made with, checked once. */
import type { Logger } from '../../observability/logger.ts'
import type { CacheStore } from '../stores/cacheStore.ts'
import { requireDuration, systemTimers, type Timers } from '../timers.ts'

/** How long a value may be served after it was loaded, by how often it changes. */
export const ttlByVolatility = {
  /** Changes with a deployment: a day. */
  static: 86_400_000,
  /** Somebody edits it now and then, as a product: ten minutes. */
  slow: 600_000,
  /** A minute. */
  normal: 60_000,
  /** Changes all the time, as a stock: five seconds. */
  fast: 5_000,
}

export type Volatility = keyof typeof ttlByVolatility

export interface CacheOptions<V> {
  /** Names it in metrics, logs and the shared tier: 1 to 63 of letters, digits, `.`, `_`, `:` and `-`. */
  name: string
  /** @default 'normal' */
  volatility?: Volatility
  /** In place of `volatility`, in milliseconds. */
  ttlMs?: number
  /** So long behind its time to live a value is served at once, while it is loaded anew. @default 0 */
  staleMs?: number
  /** So long behind its time to live a value is served when loading fails. @default 0 */
  staleIfErrorMs?: number
  /**
   * The last part of the time to live in which a hit loads the value anew in the background, from a moment that each
   * isolate draws by itself. In [0, 1]. @default 0.1
   */
  earlyRefresh?: number
  /** For how long it is remembered that there is none: a load that gave null or undefined. @default the ttl, at most 5_000 */
  negativeTtlMs?: number
  /** In this isolate's memory. @default 1_000 */
  maxEntries?: number
  /** Of all values in this isolate's memory, about: the length of their JSON. @default no bound */
  maxBytes?: number
  /** Where isolates share what they load. @default none */
  shared?: CacheStore
  /** With a shared tier: how long this isolate's copy is served before that is asked again. @default the ttl, at most 5_000 */
  localTtlMs?: number
  /**
   * Of the schema, now. Called with every get; must be quick and not throw. An entry is served only under the version
   * it was loaded under. While it gives undefined, the shared tier is left alone.
   */
  version?: () => string | undefined
  /** Checks or revives a value of the shared tier, given what `JSON.parse` made of it. What it throws makes it absent. */
  parse?: (json: unknown) => V
  /** Longest a load may take. @default 10_000 */
  loadTimeoutMs?: number
  /** With a shared tier: how long one isolate may load while the others wait for it. @default 2_000 */
  leaseMs?: number
  /** Longest the shared tier may take to answer. @default 1_000 */
  sharedTimeoutMs?: number
  /** @default the system's */
  timers?: Timers
  /** In [0, 1). @default Math.random */
  random?: () => number
  /** @default lines on standard output */
  log?: Logger
}

export interface CacheSettings<V> {
  name: string
  ttlMs: number
  staleMs: number
  staleIfErrorMs: number
  earlyRefresh: number
  negativeTtlMs: number
  maxEntries: number
  maxBytes: number
  shared: CacheStore | undefined
  localTtlMs: number
  version: (() => string | undefined) | undefined
  parse: ((json: unknown) => V) | undefined
  loadTimeoutMs: number
  leaseMs: number
  sharedTimeoutMs: number
  timers: Timers
  random: () => number
  log: Logger | undefined
}

/** `TypeError` or `RangeError` for what makes no sense. */
export function cacheSettings<V>(options: CacheOptions<V>): CacheSettings<V> {
  const { name, volatility, shared } = options
  if (typeof name !== 'string' || !/^[\w.:-]{1,63}$/.test(name)) {
    throw new TypeError(
      `Cannot make a cache: name must be 1 to 63 letters, digits and . _ : -, received ${
        JSON.stringify(name)
      }`,
    )
  }
  const ttlMs = ttlOf(options)
  const settings: CacheSettings<V> = {
    name,
    ttlMs,
    staleMs: options.staleMs ?? 0,
    staleIfErrorMs: options.staleIfErrorMs ?? 0,
    earlyRefresh: options.earlyRefresh ?? 0.1,
    negativeTtlMs: options.negativeTtlMs ?? Math.min(ttlMs, 5_000),
    maxEntries: options.maxEntries ?? 1_000,
    maxBytes: options.maxBytes ?? Infinity,
    shared,
    localTtlMs: shared === undefined ? Infinity : options.localTtlMs ?? Math.min(ttlMs, 5_000),
    version: options.version,
    parse: options.parse,
    loadTimeoutMs: options.loadTimeoutMs ?? 10_000,
    leaseMs: options.leaseMs ?? 2_000,
    sharedTimeoutMs: options.sharedTimeoutMs ?? 1_000,
    timers: options.timers ?? systemTimers,
    random: options.random ?? Math.random,
    log: options.log,
  }
  if (volatility !== undefined && options.ttlMs !== undefined) {
    throw new TypeError(`Cannot make the cache "${name}": volatility and ttlMs are both given`)
  }
  for (const option of ['localTtlMs', 'leaseMs', 'sharedTimeoutMs', 'parse'] as const) {
    if (shared === undefined && options[option] !== undefined) {
      throw new TypeError(`Cannot make the cache "${name}": ${option} is given without a shared tier`)
    }
  }
  const durations = { ttlMs, loadTimeoutMs: settings.loadTimeoutMs }
  const sharedDurations = {
    localTtlMs: settings.localTtlMs,
    leaseMs: settings.leaseMs,
    sharedTimeoutMs: settings.sharedTimeoutMs,
  }
  for (const [option, ms] of Object.entries({ ...durations, ...(shared && sharedDurations) })) {
    requireDuration(`Cannot make the cache "${name}": ${option}`, ms)
  }
  for (const option of ['staleMs', 'staleIfErrorMs', 'negativeTtlMs'] as const) {
    const ms = settings[option]
    if (ms !== 0) requireDuration(`Cannot make the cache "${name}": ${option}, where it is not 0,`, ms)
  }
  const { earlyRefresh } = settings
  if (!(typeof earlyRefresh === 'number' && earlyRefresh >= 0 && earlyRefresh <= 1)) {
    throw new RangeError(
      `Cannot make the cache "${name}": earlyRefresh must be in [0, 1], received ${earlyRefresh}`,
    )
  }
  requireCount(name, 'maxEntries', settings.maxEntries)
  if (options.maxBytes !== undefined) requireCount(name, 'maxBytes', options.maxBytes)
  return settings
}

function ttlOf<V>({ name, volatility = 'normal', ttlMs }: CacheOptions<V>): number {
  if (ttlMs !== undefined) return ttlMs
  if (Object.hasOwn(ttlByVolatility, volatility)) return ttlByVolatility[volatility]
  const known = Object.keys(ttlByVolatility).join(', ')
  throw new RangeError(
    `Cannot make the cache "${name}": volatility must be one of ${known}, received ${volatility}`,
  )
}

function requireCount(name: string, option: string, value: number): void {
  if (Number.isSafeInteger(value) && value > 0) return
  throw new RangeError(
    `Cannot make the cache "${name}": ${option} must be a positive whole number, received ${value}`,
  )
}

/** The environment of a function, read and validated once. No other file of the library reads variables. */
import { HoldfastError } from './errors.ts'

export interface Env {
  /** `https://<project>.supabase.co`, or the local API. */
  supabaseUrl?: string
  /**
   * Where SQL goes. `HOLDFAST_DB_URL` (set it to the pooler's transaction mode, port 6543, when many isolates
   * run) before the platform's `SUPABASE_DB_URL`.
   */
  databaseUrl?: string
  /** Named statements, which cost the server less and do not pass a pooler in transaction mode. */
  databasePrepare: boolean
  /** Keys a client may show in `apikey`, by name. */
  publishableKeys: Record<string, string>
  secretKeys: Record<string, string>
  /** Public keys that sign users' tokens. */
  jwks: { keys: Record<string, unknown>[] }
  /** Shared secret of projects that still sign with HS256. */
  jwtSecret?: string
  functionName: string
  region?: string
  /** Names this isolate in logs. */
  isolateId: string
  /** Origins that browsers may call from; `['*']` for any. */
  corsOrigins: string[]
  logLevel: 'debug' | 'info' | 'warn' | 'error'
  /** Where the keys of leased routes are kept. */
  idempotencyStore: 'postgres' | 'redis' | 'memory'
  /** Where rate limits are counted. Without a database, in the memory of each isolate. */
  rateLimitStore: 'postgres' | 'redis' | 'memory'
  /** For the stores that say `redis`. */
  redisUrl?: string
  /** Proxies in front of the function that append to `x-forwarded-for`, counted from the function outwards. */
  trustedProxyHops: number
}

export type EnvSource = (name: string) => string | undefined

/**
 * Reads and validates; every problem is named at once. Throws `INTERNAL_ERROR` whose details are for the log:
 * a variable that is present but malformed is refused, never taken for absent.
 */
export function readEnv(source: EnvSource): Env {
  const problems: string[] = []
  const text = (name: string) => source(name)?.trim() || undefined

  const json = (name: string): unknown => {
    const value = text(name)
    if (value === undefined) return undefined
    try {
      return JSON.parse(value)
    } catch {
      problems.push(`${name} is not JSON`)
      return undefined
    }
  }

  const keys = (name: string, prefix: string): Record<string, string> => {
    const value = json(name)
    if (value === undefined) return {}
    if (
      !isRecord(value) ||
      Object.values(value).some((key) => typeof key !== 'string' || !key.startsWith(prefix))
    ) {
      problems.push(
        `${name} must be a JSON object of keys that begin with ${prefix}`,
      )
      return {}
    }
    return value as Record<string, string>
  }

  const url = (name: string, protocols: string[]): string | undefined => {
    const value = text(name)
    if (value === undefined) return undefined
    if (!URL.canParse(value) || !protocols.includes(new URL(value).protocol)) {
      problems.push(`${name} is not a ${protocols.join(' or ')}// URL`)
      return undefined
    }
    return value
  }

  const oneOf = <T extends string>(
    name: string,
    allowed: readonly T[],
    otherwise: T,
  ): T => {
    const value = text(name)?.toLowerCase() ?? otherwise
    const found = allowed.find((candidate) => candidate === value)
    if (found === undefined) {
      problems.push(
        `${name} must be one of ${allowed.join(', ')}, received ${value}`,
      )
    }
    return found ?? otherwise
  }

  const databaseUrl = url('HOLDFAST_DB_URL', ['postgres:', 'postgresql:']) ??
    url('SUPABASE_DB_URL', ['postgres:', 'postgresql:'])

  const env: Env = {
    supabaseUrl: url('SUPABASE_URL', ['http:', 'https:']),
    databaseUrl,
    databasePrepare: oneOf('HOLDFAST_DB_PREPARE', ['true', 'false'], 'false') === 'true',
    publishableKeys: withLegacyKey(
      keys('SUPABASE_PUBLISHABLE_KEYS', 'sb_publishable_'),
      text('SUPABASE_ANON_KEY'),
    ),
    secretKeys: withLegacyKey(
      keys('SUPABASE_SECRET_KEYS', 'sb_secret_'),
      text('SUPABASE_SERVICE_ROLE_KEY'),
    ),
    jwks: keySet(json('SUPABASE_JWKS'), problems),
    jwtSecret: text('JWT_SECRET'),
    functionName: text('SUPABASE_FUNCTION_SLUG') ?? 'function',
    region: text('SB_REGION'),
    isolateId: text('SB_EXECUTION_ID') ?? crypto.randomUUID(),
    corsOrigins: (text('CORS_ORIGINS') ?? '*').split(',').map((origin) => origin.trim()).filter(Boolean),
    logLevel: oneOf('LOG_LEVEL', ['debug', 'info', 'warn', 'error'], 'info'),
    idempotencyStore: oneOf('IDEMPOTENCY_STORE', ['postgres', 'redis', 'memory'], 'postgres'),
    rateLimitStore: oneOf(
      'RATE_LIMIT_STORE',
      ['postgres', 'redis', 'memory'],
      databaseUrl === undefined ? 'memory' : 'postgres',
    ),
    redisUrl: url('REDIS_URL', ['redis:', 'rediss:']),
    trustedProxyHops: Number(text('TRUSTED_PROXY_HOPS') ?? 1),
  }
  for (
    const [name, store] of [['IDEMPOTENCY_STORE', env.idempotencyStore], [
      'RATE_LIMIT_STORE',
      env.rateLimitStore,
    ]]
  ) {
    if (store === 'redis' && text('REDIS_URL') === undefined) {
      problems.push(`${name} is redis, which needs REDIS_URL`)
    }
  }
  if (!Number.isInteger(env.trustedProxyHops) || env.trustedProxyHops < 0) {
    problems.push(
      `TRUSTED_PROXY_HOPS must be a whole number, received ${text('TRUSTED_PROXY_HOPS')}`,
    )
  }
  if (problems.length > 0) {
    throw new HoldfastError(
      'INTERNAL_ERROR',
      `Cannot read the environment: ${problems.join('; ')}`,
    )
  }
  return env
}

let current: Env | undefined

/** This isolate's environment; read at the first call, so importing a file needs no variable. */
export function env(): Env {
  return current ??= readEnv((name) => Deno.env.get(name))
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Projects from before the new keys have one JWT for each role; it is accepted as a key like any other. */
function withLegacyKey(
  keys: Record<string, string>,
  legacy: string | undefined,
): Record<string, string> {
  return legacy === undefined ? keys : { ...keys, legacy }
}

/** Hosted projects give `{"keys":[…]}`; a bare list means the same. */
function keySet(value: unknown, problems: string[]): Env['jwks'] {
  if (value === undefined) return { keys: [] }
  const keys = Array.isArray(value) ? value : isRecord(value) ? value.keys : undefined
  if (!Array.isArray(keys) || !keys.every(isRecord)) {
    problems.push('SUPABASE_JWKS must be a JSON Web Key Set')
    return { keys: [] }
  }
  return { keys }
}

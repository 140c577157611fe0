/** `/auth/v1` and `/rest/v1`: Supabase's own Docker-free server, kept in step with the database's schema. */
import { App } from '@supabase/lite'
import { createPostgresConnection } from '@supabase/lite/postgres'
import type { Sql } from 'postgres'
import { platformError } from '../functions/platformError.ts'
import { AccessTokens } from './accessTokens.ts'
import { interceptConsole, printingTo } from './apiConsole.ts'
import { refuseMalformedBearer } from './bearer.ts'
import { allowAnyOrigin, answerPreflight } from './cors.ts'
import { exchangeLegacyKey } from './legacyKeys.ts'
import { followSchema } from './schemaReload.ts'

export interface ApiOptions {
  adminUrl: string
  publishableKey: string
  secretKey: string
  jwtSecret: string
  /** The gateway's own URL. */
  url: string
  /** One line for each thing that the server prints, errors of refused statements above all. */
  onLog?: (line: string) => void
}

export interface Api {
  /** The request's path is `/auth/v1/…` or `/rest/v1/…`. Never rejects. */
  fetch(request: Request, peerAddress: string): Promise<Response>
  /** How often the schema has been read since the start. */
  readonly generation: number
  /** Rejects when the database does not answer. */
  ping(): Promise<void>
  close(): Promise<void>
}

/** One server with the schema as it was when it started; schemas are read once. */
interface Generation {
  app: App
  sql: Sql
  inFlight: number
  /** Set when a newer one has taken over: its connections close with the last request. */
  replaced: boolean
  close(): Promise<void>
}

/** Resolves when requests are answered and schema changes are listened for. */
export async function startApi(options: ApiOptions): Promise<Api> {
  const { onLog = () => {} } = options
  const releaseConsole = interceptConsole()
  let current = await open(options).catch((error) => {
    releaseConsole()
    throw error
  })
  let generation = 1
  const tokens = new AccessTokens({
    jwtSecret: options.jwtSecret,
    issuer: `${options.url}/auth/v1`,
    fetchUser: (token) =>
      current.app.fetch(
        new Request(`${options.url}/auth/v1/user`, {
          headers: { apikey: options.publishableKey, authorization: `Bearer ${token}` },
        }),
        { peerAddress: '127.0.0.1' },
      ),
  })
  const follower = await followSchema(options.adminUrl, async () => {
    const next = await open(options)
    const previous = current
    current = next
    generation += 1
    previous.replaced = true
    if (previous.inFlight === 0) await previous.close()
  })

  async function serve(request: Request, peerAddress: string): Promise<Response> {
    const isAuth = new URL(request.url).pathname.startsWith('/auth/')
    const refusal = isAuth ? undefined : refuseMalformedBearer(request.headers)
    if (refusal !== undefined) return refusal
    const headers = await exchangeLegacyKey(request.headers, options)
    const inner = new Request(request.url, {
      method: request.method,
      headers,
      body: request.body,
      signal: request.signal,
    })
    const serving = current
    serving.inFlight += 1
    try {
      const response = await serving.app.fetch(inner, { peerAddress })
      return isAuth ? await tokens.rewrite(request, response) : response
    } finally {
      serving.inFlight -= 1
      if (serving.replaced && serving.inFlight === 0) void serving.close()
    }
  }

  return {
    get generation() {
      return generation
    },
    async ping() {
      await current.sql`select 1`
    },
    async fetch(request, peerAddress) {
      const preflight = answerPreflight(request)
      if (preflight !== undefined) return preflight
      try {
        return allowAnyOrigin(await printingTo(onLog, () => serve(request, peerAddress)))
      } catch (error) {
        return platformError('SERVICE_UNAVAILABLE', `The API cannot answer now: ${String(error)}`)
      }
    },
    async close() {
      await follower.close()
      await current.close()
      releaseConsole()
    },
  }
}

async function open(
  { adminUrl, publishableKey, secretKey, jwtSecret, url }: ApiOptions,
): Promise<Generation> {
  const connection = createPostgresConnection({
    url: adminUrl,
    postgresOptions: { onnotice() {}, max: 6, connection: { application_name: 'holdfast-api' } },
  })
  // With the first request it would grant the API roles everything in every schema that has row level security.
  // What they may do is said by the migrations alone, so it is told that this has been seen to.
  Reflect.set(connection, 'rlsState', 'active')
  const app = new App({
    connection,
    auth: {
      enabled: true,
      jwt_secret: jwtSecret,
      publishable_key: publishableKey,
      secret_key: secretKey,
    },
    // As hosted: an UPDATE or DELETE without a condition is refused.
    api: { external_url: url, pg_safe_update: true },
    options: { server: { disableStudio: true, disableFallback: true } },
  })
  try {
    await app.init()
    await connection.introspect()
  } catch (error) {
    await connection.close()
    throw error
  }
  return {
    app,
    sql: connection.driver,
    inFlight: 0,
    replaced: false,
    close: () => connection.driver.end({ timeout: 1 }),
  }
}

/**
 * Hosted Supabase puts more into an access token than `@supabase/lite` does. This signs its tokens anew, with the
 * same subject, session and lifetime and the missing claims, so that code and policies that read `app_metadata`,
 * `amr` or `aal` work locally. The signing key is the same: what verified the one verifies the other.
 */
import type { JWTPayload } from 'jose'
import { jwtVerify, SignJWT } from 'jose'
import { z } from 'zod'

const userSchema = z.looseObject({
  phone: z.string().nullish(),
  app_metadata: z.record(z.string(), z.unknown()).default({}),
  user_metadata: z.record(z.string(), z.unknown()).default({}),
  is_anonymous: z.boolean().default(false),
})
const sessionSchema = z.looseObject({ access_token: z.string(), user: userSchema.optional() })

type User = z.infer<typeof userSchema>
interface SignIn {
  method: string
  /** Seconds since 1970. */
  timestamp: number
}

export interface AccessTokenOptions {
  jwtSecret: string
  /** What `iss` says: the auth service's public URL. */
  issuer: string
  /** Asks the auth service who a token's user is. */
  fetchUser(accessToken: string): Promise<Response>
}

/** How a session was begun is remembered for this many sessions; a forgotten one is taken for its latest use. */
const rememberedSessions = 10_000

/** Re-signs the tokens in the auth service's responses. */
export class AccessTokens {
  readonly #options: AccessTokenOptions
  readonly #key: Uint8Array
  readonly #signIns = new Map<string, SignIn>()

  constructor(options: AccessTokenOptions) {
    this.#options = options
    this.#key = new TextEncoder().encode(options.jwtSecret)
  }

  /** The response itself when it holds no token. */
  async rewrite(request: Request, response: Response): Promise<Response> {
    const location = response.headers.get('location')
    if (location?.includes('access_token=') === true) {
      return await this.#rewriteRedirect(request, response, location)
    }
    if (!response.ok || !/^application\/json/.test(response.headers.get('content-type') ?? '')) {
      return response
    }
    const text = await response.text()
    const headers = new Headers(response.headers)
    headers.delete('content-length')
    const init = { status: response.status, statusText: response.statusText, headers }
    const session = text.includes('"access_token"') ? sessionSchema.safeParse(JSON.parse(text)) : undefined
    if (session?.success !== true) return new Response(text === '' ? null : text, init)
    const accessToken = await this.#resign(session.data.access_token, methodOf(request), session.data.user)
    return new Response(JSON.stringify({ ...JSON.parse(text), access_token: accessToken }), init)
  }

  /** E-mail links and OAuth come back to the application with the session in the URL's fragment. */
  async #rewriteRedirect(request: Request, response: Response, location: string): Promise<Response> {
    const target = new URL(location)
    const fragment = new URLSearchParams(target.hash.slice(1))
    const token = fragment.get('access_token')
    if (token === null) return response
    fragment.set('access_token', await this.#resign(token, methodOf(request)))
    target.hash = fragment.toString()
    const headers = new Headers(response.headers)
    headers.set('location', target.href)
    return new Response(response.body, { status: response.status, statusText: response.statusText, headers })
  }

  async #resign(token: string, method: string | undefined, known?: User): Promise<string> {
    const { payload } = await jwtVerify(token, this.#key, { algorithms: ['HS256'] })
    const user = known ?? userSchema.parse(await (await this.#options.fetchUser(token)).json())
    const claims: JWTPayload = {
      ...payload,
      iss: this.#options.issuer,
      phone: user.phone ?? '',
      app_metadata: user.app_metadata,
      user_metadata: user.user_metadata,
      is_anonymous: user.is_anonymous,
      aal: 'aal1',
      amr: [this.#signIn(payload, method, user)],
    }
    return await new SignJWT(claims).setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).sign(this.#key)
  }

  /** A refreshed token tells how and when the session was begun, not when it was refreshed. */
  #signIn({ session_id: session, iat = 0 }: JWTPayload, method: string | undefined, user: User): SignIn {
    const remembered = typeof session === 'string' ? this.#signIns.get(session) : undefined
    if (remembered !== undefined) return remembered
    const provider = user.app_metadata.provider
    const fallback = provider === undefined || provider === 'email' ? 'password' : 'oauth'
    const signIn = { method: method ?? fallback, timestamp: iat }
    if (typeof session === 'string') {
      this.#signIns.set(session, signIn)
      const oldest = this.#signIns.keys().next().value
      if (this.#signIns.size > rememberedSessions && oldest !== undefined) this.#signIns.delete(oldest)
    }
    return signIn
  }
}

/** The method a request signs in by, in the words of hosted `amr`; undefined for a refresh. */
function methodOf(request: Request): string | undefined {
  const { pathname, searchParams } = new URL(request.url)
  const grant = searchParams.get('grant_type')
  if (pathname.endsWith('/signup') || grant === 'password') return 'password'
  if (pathname.endsWith('/verify')) return 'otp'
  if (pathname.endsWith('/callback') || grant === 'id_token') return 'oauth'
  return undefined
}

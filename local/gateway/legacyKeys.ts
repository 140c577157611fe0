/**
 * Older API keys are JWTs that name a role. Hosted projects take them beside the newer `sb_…` keys, but
 * `@supabase/lite` knows only the newer ones: here each becomes its counterpart.
 */
import { jwtVerify } from 'jose'

export interface LegacyKeyOptions {
  jwtSecret: string
  publishableKey: string
  secretKey: string
}

/**
 * The headers with a legacy key in `apikey` exchanged, and dropped from `Authorization` where it stands as the bearer
 * too, as client libraries send it. Anything that is not a valid legacy key is left for the service to refuse.
 */
export async function exchangeLegacyKey(headers: Headers, options: LegacyKeyOptions): Promise<Headers> {
  const apikey = headers.get('apikey')
  if (apikey === null || !apikey.startsWith('ey')) return headers
  const role = await roleOf(apikey, options.jwtSecret)
  if (role !== 'anon' && role !== 'service_role') return headers
  const exchanged = new Headers(headers)
  exchanged.set('apikey', role === 'anon' ? options.publishableKey : options.secretKey)
  if (headers.get('authorization') === `Bearer ${apikey}`) exchanged.delete('authorization')
  return exchanged
}

async function roleOf(token: string, jwtSecret: string): Promise<unknown> {
  try {
    const { payload } = await jwtVerify(token, new TextEncoder().encode(jwtSecret), { algorithms: ['HS256'] })
    return payload.role
  } catch {
    return undefined
  }
}

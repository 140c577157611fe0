/** The environment that functions see: what the platform sets, and the project's own secrets. */
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import { SignJWT } from 'jose'
import type { Project } from '../project.ts'

/** The hosted variables, with the local stack's addresses and keys. */
export async function platformEnvironment(options: {
  url: string
  databaseUrl: string
  publishableKey: string
  secretKey: string
  jwtSecret: string
}): Promise<Record<string, string>> {
  return {
    SUPABASE_URL: options.url,
    SUPABASE_DB_URL: options.databaseUrl,
    SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: options.publishableKey }),
    SUPABASE_SECRET_KEYS: JSON.stringify({ default: options.secretKey }),
    SUPABASE_JWKS: JSON.stringify({ keys: [] }),
    SUPABASE_ANON_KEY: await legacyKey('anon', options.jwtSecret),
    SUPABASE_SERVICE_ROLE_KEY: await legacyKey('service_role', options.jwtSecret),
    JWT_SECRET: options.jwtSecret,
    SB_REGION: 'local',
  }
}

/**
 * `supabase/functions/.env`, the local secrets. As on the platform, none may be named `SUPABASE_…`: such lines are
 * left out and `refuse` is told of each.
 */
export async function readSecrets(
  project: Project,
  refuse: (name: string) => void,
): Promise<Record<string, string>> {
  const text = await Deno.readTextFile(join(project.functionsDir, '.env')).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return ''
    throw error
  })
  const secrets: Record<string, string> = {}
  for (const [name, value] of Object.entries(parseEnv(text))) {
    if (name.startsWith('SUPABASE_')) refuse(name)
    else if (value !== undefined) secrets[name] = value
  }
  return secrets
}

/** The older kind of API key: a JWT that names a role. The same for every start, so that clients may keep it. */
function legacyKey(role: 'anon' | 'service_role', jwtSecret: string): Promise<string> {
  return new SignJWT({ iss: 'supabase-demo', role })
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setIssuedAt(1_641_769_200)
    .setExpirationTime(2_230_000_000)
    .sign(new TextEncoder().encode(jwtSecret))
}

/** Edge functions on the host, with a database behind a proxy that counts, and a caller who is signed in. */
import { SignJWT } from 'jose'
import { platformEnvironment } from '../../local/functions/environment.ts'
import { startFunctionsHost } from '../../local/functions/host.ts'
import { localKeys } from '../../local/keys.ts'
import type { Project } from '../../local/project.ts'
import { caller } from './notes.ts'
import type { Bench } from './suite.ts'

export interface FunctionsOptions {
  project: Project
  databaseUrl: string
  env?: Record<string, string>
}

export interface PostOptions {
  body: unknown
  headers?: Record<string, string>
}

/** What it returns posts JSON as the caller, and rejects for any answer but 201. */
export async function startFunctions(
  { resources }: Bench,
  { project, databaseUrl, env = {} }: FunctionsOptions,
): Promise<(path: string, options: PostOptions) => Promise<void>> {
  const environment = await platformEnvironment({
    url: 'http://127.0.0.1',
    databaseUrl,
    publishableKey: localKeys.publishable,
    secretKey: localKeys.secret,
    jwtSecret: localKeys.jwtSecret,
  })
  const host = resources.adopt(
    await startFunctionsHost({
      project,
      jwtSecret: localKeys.jwtSecret,
      env: { ...environment, ...env },
    }),
    (host) => host.close(),
  )
  const token = await new SignJWT({ sub: caller.userId, role: caller.role })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1h')
    .sign(new TextEncoder().encode(localKeys.jwtSecret))

  return async (path, { body, headers }) => {
    const response = await host.fetch(
      new Request(`http://127.0.0.1${path}`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...headers },
        body: JSON.stringify(body),
      }),
    )
    const text = await response.text()
    if (response.status !== 201) throw new Error(`Cannot measure POST ${path}: ${response.status} ${text}`)
  }
}

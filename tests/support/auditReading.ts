/** Reading the trail in tests: as an admin, as everybody who may not, and with writers who are known. */
import { type Caller, type Queries, user } from './sql.ts'

/** Signed in, with the JWT of an admin. */
export function adminCaller(id: string = crypto.randomUUID()): Caller {
  return user(id, { app_metadata: { role: 'admin' } })
}

/** Everybody the trail is closed to, by a name for titles. */
export const strangers: [name: string, Caller][] = [
  ['anon', { role: 'anon' }],
  ['anon with the claims of an admin', { role: 'anon', claims: { app_metadata: { role: 'admin' } } }],
  ['a signed-in user', user(crypto.randomUUID())],
  ['a user who says so in user_metadata', user(crypto.randomUUID(), { user_metadata: { role: 'admin' } })],
  ['a user of another app role', user(crypto.randomUUID(), { app_metadata: { role: 'administrator' } })],
  ['a user whose app_metadata is no object', user(crypto.randomUUID(), { app_metadata: 'admin' })],
  ['service_role', { role: 'service_role' }],
  ['service_role with the claims of an admin', {
    role: 'service_role',
    claims: { app_metadata: { role: 'admin' } },
  }],
]

/** The request a statement came with, for the rest of the transaction. */
export async function withRequest(tx: Queries, headers: Record<string, string>): Promise<void> {
  await tx`select set_config('request.headers', ${JSON.stringify(headers)}, true)`
}

/** Somebody with an account, as the auth service would have made it. */
export async function newAccount(admin: Queries, email: string): Promise<string> {
  const id = crypto.randomUUID()
  await admin`
    insert into auth.users (id, aud, role, email, raw_app_meta_data, raw_user_meta_data)
    values (${id}, 'authenticated', 'authenticated', ${email}, '{}', '{}')`
  return id
}

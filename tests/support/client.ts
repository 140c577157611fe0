/** supabase-js as an application uses it: for a guest, for the demo users, for somebody new, and for the service. */
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import { demoUsers, localKeys } from '../../local/keys.ts'

export interface SignedIn {
  client: SupabaseClient
  userId: string
  email: string
  accessToken: string
}

export type DemoUser = 'ada' | 'grace' | 'admin'

let invited = 0

/** Nobody is signed in: role `anon`. */
export function guestClient(stack: { url: string }): SupabaseClient {
  return clientWith(stack, localKeys.publishable)
}

/** With the secret key: role `service_role`, which no row level security holds. */
export function serviceClient(stack: { url: string }): SupabaseClient {
  return clientWith(stack, localKeys.secret)
}

/** One of the users that supabase/seed.sql creates. */
export async function demoClient(stack: { url: string }, name: DemoUser): Promise<SignedIn> {
  const user = demoUsers.find(({ email }) => email.startsWith(`${name}@`))
  if (!user) throw new Error(`There is no demo user "${name}" in local/keys.ts`)
  return await signIn(stack, user)
}

/** A user of its own for one test, signed up and signed in. */
export async function newUser(stack: { url: string }): Promise<SignedIn> {
  const user = {
    email: `user-${Deno.pid}-${++invited}@example.com`,
    password: `password-${crypto.randomUUID()}`,
  }
  const { error } = await guestClient(stack).auth.signUp(user)
  if (error) throw new Error(`Cannot sign up ${user.email}: ${error.message}`, { cause: error })
  return await signIn(stack, user)
}

async function signIn(
  stack: { url: string },
  { email, password }: { email: string; password: string },
): Promise<SignedIn> {
  const client = guestClient(stack)
  const { data, error } = await client.auth.signInWithPassword({ email, password })
  if (error) throw new Error(`Cannot sign in ${email}: ${error.message}`, { cause: error })
  return { client, email, userId: data.user.id, accessToken: data.session.access_token }
}

/** Keeps nothing and refreshes nothing, so that it leaves no timer behind. */
function clientWith(stack: { url: string }, key: string): SupabaseClient {
  return createClient(stack.url, key, {
    auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
  })
}

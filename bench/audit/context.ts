/** Who writes, as PostgreSQL is told for each request. */
import { caller } from '../support/notes.ts'

/** As Auth's access tokens have them. */
const claims = JSON.stringify({
  ...caller.claims,
  iss: 'https://project.supabase.co/auth/v1',
  session_id: '5a4d64d4-2a8b-4b6c-9b3e-6f0d7e3f1c52',
  user_metadata: { email: 'ada@example.com', email_verified: true },
  aal: 'aal1',
})

/** What Holdfast's client tells of the request that a function answers. */
const ofFunction = {
  'x-request-id': '0190e1a4-6a1c-7c3e-9c7a-0c0c0c0c0c0c',
  'x-forwarded-for': '203.0.113.7',
  'user-agent':
    'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0 Safari/537.36',
  'x-function-name': 'orders',
}

/** PostgREST tells of all headers, the access token's included. */
const ofRest = {
  accept: '*/*',
  'accept-encoding': 'gzip, br',
  'accept-language': 'en-US,en;q=0.9,de;q=0.8',
  'accept-profile': 'public',
  apikey: 'sb_publishable_00000000000000000000000000000',
  authorization: `Bearer ${'eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.'.padEnd(820, 'eyJzdWIiOiIw')}`,
  'content-length': '214',
  'content-profile': 'public',
  'content-type': 'application/json',
  host: 'project.supabase.co',
  origin: 'https://example.com',
  prefer: 'return=minimal',
  'sb-request-id': ofFunction['x-request-id'],
  'user-agent': ofFunction['user-agent'],
  'x-client-info': 'supabase-js-web/2.119.0',
  'x-forwarded-for': '203.0.113.7',
  'x-forwarded-host': 'project.supabase.co',
  'x-forwarded-port': '443',
  'x-forwarded-proto': 'https',
}

const signedIn = (headers: Record<string, string>) => ({
  role: 'authenticated',
  'request.jwt.claims': claims,
  'request.headers': JSON.stringify(headers),
})

export const contexts = {
  'through a function': signedIn(ofFunction),
  'over REST': signedIn(ofRest),
  'no request': { role: 'authenticated' },
}

export type Context = keyof typeof contexts

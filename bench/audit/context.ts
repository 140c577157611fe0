/** Who writes, as PostgREST and Holdfast's own client tell PostgreSQL for each request. */
import { caller } from '../support/notes.ts'

const claims = JSON.stringify({
  ...caller.claims,
  iss: 'https://project.supabase.co/auth/v1',
  session_id: '5a4d64d4-2a8b-4b6c-9b3e-6f0d7e3f1c52',
  user_metadata: { email: 'ada@example.com', email_verified: true },
  aal: 'aal1',
})

const headers = JSON.stringify({
  'x-request-id': '0190e1a4-6a1c-7c3e-9c7a-0c0c0c0c0c0c',
  'x-forwarded-for': '203.0.113.7',
  'user-agent':
    'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0 Safari/537.36',
  'x-function-name': 'orders',
})

export const contexts = {
  'signed in': {
    role: 'authenticated',
    'request.jwt.claims': claims,
    'request.headers': headers,
  },
  'no claims': { role: 'authenticated' },
} as const

export type Context = keyof typeof contexts

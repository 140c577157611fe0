/** `withPostgresClient` of `@supabase/server`, used as its page docs/postgres.md says, with a caller who is verified. */
// On Deno the peer's optional peer has to be imported by whoever uses it.
import 'pg'
import { defineMiddleware, pipeline } from '@supabase/middleware'
import {
  type PostgresApi,
  type RequestClaims,
  withPostgresClient,
} from '@supabase/server/middleware/postgres'

export interface SupabasePeer {
  postgres: PostgresApi
  close(): Promise<void>
}

/**
 * Its client stays usable while the request lasts that it was made for, so that nothing but the statement is measured:
 * `close()` answers that request. Its pool lives as long as the process.
 */
export async function openSupabasePeer(url: string, claims: RequestClaims): Promise<SupabasePeer> {
  const opened = Promise.withResolvers<PostgresApi>()
  const closing = Promise.withResolvers<void>()
  const withVerifiedClaims = defineMiddleware<'jwtClaims', void, Record<never, never>, RequestClaims>({
    key: 'jwtClaims',
    run: () => () => Promise.resolve({ jwtClaims: claims }),
  })
  const handle = pipeline(
    [withVerifiedClaims(), withPostgresClient({ connectionString: url, pool: { max: 4 } })],
    async (_request, { postgres }) => {
      opened.resolve(postgres)
      await closing.promise
      return new Response()
    },
  )
  const answer = handle(new Request('http://127.0.0.1/'))
  return {
    postgres: await opened.promise,
    async close() {
      closing.resolve()
      await answer
    },
  }
}

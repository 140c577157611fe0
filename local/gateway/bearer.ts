/**
 * Refuses what `@supabase/lite` lets pass as a guest: a bearer that is no JWT at all, or one without a signature.
 * PostgREST answers 401, since a credential that is there but wrong is not the same as none.
 */

/** PostgREST's refusal; undefined for a well-formed token, for an API key in the bearer's place, and for no bearer. */
export function refuseMalformedBearer(headers: Headers): Response | undefined {
  const authorization = headers.get('authorization')?.trim()
  if (authorization === undefined || !/^bearer\b/i.test(authorization)) return undefined
  const token = authorization.slice('bearer'.length).trim()
  if (token.startsWith('sb_')) return undefined
  const parts = token === '' ? [] : token.split('.')
  if (parts.length !== 3) return refusal(`Expected 3 parts in JWT; got ${parts.length}`)
  return parts.includes('') ? refusal('No suitable key or wrong key type') : undefined
}

function refusal(message: string): Response {
  return Response.json({ code: 'PGRST301', details: null, hint: null, message }, {
    status: 401,
    headers: { 'www-authenticate': `Bearer error="invalid_token", error_description="${message}"` },
  })
}

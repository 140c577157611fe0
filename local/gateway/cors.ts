/** CORS for the platform's own services; functions answer for themselves, as when hosted. */

const methods = 'GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS, TRACE, CONNECT'
const exposed =
  'content-range, content-location, preference-applied, sb-error-code, x-sb-error-code, x-request-id'
const maxAgeSeconds = '3600'

/** The platform's answer to a preflight; undefined for any other request. */
export function answerPreflight(request: Request): Response | undefined {
  if (request.method !== 'OPTIONS' || !request.headers.has('access-control-request-method')) return undefined
  const headers = new Headers({
    'access-control-allow-origin': '*',
    'access-control-allow-methods': methods,
    'access-control-max-age': maxAgeSeconds,
    vary: 'access-control-request-headers',
  })
  const wanted = request.headers.get('access-control-request-headers')
  if (wanted !== null) headers.set('access-control-allow-headers', wanted)
  return new Response(null, { status: 204, headers })
}

/** Lets any origin read the response: who may ask is a question of keys and tokens, not of origins. */
export function allowAnyOrigin(response: Response): Response {
  const headers = new Headers(response.headers)
  headers.set('access-control-allow-origin', '*')
  headers.delete('access-control-allow-credentials')
  headers.set('access-control-expose-headers', exposed)
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers })
}

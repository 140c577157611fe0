/** What a gateway adds to a request on its way in. */

/** A caller's own request id is kept when it is harmless in logs and headers. */
const saneRequestId = /^[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}$/

/** Adopts the caller's `x-request-id`, or makes one. */
export function requestIdOf(headers: Headers): string {
  const given = headers.get('x-request-id')
  return given !== null && saneRequestId.test(given) ? given : crypto.randomUUID()
}

/** Who asked, and what the caller saw as the address, in the headers that hosted Supabase sets. */
export interface Origin {
  peerAddress: string
  /** URL as the caller wrote it. */
  url: URL
  requestId: string
}

/**
 * The caller's headers with the forwarding ones set. `x-forwarded-for` grows by the peer's address, so that its last
 * entry can be trusted; the others are ours alone, whatever the caller sent.
 */
export function forwardedHeaders(original: Headers, { peerAddress, url, requestId }: Origin): Headers {
  const headers = new Headers(original)
  const before = original.get('x-forwarded-for')
  headers.set('x-forwarded-for', before === null ? peerAddress : `${before}, ${peerAddress}`)
  headers.set('x-real-ip', peerAddress)
  headers.set('x-forwarded-proto', url.protocol.slice(0, -1))
  headers.set('x-forwarded-host', url.hostname)
  headers.set('x-forwarded-port', url.port || (url.protocol === 'https:' ? '443' : '80'))
  headers.set('x-forwarded-path', url.pathname)
  headers.set('x-request-id', requestId)
  return headers
}

/** A request with an idempotency key, as what is claimed: whose key it is, and what exactly was asked. */
import { HoldfastError } from '../core/errors.ts'
import { digestOf, identityOf } from '../resilience/fingerprint.ts'
import type { IdempotencyRequest } from '../resilience/idempotency.ts'
import { keyRequired } from '../resilience/idempotencyErrors.ts'
import { parseKeyHeader } from '../resilience/idempotencyKey.ts'
import type { Exchange } from './exchange.ts'

export interface RequestSettings {
  required: boolean
  maxBodyBytes: number
  docsUrl: string
}

export interface KeyedRequest extends IdempotencyRequest {
  key: string
}

/** Methods that change nothing need no key. */
const safeMethods = ['GET', 'HEAD', 'OPTIONS']

/**
 * Undefined where the request needs no key or has none; throws the `IDEMPOTENCY_KEY_` codes and `PAYLOAD_TOO_LARGE`.
 * JSON bodies are compared by their values, all others byte by byte.
 */
export async function keyedRequest(
  { request, actor, readBody }: Exchange,
  { required, maxBodyBytes, docsUrl }: RequestSettings,
): Promise<KeyedRequest | undefined> {
  if (safeMethods.includes(request.method)) return undefined
  const header = request.headers.get('idempotency-key')
  if (header === null) {
    if (required) throw keyRequired(docsUrl)
    return undefined
  }
  const key = parseKeyHeader(header)
  const { pathname, searchParams } = new URL(request.url)
  const route = `${request.method} ${pathname}`
  const who = identityOf(actor.caller)
  searchParams.sort()
  const asked = await bodyOf(request, readBody, maxBodyBytes)
  const [id, fingerprint] = await Promise.all([
    digestOf([who, route, key]),
    digestOf([who, route, [...searchParams], asked]),
  ])
  const { caller: { userId = null }, request: { requestId } } = actor
  return { key, id, fingerprint, route, callerId: userId, requestId }
}

/** Something canonical JSON can be made of. */
async function bodyOf(
  request: Request,
  read: () => Promise<ArrayBuffer>,
  maxBytes: number,
): Promise<unknown[]> {
  const tooLarge = () => new HoldfastError('PAYLOAD_TOO_LARGE', `The body may have at most ${maxBytes} bytes`)
  if (Number(request.headers.get('content-length') ?? 0) > maxBytes) throw tooLarge()
  const bytes = await read()
  if (bytes.byteLength > maxBytes) throw tooLarge()
  if (bytes.byteLength === 0) return []
  const type = request.headers.get('content-type') ?? ''
  const text = latin1Of(bytes)
  if (!/^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(type)) return [type, text]
  try {
    return [JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))]
  } catch {
    // The handler may refuse it, or read it in its own way.
    return [type, text]
  }
}

/** A character for each byte. */
function latin1Of(bytes: ArrayBuffer): string {
  let text = ''
  for (const byte of new Uint8Array(bytes)) text += String.fromCharCode(byte)
  return text
}

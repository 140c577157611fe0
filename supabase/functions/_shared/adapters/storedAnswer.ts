/** Any `Response` as an answer that can be stored, and back, byte for byte. */
import { HoldfastError } from '../core/errors.ts'
import type { Outcome, StoredAnswer } from '../resilience/idempotency.ts'

export interface AnswerLimits {
  /** `POST /orders`, for the message. */
  route: string
  maxBytes: number
  /** Headers that are the request's own: not stored where they are as they were. */
  ownHeaders?: Headers
}

/** Reads the response to its end. Throws `INTERNAL_ERROR` for one that cannot be stored: a stream, no text, too long. */
export async function storedAnswerOf(response: Response, limits: AnswerLimits): Promise<StoredAnswer> {
  if (/^text\/event-stream/i.test(response.headers.get('content-type') ?? '')) {
    await response.body?.cancel()
    throw notStorable(limits, 'it is a stream of events')
  }
  return {
    status: response.status,
    headers: [...response.headers].filter(([name, value]) => !isOwn(name, value, limits.ownHeaders)),
    body: textOf(await readUpTo(response, limits), limits),
  }
}

/** A new response each time. */
export function responseOf({ answer, replayed, local }: Outcome): Response {
  const headers = new Headers(answer.headers)
  if (replayed) headers.set('idempotency-replayed', 'true')
  if (local) headers.set('idempotency-store', 'local')
  // 204 and its like may not even have an empty body.
  return new Response(answer.body === '' ? null : answer.body, { status: answer.status, headers })
}

function isOwn(name: string, value: string, own: Headers | undefined): boolean {
  return name === 'set-cookie' ? own?.getSetCookie().includes(value) ?? false : own?.get(name) === value
}

async function readUpTo(response: Response, limits: AnswerLimits): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.byteLength
    // Leaving the loop cancels the stream: an endless one is not read on.
    if (length > limits.maxBytes) throw notStorable(limits, `it has more than ${limits.maxBytes} bytes`)
    chunks.push(chunk)
  }
  return new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer())
}

/** PostgreSQL keeps no text with a null character in it. */
function textOf(bytes: Uint8Array, limits: AnswerLimits): string {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    if (!text.includes('\0')) return text
  } catch {
    // Said below.
  }
  throw notStorable(limits, 'its body is not text')
}

function notStorable({ route }: AnswerLimits, found: string): HoldfastError {
  return new HoldfastError(
    'INTERNAL_ERROR',
    `Cannot store the answer of ${route}: ${found}; answer with less, or take this route out of withIdempotency`,
  )
}

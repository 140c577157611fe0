/** Reads a request's body: bounded, and JSON or refused. */
import { HoldfastError } from '../core/errors.ts'
import { validationError } from './schema.ts'

/**
 * The body parsed as JSON. Throws `PAYLOAD_TOO_LARGE` as soon as more than `maxBytes` have come, whatever
 * `Content-Length` says, `UNSUPPORTED_MEDIA_TYPE` for what is not declared as JSON, and `VALIDATION_ERROR` for
 * what is not JSON or not UTF-8.
 */
export async function readJson(request: Request, maxBytes: number): Promise<unknown> {
  const type = request.headers.get('content-type')
  if (type === null || !/^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(type)) {
    throw new HoldfastError(
      'UNSUPPORTED_MEDIA_TYPE',
      `This takes application/json; received ${type === null ? 'no Content-Type' : type.slice(0, 100)}`,
    )
  }
  const bytes = await readBytes(request, maxBytes)
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    const message = error instanceof SyntaxError ? `not JSON: ${error.message}` : 'not UTF-8'
    throw validationError([{ in: 'body', path: '', message }])
  }
}

async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  const tooLarge = () => new HoldfastError('PAYLOAD_TOO_LARGE', `The body may have at most ${maxBytes} bytes`)
  if (Number(request.headers.get('content-length') ?? 0) > maxBytes) {
    await request.body?.cancel()
    throw tooLarge()
  }
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of request.body ?? []) {
    length += chunk.byteLength
    // Leaving the loop cancels the stream: the rest is never read.
    if (length > maxBytes) throw tooLarge()
    chunks.push(chunk)
  }
  if (chunks.length === 1) return chunks[0]!
  const bytes = new Uint8Array(length)
  let offset = 0
  for (const chunk of chunks) {
    bytes.set(chunk, offset)
    offset += chunk.byteLength
  }
  return bytes
}

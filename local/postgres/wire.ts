/** The frames of PostgreSQL's protocol: a letter, a length that counts itself, and the content. */

export interface Frame {
  /** `Q`uery, `P`arse, `B`ind, …; empty for the greeting, which has no letter. */
  type: string
  /** The whole of it, as it came. */
  bytes: Uint8Array
}

/** Builds a frame; the content is ASCII. */
export function frame(type: string, content = ''): Uint8Array {
  const bytes = new Uint8Array(5 + content.length)
  bytes[0] = type.charCodeAt(0)
  new DataView(bytes.buffer).setUint32(1, 4 + content.length)
  bytes.set(new TextEncoder().encode(content), 5)
  return bytes
}

/** Cuts a stream into frames. A client begins with a greeting, a frame without a letter; a server does not. */
export async function* frames(
  stream: ReadableStream<Uint8Array>,
  { greeting }: { greeting: boolean },
): AsyncGenerator<Frame> {
  let buffer = new Uint8Array()
  let header = greeting ? 0 : 1
  for await (const chunk of stream) {
    buffer = joined(buffer, chunk)
    while (buffer.length >= header + 4) {
      const length = header + new DataView(buffer.buffer, buffer.byteOffset + header).getUint32(0)
      if (buffer.length < length) break
      const bytes = buffer.subarray(0, length)
      buffer = buffer.subarray(length)
      yield { type: header === 0 ? '' : String.fromCharCode(bytes[0] ?? 0), bytes }
      header = 1
    }
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(first.length + second.length)
  bytes.set(first)
  bytes.set(second, first.length)
  return bytes
}

/** What a process prints, line by line. */

export type LineSink = (line: string) => void

/** Longer lines are cut into pieces, so that output without line ends cannot fill the memory. */
const longestLine = 64 * 1024

/** Reads to the end of the stream; a last line without its line end counts. */
export async function readLines(stream: ReadableStream<Uint8Array>, sink: LineSink): Promise<void> {
  let text = ''
  const decoder = new TextDecoder()
  try {
    for await (const chunk of stream) {
      const lines = (text + decoder.decode(chunk, { stream: true })).split('\n')
      text = lines.pop() ?? ''
      for (const line of lines) sink(line)
      for (; text.length > longestLine; text = text.slice(longestLine)) sink(text.slice(0, longestLine))
    }
  } catch {
    // The pipe broke with the process: what came before is what there is.
  }
  if (text !== '') sink(text)
}

/** The last lines of a process, kept to explain its end. */
export class Tail {
  readonly #lines: string[] = []

  push(line: string): void {
    this.#lines.push(line)
    if (this.#lines.length > 100) this.#lines.shift()
  }

  has(pattern: RegExp): boolean {
    return this.#lines.some((line) => pattern.test(line))
  }

  /** What Deno prints of an error nobody caught: its message and the first place that is a file. */
  uncaught(): string | undefined {
    const start = this.#lines.findLastIndex((line) => line.startsWith('error: '))
    if (start === -1) return undefined
    const place = this.#lines.slice(start).find((line) => line.includes('file://'))?.trim()
    const message = (this.#lines[start] ?? '').replace(/^error: /, '')
    return place === undefined || message.includes('file://') ? message : `${message} ${place}`
  }
}

type Bytes = Uint8Array<ArrayBuffer>

/**
 * A request body that can be sent again as long as nobody has taken charge of it: what was read is kept until
 * `commit()`, then let go, so that long uploads stream through.
 */
export class ReplayableBody {
  readonly #reader: ReadableStreamDefaultReader<Bytes>
  /** Everything read before `commit()`, for the next stream. */
  #kept: Bytes[] = []
  /** Read, but not yet taken by the newest stream. */
  #queue: Bytes[] = []
  #newest = 0
  #ended = false
  #committed = false

  constructor(source: ReadableStream<Bytes>) {
    this.#reader = source.getReader()
  }

  /** The whole body from its start. Only the newest stream delivers. */
  stream(): ReadableStream<Bytes> {
    if (this.#committed) throw new Error('Cannot send the body again: it was handed over already')
    const view = ++this.#newest
    this.#queue = [...this.#kept]
    return new ReadableStream<Bytes>({
      pull: async (controller) => {
        if (this.#queue.length === 0 && !this.#ended) await this.#read()
        if (view !== this.#newest) return
        const chunk = this.#queue.shift()
        if (chunk !== undefined) controller.enqueue(chunk)
        else controller.close()
      },
      cancel: async (reason) => {
        if (this.#committed) await this.#reader.cancel(reason)
      },
    }, { highWaterMark: 0 })
  }

  /** The receiver has begun with the request: it will not be sent again. */
  commit(): void {
    this.#committed = true
    this.#kept = []
  }

  /** Tells the sender that nobody reads on. */
  async cancel(): Promise<void> {
    await this.#reader.cancel().catch(() => {})
  }

  /** A read that an older stream began ends here too, so that its chunk is not lost. */
  async #read(): Promise<void> {
    const { done, value } = await this.#reader.read()
    if (done) {
      this.#ended = true
      return
    }
    if (!this.#committed) this.#kept.push(value)
    this.#queue.push(value)
  }
}

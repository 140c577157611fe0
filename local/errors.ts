/**
 * A failure the person at the terminal can mend: printed as what happened, where, and what to do,
 * without a stack, and with a non-zero exit code.
 */
export class LocalError extends Error {
  override readonly name = 'LocalError'
  /** File, port or server the failure is about. */
  readonly where?: string
  /** One sentence that says what to do next. */
  readonly fix: string

  constructor(message: string, options: { fix: string; where?: string; cause?: unknown }) {
    super(message, { cause: options.cause })
    this.fix = options.fix
    this.where = options.where
  }
}

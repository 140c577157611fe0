/** Structured logs: one JSON object a line, with the request's context on each and no secret on any. */
import { type Clock, isoTime, systemClock } from '../core/clock.ts'
import { writeLine } from './output.ts'
import { redact, redactText } from './redact.ts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

/** What every line of a request says. Set once, by `with`. */
export interface LogContext {
  requestId?: string
  userId?: string
  function?: string
  isolate?: string
  ip?: string
  [field: string]: unknown
}

export interface Logger {
  debug(message: string, fields?: Record<string, unknown>): void
  info(message: string, fields?: Record<string, unknown>): void
  warn(message: string, fields?: Record<string, unknown>): void
  error(message: string, fields?: Record<string, unknown>): void
  /** A logger whose lines also say this. The context must hold no secret: it is written as it is. */
  with(context: LogContext): Logger
}

export interface LoggerOptions {
  /** Lines below this level are dropped. @default 'info' */
  level?: LogLevel
  context?: LogContext
  /** Where a finished line goes. @default standard output, or the console on the hosted platform */
  write?: (level: LogLevel, line: string) => void
  now?: Clock
}

const order: Record<LogLevel, number> = {
  debug: 0,
  info: 1,
  warn: 2,
  error: 3,
}
/** The platform cuts an event at 10,000 characters; a line that is cut is no JSON any more. */
const maxLineLength = 9_500

/** Never throws: what cannot be written as JSON is logged as such. */
export function createLogger(options: LoggerOptions = {}): Logger {
  const {
    level = 'info',
    context = {},
    write = writeLine,
    now = systemClock,
  } = options
  return new JsonLogger(order[level], contextText(context), write, now)
}

class JsonLogger implements Logger {
  readonly #threshold: number
  /** The context as the inside of a JSON object, made once instead of at every line. */
  readonly #context: string
  readonly #write: (level: LogLevel, line: string) => void
  readonly #now: Clock

  constructor(
    threshold: number,
    context: string,
    write: (level: LogLevel, line: string) => void,
    now: Clock,
  ) {
    this.#threshold = threshold
    this.#context = context
    this.#write = write
    this.#now = now
  }

  debug(message: string, fields?: Record<string, unknown>): void {
    if (this.#threshold <= order.debug) this.#log('debug', message, fields)
  }

  info(message: string, fields?: Record<string, unknown>): void {
    if (this.#threshold <= order.info) this.#log('info', message, fields)
  }

  warn(message: string, fields?: Record<string, unknown>): void {
    if (this.#threshold <= order.warn) this.#log('warn', message, fields)
  }

  error(message: string, fields?: Record<string, unknown>): void {
    this.#log('error', message, fields)
  }

  with(context: LogContext): Logger {
    return new JsonLogger(
      this.#threshold,
      this.#context + contextText(context),
      this.#write,
      this.#now,
    )
  }

  #log(
    level: LogLevel,
    message: string,
    fields?: Record<string, unknown>,
  ): void {
    const head = `{"level":"${level}","message":${JSON.stringify(redactText(message))},"time":"${
      isoTime(this.#now())
    }"${this.#context}`
    const tail = fields === undefined ? '' : fieldsText(fields)
    const fits = head.length + tail.length < maxLineLength
    // Escaping can double a text, so half of what is left always fits.
    const line = fits
      ? `${head}${tail}}`
      : `${head},"truncated":${JSON.stringify(tail.slice(0, (maxLineLength - head.length) / 2))}}`
    this.#write(level, line)
  }
}

function contextText(context: LogContext): string {
  let text = ''
  for (const name of Object.keys(context)) {
    const value = context[name]
    if (value !== undefined) text += nameText(name) + JSON.stringify(value)
  }
  return text
}

function fieldsText(fields: Record<string, unknown>): string {
  let text = ''
  for (const name of Object.keys(fields)) {
    const value = fields[name]
    if (value === undefined) continue
    text += nameText(name)
    text += typeof value === 'number' && Number.isFinite(value) ? value : JSON.stringify(redact(name, value))
  }
  return text
}

const nameTexts = new Map<string, string>()

/** The name as JSON, with what stands around it. Lines use the same few names over and over. */
function nameText(name: string): string {
  let text = nameTexts.get(name)
  if (text === undefined) {
    text = `,${JSON.stringify(name)}:`
    if (nameTexts.size < 1_000) nameTexts.set(name, text)
  }
  return text
}

/** Text for a person or a program at the other end of stdout and stderr. */
import { LocalError } from '../errors.ts'

const codes = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
} as const
export type Style = keyof typeof codes

/** Writes a text and a line end to stdout. False when nobody reads it any more (`| head`, a closed terminal). */
export function print(text = ''): boolean {
  return write(Deno.stdout, `${text}\n`)
}

/** As `print`, to stderr: what is no result. */
export function printError(text = ''): boolean {
  return write(Deno.stderr, `${text}\n`)
}

/** The text in a style, where stdout is a terminal and NO_COLOR is not set. */
export function styled(style: Style, text: string): string {
  if (Deno.noColor || !Deno.stdout.isTerminal()) return text
  const [open, close] = codes[style]
  return `\x1b[${open}m${text}\x1b[${close}m`
}

/** What happened, where, and what to do; a stack only for whoever asked for it by `--debug`. */
export function describeFailure(error: unknown, debug: boolean): string {
  const message = error instanceof Error ? error.message || error.name : String(error)
  const where = error instanceof LocalError ? error.where : undefined
  const fix = error instanceof LocalError ? error.fix : unforeseenFix(message)
  const lines = [`${styled('red', 'Error:')} ${message}`]
  if (where !== undefined) lines.push(`  where: ${where}`)
  lines.push(`  fix:   ${fix}`)
  if (debug && error instanceof Error) lines.push('', error.stack ?? '', ...causes(error))
  return lines.join('\n')
}

/** Files of another account are what `sudo npm start` leaves: a person can mend that, once told. */
function unforeseenFix(message: string): string {
  return /EACCES|EPERM|os error (1|13)\)/.test(message)
    ? 'If the file is of another account (sudo npm start?): sudo chown -R "$(id -un)" .local node_modules'
    : 'Run it again with --debug, and report what that shows.'
}

function causes(error: Error): string[] {
  const { cause } = error
  if (cause === undefined) return []
  return [`Caused by: ${cause instanceof Error ? cause.stack : Deno.inspect(cause)}`]
}

function write(stream: typeof Deno.stdout, text: string): boolean {
  let bytes = new TextEncoder().encode(text)
  try {
    while (bytes.length > 0) bytes = bytes.subarray(stream.writeSync(bytes))
    return true
  } catch {
    // Whoever runs a stack must not fall over a terminal that has gone: the caller decides what that means.
    return false
  }
}

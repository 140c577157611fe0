/**
 * Where log lines leave the isolate. The hosted platform makes one event of each call to the console and takes the
 * level from the method. Under plain Deno such a call is a system call and costs more than the rest of a request, so
 * the lines of one turn of the event loop are written to standard output together.
 */
type Level = 'debug' | 'info' | 'warn' | 'error'

let write: ((level: Level, line: string) => void) | undefined

/** Never throws, never waits. */
export function writeLine(level: Level, line: string): void {
  write ??= isPlainDeno() ? standardOutput() : toConsole
  write(level, line)
}

/** The hosted runtime names itself in its version; only a bare number is sure to be Deno with a standard output. */
function isPlainDeno(): boolean {
  return /^\d+\.\d+\.\d+$/.test(globalThis.Deno?.version?.deno ?? '')
}

function toConsole(level: Level, line: string): void {
  // deno-lint-ignore no-console
  console[level === 'info' ? 'log' : level](line)
}

function standardOutput(): (level: Level, line: string) => void {
  const encoder = new TextEncoder()
  let lines = ''

  const flush = () => {
    let bytes = encoder.encode(lines)
    lines = ''
    try {
      while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes))
    } catch {
      // Whoever read the output is gone; a log must not fail the work.
    }
  }

  // An isolate that ends in this very turn still says its last lines.
  globalThis.addEventListener('unload', flush)
  return (_level, line) => {
    if (lines === '') setTimeout(flush, 0)
    lines += `${line}\n`
  }
}

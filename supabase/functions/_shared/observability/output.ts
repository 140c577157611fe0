/**
 * Where log lines leave the isolate. The hosted platform makes one event of each call to the console and takes the
 * level from the method. Under plain Deno such a call is a system call and costs more than the rest of a request, so
 * there a line leaves at once when it comes alone, and those that come close behind it leave together.
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

/** Lines that follow another within this time leave together. */
const batchMs = 10
/** More than this leaves at once: what reads the other end of a pipe takes 64 KB without making us wait. */
const batchLength = 16_384

function standardOutput(): (level: Level, line: string) => void {
  const encoder = new TextEncoder()
  let lines = ''
  let batching = false

  const flush = () => {
    let bytes = encoder.encode(lines)
    lines = ''
    try {
      while (bytes.length > 0) bytes = bytes.subarray(Deno.stdout.writeSync(bytes))
    } catch {
      // Whoever read the output is gone; a log must not fail the work.
    }
  }
  const nextBatch = () => {
    batching = lines !== ''
    flush()
    if (batching) setTimeout(nextBatch, batchMs)
  }

  // An isolate that ends in between, well or not, still says its last lines.
  for (const ending of ['unload', 'error', 'unhandledrejection']) globalThis.addEventListener(ending, flush)
  return (_level, line) => {
    lines += `${line}\n`
    if (!batching) nextBatch()
    else if (lines.length > batchLength) flush()
  }
}

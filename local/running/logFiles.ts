/** The log of each function as a file of its own, which `npm run logs` reads. */
import { join } from 'node:path'

export interface LogEntry {
  /** The name of a function, or `stack` for what the local stack itself has to say. */
  name: string
  text: string
  at: Date
  /** Which isolate wrote it; absent where none did. */
  isolate?: string
  stream: 'stdout' | 'stderr' | 'host'
}

/** What one line of a log file says; lines that others wrote into it have their text only. */
export interface LogLine {
  at?: Date
  isolate?: string
  stream?: string
  text: string
}

/** A file that has grown beyond this is put aside once (`.1`) when the stack starts, and begun anew. */
const maxBytes = 10 * 1024 * 1024

function logDirectory(localDir: string): string {
  return join(localDir, 'logs')
}

export function logFile(localDir: string, name: string): string {
  return join(logDirectory(localDir), `${name}.log`)
}

/** Names that have a log, in alphabetical order. */
export async function logNames(localDir: string): Promise<string[]> {
  try {
    const entries = await Array.fromAsync(Deno.readDir(logDirectory(localDir)))
    return entries.flatMap(({ name }) => name.endsWith('.log') ? [name.slice(0, -4)] : []).sort()
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return []
    throw error
  }
}

/** Reads what `LogFiles` writes: `time isolate stream text`, a dash where no isolate wrote it. */
export function parseLogLine(line: string): LogLine {
  const [, time, isolate, stream, text] =
    /^(\d{4}-\d\d-\d\dT[\d:.]+Z) (\S+) (stdout|stderr|host) (.*)$/.exec(line) ?? []
  if (time === undefined) return { text: line }
  return { at: new Date(time), isolate: isolate === '-' ? undefined : isolate, stream, text: text ?? '' }
}

/** Appends entries to their files, one line of the file for each line of the text. */
export class LogFiles {
  readonly #localDir: string
  readonly #files = new Map<string, Deno.FsFile>()

  constructor(localDir: string) {
    this.#localDir = localDir
    Deno.mkdirSync(logDirectory(localDir), { recursive: true })
  }

  append(entry: LogEntry): void {
    const prefix = `${entry.at.toISOString()} ${entry.isolate || '-'} ${entry.stream}`
    const lines = entry.text.replace(/\n$/, '').split('\n')
    const bytes = new TextEncoder().encode(lines.map((line) => `${prefix} ${line}\n`).join(''))
    const file = this.#open(entry.name)
    for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written))
  }

  close(): void {
    for (const file of this.#files.values()) file.close()
    this.#files.clear()
  }

  #open(name: string): Deno.FsFile {
    const open = this.#files.get(name)
    if (open !== undefined) return open
    const path = logFile(this.#localDir, name)
    putAsideWhenBig(path)
    const file = Deno.openSync(path, { append: true, create: true, mode: 0o600 })
    this.#files.set(name, file)
    return file
  }
}

function putAsideWhenBig(path: string): void {
  try {
    if (Deno.statSync(path).size > maxBytes) Deno.renameSync(path, `${path}.1`)
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error
  }
}

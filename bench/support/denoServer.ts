/** A server in a Deno process of its own, started as the functions host starts isolates. */
import { readProcessUsage } from '../../local/functions/processUsage.ts'
import { denoCommand, type DenoScript } from './denoCommand.ts'

/** The script says its port in the first line of standard error. */
export interface DenoServerOptions extends DenoScript {
  /** Where its standard output goes: a file, as a log collector would take it. */
  logFile: string
}

export interface DenoServer {
  readonly url: string
  /** Processor time of all its threads so far. */
  cpuMs(): Promise<number>
}

/** Spawns at once, so that whoever ends it can have it before it listens; then `ready` resolves. */
export function startDenoServer(
  options: DenoServerOptions,
): AsyncDisposable & { ready: Promise<DenoServer> } {
  const process = new Deno.Command('sh', {
    // Only a shell can hand over a file as standard output; `exec` gives its pid to the server.
    args: ['-c', 'exec "$@" >"$0"', options.logFile, ...denoCommand(options)],
    cwd: options.project.root,
    stdin: 'null',
    stdout: 'null',
    stderr: 'piped',
  }).spawn()
  const errors = process.stderr.pipeThrough(new TextDecoderStream()).getReader()
  const ready = readPort(errors).then((port) => ({
    url: `http://127.0.0.1:${port}`,
    cpuMs: () => cpuMs(process.pid),
  }))
  // Whoever waits for it hears of a failure; nobody waits any more when the bench is interrupted.
  ready.catch(() => {})
  return {
    ready,
    async [Symbol.asyncDispose]() {
      killQuietly(process)
      await process.status
      await errors.cancel()
    },
  }
}

async function readPort(errors: ReadableStreamDefaultReader<string>): Promise<number> {
  let text = ''
  for (;;) {
    const { value, done } = await errors.read()
    text += value ?? ''
    const [, port] = /^(\d+)\n/.exec(text) ?? []
    if (port !== undefined) return Number(port)
    if (done) throw new Error(`Cannot start a server: it ended before it listened: ${text.trim()}`)
  }
}

async function cpuMs(pid: number): Promise<number> {
  const usage = await readProcessUsage(pid)
  if (usage === undefined) throw new Error('Cannot measure a server: its process has ended')
  return usage.cpuMs
}

function killQuietly(process: Deno.ChildProcess): void {
  try {
    process.kill('SIGKILL')
  } catch {
    // It has ended by itself.
  }
}

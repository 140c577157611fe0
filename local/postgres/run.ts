/** Runs a program to its end and returns what it said: no shell, no inherited settings, never a hanging terminal. */
import type { Account } from './account.ts'

export interface RunOptions {
  /** Runs the program as this account; only root can ask for it. */
  account?: Account
  cwd?: string
  /** Added to PATH and HOME; everything else of our environment (PGHOST, PGDATA, LC_*, …) stays out. */
  env?: Record<string, string>
  /** Given to the program on its standard input, which is otherwise empty. */
  input?: string
  /** Ends the program when it fires. */
  signal?: AbortSignal
}

export interface RunResult {
  success: boolean
  code: number
  stdout: string
  stderr: string
}

/** A program that cannot be started (absent, not executable) counts as one that failed, with the reason in `stderr`. */
export async function run(program: string, args: string[], options: RunOptions = {}): Promise<RunResult> {
  try {
    const child = command(program, args, options).spawn()
    const [output] = await Promise.all([child.output(), feed(child, options.input)])
    return {
      success: output.success,
      code: output.code,
      stdout: decode(output.stdout),
      stderr: decode(output.stderr),
    }
  } catch (error) {
    options.signal?.throwIfAborted()
    return {
      success: false,
      code: 127,
      stdout: '',
      stderr: error instanceof Error ? error.message : String(error),
    }
  }
}

/** As `run`, but hands each line of the program's output over as it comes. */
export async function runWithLines(
  program: string,
  args: string[],
  options: RunOptions & { onLine: (line: string) => void },
): Promise<RunResult> {
  const child = command(program, args, options).spawn()
  const stderr = new Response(child.stderr).text()
  let stdout = ''
  let rest = ''
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    stdout += text
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) options.onLine(line)
  }
  if (rest !== '') options.onLine(rest)
  const status = await child.status
  return { success: status.success, code: status.code, stdout: stdout.trim(), stderr: (await stderr).trim() }
}

function command(program: string, args: string[], options: RunOptions): Deno.Command {
  const { account, cwd, env, input, signal } = options
  return new Deno.Command(program, {
    args,
    cwd,
    signal,
    clearEnv: true,
    env: { PATH: searchPath(), HOME: Deno.env.get('HOME') ?? '/', LC_ALL: 'C.UTF-8', ...env },
    ...(account === undefined ? {} : { uid: account.uid, gid: account.gid }),
    stdin: input === undefined ? 'null' : 'piped',
    stdout: 'piped',
    stderr: 'piped',
  })
}

async function feed(child: Deno.ChildProcess, input: string | undefined): Promise<void> {
  if (input === undefined) return
  const writer = child.stdin.getWriter()
  try {
    await writer.write(new TextEncoder().encode(input))
    await writer.close()
  } catch (error) {
    // A program that ends without reading says why itself, by its exit code and its output.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error
  }
}

/** The caller's PATH, with the directories where administrators' tools live: users' own often lack those. */
function searchPath(): string {
  return [Deno.env.get('PATH'), '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin']
    .filter((part) => part)
    .join(':')
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes).trim()
}

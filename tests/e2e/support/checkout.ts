/**
 * A copy of this project with a database, ports and state of its own, whose commands are run as a person would run
 * them. Tests may break its files; nothing of it outlives the test file.
 */
import { join } from 'node:path'
import process from 'node:process'
import { inject } from 'vitest'
import { openProject } from '../../../local/project.ts'
import { isFree, portsFrom } from '../../../local/running/ports.ts'
import { closeAfterFile } from '../../support/leftovers.ts'
import '../../support/provided.ts'
import { listProcesses, type ProcessInfo } from '../../support/processes.ts'
import { waitFor } from '../../support/wait.ts'

export interface CommandResult {
  code: number
  stdout: string
  stderr: string
}

export interface StatusKeys {
  API_URL: string
  FUNCTIONS_URL: string
  DB_URL: string
  PAYMENTS_URL: string
  PUBLISHABLE_KEY: string
  SECRET_KEY: string
  JWT_SECRET: string
  DEMO_USERS: { email: string; password: string }[]
}

/** What a command may see of our environment; everything else would make tests depend on who runs them. */
const inherited = [
  'PATH',
  'HOME',
  'DENO_DIR',
  'DENO_COVERAGE_DIR',
  'LANG',
  'TMPDIR',
  'SSL_CERT_FILE',
  'DENO_TLS_CA_STORE',
]
const copied = ['local', 'supabase', 'package.json', 'package-lock.json', 'deno.json']

export class Checkout {
  readonly root: string
  readonly port: number

  private constructor(root: string, port: number) {
    this.root = root
    this.port = port
  }

  /** Ends with the test file: what runs in it is stopped, and its files are removed. */
  static async open(): Promise<Checkout> {
    const root = await Deno.makeTempDir({ dir: inject('runDir'), prefix: 'checkout-' })
    await Deno.chmod(root, 0o755)
    const original = openProject().root
    for (const name of copied) await copy(join(original, name), join(root, name))
    await Deno.symlink(join(original, 'node_modules'), join(root, 'node_modules'))
    const checkout = new Checkout(root, freePort())
    closeAfterFile({ name: `the checkout ${root}`, close: () => checkout.#close() })
    return checkout
  }

  get localDir(): string {
    return join(this.root, '.local')
  }

  path(...parts: string[]): string {
    return join(this.root, ...parts)
  }

  /** Runs a command of the local stack to its end, through the bootstrap that every npm script goes through. */
  async run(args: string[], env: Record<string, string> = {}): Promise<CommandResult> {
    return await output(this.#command('node', ['local/run.mjs', 'local/main.ts', ...args], env))
  }

  /** Starts in the background on this checkout's ports. */
  async start(args: string[] = [], env: Record<string, string> = {}): Promise<CommandResult> {
    return await this.run(['start', '--detach', '--port', String(this.port), ...args], env)
  }

  /** What `npm run status -- --json` prints; throws when nothing runs. */
  async status(env: Record<string, string> = {}): Promise<StatusKeys> {
    const { code, stdout, stderr } = await this.run(['status', '--json'], env)
    if (code !== 0) throw new Error(`status ended with ${code}: ${stderr}`)
    return JSON.parse(stdout)
  }

  /** Runs a text as a person would who pastes it into a shell in the project's folder. */
  async paste(text: string): Promise<CommandResult> {
    return await output(this.#command('sh', ['-c', text], {}))
  }

  /** Starts `npm start` in a process group of its own, as a terminal does; Ctrl-C is a SIGINT to the whole group. */
  startInForeground(): RunningCommand {
    const child = this.#command('npm', ['start', '--', '--port', String(this.port)], {}, true).spawn()
    return new RunningCommand(child)
  }

  /** Starts a command that goes on until it is told to stop. */
  follow(args: string[]): RunningCommand {
    return new RunningCommand(this.#command('node', ['local/run.mjs', 'local/main.ts', ...args], {}).spawn())
  }

  /** Everything that runs for this checkout, servers and isolates included. */
  async processes(): Promise<ProcessInfo[]> {
    return (await listProcesses()).filter(({ command }) => command.includes(this.root))
  }

  async noProcesses(): Promise<void> {
    await waitFor(async () => {
      const left = await this.processes()
      if (left.length > 0) throw new Error(left.map(({ command }) => command.slice(0, 120)).join('; '))
      return true
    }, { what: 'every process of the checkout to end', timeoutMs: 10_000, everyMs: 50 })
  }

  async #close(): Promise<void> {
    await this.run(['stop'])
    await this.run(['reset'])
    await this.noProcesses()
    await Deno.remove(this.root, { recursive: true })
  }

  #command(program: string, args: string[], env: Record<string, string>, detached = false): Deno.Command {
    const own: Record<string, string> = { NO_COLOR: '1' }
    for (const name of inherited) {
      const value = process.env[name]
      if (value !== undefined) own[name] = value
    }
    return new Deno.Command(program, {
      args,
      cwd: this.root,
      clearEnv: true,
      env: { ...own, ...env },
      stdin: 'null',
      stdout: 'piped',
      stderr: 'piped',
      detached,
    })
  }
}

/** A command that goes on until it is told to stop. */
export class RunningCommand {
  readonly #child: Deno.ChildProcess
  readonly #reading: Promise<void>
  /** Everything it has printed so far. */
  text = ''

  constructor(child: Deno.ChildProcess) {
    this.#child = child
    this.#reading = Promise.all([this.#read(child.stdout), this.#read(child.stderr)]).then(() => undefined)
  }

  async ready(): Promise<void> {
    await this.shows('Holdfast is ready')
  }

  async shows(part: string): Promise<void> {
    await waitFor(() => this.text.includes(part), {
      what: `"${part}" in:\n${this.text}`,
      timeoutMs: 30_000,
      everyMs: 20,
    })
  }

  /** As the terminal would: to npm, its shell, the bootstrap and the stack at once. */
  signalGroup(signal: Deno.Signal): void {
    Deno.kill(-this.#child.pid, signal)
  }

  stop(): void {
    this.#child.kill('SIGTERM')
  }

  get pid(): number {
    return this.#child.pid
  }

  async end(): Promise<Deno.CommandStatus> {
    const status = await this.#child.status
    await this.#reading
    return status
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) this.text += text
  }
}

async function output(command: Deno.Command): Promise<CommandResult> {
  const { code, stdout, stderr } = await command.output()
  const decoder = new TextDecoder()
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) }
}

async function copy(from: string, to: string): Promise<void> {
  const { success, stderr } = await new Deno.Command('cp', { args: ['-R', from, to] }).output()
  if (!success) throw new Error(new TextDecoder().decode(stderr))
}

/** A number from which all ports of a stack are free, away from what other files may be taking. */
function freePort(): number {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = 20_000 + Math.floor(Math.random() * 1_000) * 10
    if (Object.values(portsFrom(port)).every(isFree)) return port
  }
  throw new Error('Cannot find free ports')
}

/** How an isolate's process is started: Deno, with what a hosted function may do and no more. */
import { fileURLToPath } from 'node:url'
import type { IsolateSetup } from './protocol.ts'
import { setupVariable } from './protocol.ts'

/** Where `npm:` packages come from: the project's `node_modules`, or Deno's own cache, which it fills itself. */
export type PackageSource = 'node_modules' | 'cache'

export interface ProcessOptions {
  setup: Omit<IsolateSetup, 'hiddenVariables'>
  cwd: string
  importMap: string | undefined
  packages: PackageSource
  memoryMb: number
  /** The function's whole environment. */
  env: Record<string, string>
}

const runtime = fileURLToPath(new URL('./runtime.ts', import.meta.url))

/** What Deno needs of the host's environment to start; functions do not see it. */
const forTheStart = [
  'HOME',
  'PATH',
  'DENO_DIR',
  // Coverage counts what runs in isolates, too.
  'DENO_COVERAGE_DIR',
]

/** How this machine reaches the network, if not directly. Deno looks when it first connects, so these stay. */
const forTheNetwork = [
  ...['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'no_proxy'],
  'NPM_CONFIG_REGISTRY',
  'DENO_TLS_CA_STORE',
]

/** Starts the process; nothing of it is ready yet. Throws when Deno itself cannot be started. */
export function spawnIsolate(options: ProcessOptions): Deno.ChildProcess {
  const startEnv = { ...inherit(forTheStart), NO_COLOR: '1', DENO_NO_UPDATE_CHECK: '1' }
  const hiddenVariables = Object.keys(startEnv).filter((name) => !(name in options.env))
  const setup: IsolateSetup = { ...options.setup, hiddenVariables }
  return new Deno.Command(Deno.execPath(), {
    args: denoArguments(options),
    env: { ...startEnv, ...inherit(forTheNetwork), ...options.env, [setupVariable]: JSON.stringify(setup) },
    clearEnv: true,
    cwd: options.cwd,
    stdin: 'null',
    stdout: 'piped',
    stderr: 'piped',
    // Out of the terminal's process group: Ctrl-C is for the host, which then ends its isolates.
    detached: true,
  }).spawn()
}

function inherit(names: string[]): Record<string, string> {
  const found: Record<string, string> = {}
  for (const name of names) {
    const value = Deno.env.get(name)
    if (value !== undefined) found[name] = value
  }
  return found
}

/** A machine behind an inspecting proxy has certificates of its own, which Deno and Node are told of by variables. */
function certificateArguments(): string[] {
  const file = Deno.env.get('DENO_CERT') ?? Deno.env.get('NODE_EXTRA_CA_CERTS')
  return file === undefined || file === '' ? [] : [`--cert=${file}`]
}

function denoArguments(options: ProcessOptions): string[] {
  return [
    'run',
    '--quiet',
    '--no-prompt',
    '--no-lock',
    ...importArguments(options),
    ...certificateArguments(),
    '--allow-net',
    '--allow-env',
    '--allow-read',
    '--allow-sys',
    '--allow-import',
    '--allow-write=/tmp',
    // Without it `request.signal` aborts after every response, not only when the client has left.
    '--unstable-no-legacy-abort',
    `--v8-flags=--max-old-space-size=${options.memoryMb}`,
    runtime,
  ]
}

/** How Deno is told what a function's imports mean. */
export function importArguments(
  { importMap, packages }: Pick<ProcessOptions, 'importMap' | 'packages'>,
): string[] {
  const mode = `--node-modules-dir=${packages === 'node_modules' ? 'manual' : 'none'}`
  if (importMap === undefined) return ['--no-config', mode]
  return /deno\.jsonc?$/.test(importMap)
    ? ['--config', importMap, mode]
    : ['--no-config', '--import-map', importMap, mode]
}

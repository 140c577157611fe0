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

/** What Deno needs of the host's environment to start and to fetch packages; functions never see it. */
const inherited = [
  'HOME',
  'PATH',
  'DENO_DIR',
  // Coverage counts what runs in isolates, too.
  'DENO_COVERAGE_DIR',
  'NPM_CONFIG_REGISTRY',
  'HTTP_PROXY',
  'HTTPS_PROXY',
  'NO_PROXY',
  'DENO_CERT',
  'DENO_TLS_CA_STORE',
  'SSL_CERT_FILE',
]

/** Starts the process; nothing of it is ready yet. Throws when Deno itself cannot be started. */
export function spawnIsolate(options: ProcessOptions): Deno.ChildProcess {
  const processEnv: Record<string, string> = { NO_COLOR: '1', DENO_NO_UPDATE_CHECK: '1' }
  for (const name of inherited) {
    const value = Deno.env.get(name)
    if (value !== undefined) processEnv[name] = value
  }
  const hiddenVariables = Object.keys(processEnv).filter((name) => !(name in options.env))
  const setup: IsolateSetup = { ...options.setup, hiddenVariables }
  return new Deno.Command(Deno.execPath(), {
    args: denoArguments(options),
    env: { ...processEnv, ...options.env, [setupVariable]: JSON.stringify(setup) },
    clearEnv: true,
    cwd: options.cwd,
    stdin: 'null',
    stdout: 'piped',
    stderr: 'piped',
    // Out of the terminal's process group: Ctrl-C is for the host, which then ends its isolates.
    detached: true,
  }).spawn()
}

function denoArguments(options: ProcessOptions): string[] {
  return [
    'run',
    '--quiet',
    '--no-prompt',
    '--no-lock',
    ...importArguments(options),
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

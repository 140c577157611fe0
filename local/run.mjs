/**
 * What every npm script goes through: makes sure that the packages of package-lock.json are installed, then runs a
 * script with the project's own Deno. Plain Node 20 without dependencies, since node_modules may be absent.
 *
 *     node local/run.mjs SCRIPT [ARGUMENTS]
 *
 * The script's exit code is ours. HOLDFAST_LOCAL_DIR moves `.local`.
 */
import { spawn } from 'node:child_process'
import { accessSync, chmodSync, constants, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const localDir = resolve(process.env.HOLDFAST_LOCAL_DIR || join(root, '.local'))
const packagesDir = join(root, 'node_modules')
const signalNumbers = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 }

process.exitCode = await main(process.argv.slice(2))

async function main([script, ...args]) {
  let launchedAt = Date.now()
  if (Number(process.versions.node.split('.')[0]) < 20) {
    return fail(`Node ${process.versions.node} is too old`, process.execPath, 'Install Node 20 or later.')
  }
  if (process.platform === 'win32') {
    return fail('Windows is not supported by itself', root, 'Run the project inside WSL.')
  }
  if (script === undefined) {
    return fail('No script given', root, 'Use the scripts of package.json: npm start.')
  }
  if (!packagesAreCurrent()) {
    const code = await installPackages()
    if (code !== 0) return code
    launchedAt = Date.now()
  }
  const deno = findDeno()
  if (deno === undefined) {
    return fail(
      `The Deno binary for ${process.platform}-${process.arch} is not installed`,
      join(packagesDir, '@deno'),
      'Run npm ci --include=optional --include=dev.',
    )
  }
  return await run(deno, script, args, launchedAt)
}

/** Whether node_modules holds what package-lock.json asks for, by npm's own record of its last installation. */
function packagesAreCurrent() {
  const wanted = readPackages(join(root, 'package-lock.json'))
  const installed = readPackages(join(packagesDir, '.package-lock.json'))
  if (installed === undefined) return false
  return Object.entries(wanted ?? {}).every(([path, wantedPackage]) => {
    if (path === '') return true
    const found = installed[path]
    return found === undefined ? wantedPackage.optional === true : found.version === wantedPackage.version
  })
}

function readPackages(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages
  } catch {
    return undefined
  }
}

/** Runs `npm ci`, showing how far it is. Nothing here depends on install scripts, which npm may refuse to run. */
function installPackages() {
  const total =
    Object.values(readPackages(join(root, 'package-lock.json')) ?? {}).filter(fitsThisMachine).length - 1
  const npm = process.env.npm_execpath
  const isScript = npm !== undefined && /\.c?js$/.test(npm)
  const args = ['ci', '--include=dev', '--include=optional', '--ignore-scripts', '--no-audit', '--no-fund']
  args.push('--no-update-notifier', '--loglevel=http')
  const child = spawn(isScript ? process.execPath : 'npm', isScript ? [npm, ...args] : args, {
    cwd: root,
    env: { ...process.env, npm_config_cache: npmCache() },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const progress = installProgress(total)
  const errors = []
  createInterface({ input: child.stderr }).on('line', (line) => {
    if (/^npm http (fetch|cache) .*\.tgz\b/.test(line)) progress.fetched()
    else if (/^npm (error|ERR!)/.test(line)) errors.push(line.replace(/^npm (error|ERR!) ?/, '  '))
  })
  const forward = forwardSignals(child)
  return new Promise((settle) => {
    child.on('error', (error) => {
      forward.stop()
      settle(fail(`Cannot run npm: ${error.message}`, root, 'Install npm, then run npm ci.'))
    })
    child.on('close', (code, signal) => {
      forward.stop()
      progress.end()
      if (code === 0) return settle(0)
      if (signal !== null) return settle(128 + (signalNumbers[signal] ?? 1))
      for (const line of errors) process.stderr.write(`${line}\n`)
      settle(fail('npm ci failed', root, 'See above; check the network, then run npm ci.', code))
    })
  })
}

/** npm's own cache where it can be written, else one of ours: HOME may be empty, unset or someone else's. */
function npmCache() {
  const home = process.env.HOME || homedir()
  const usual = process.env.npm_config_cache || (home && join(home, '.npm'))
  // With an empty HOME npm names a folder called "~" in the current one.
  if (usual && isAbsolute(usual)) {
    try {
      mkdirSync(usual, { recursive: true })
      accessSync(usual, constants.W_OK)
      return usual
    } catch {
      // Not writable: use our own.
    }
  }
  return join(localDir, 'npm')
}

function installProgress(total) {
  const terminal = process.stderr.isTTY
  const startedAt = Date.now()
  let count = 0
  const show = () =>
    process.stderr.write(`\r\x1b[K◒  Installing packages: ${Math.min(count, total)} of ${total}`)
  if (terminal) show()
  else process.stderr.write(`Installing ${total} packages\n`)
  return {
    fetched() {
      count++
      if (terminal) show()
    },
    end() {
      if (!terminal) return
      const seconds = ((Date.now() - startedAt) / 1000).toFixed(1)
      process.stderr.write(`\r\x1b[K◇  Installing packages  ${seconds} s\n`)
    },
  }
}

function fitsThisMachine({ os, cpu }) {
  return (os === undefined || os.includes(process.platform)) &&
    (cpu === undefined || cpu.includes(process.arch))
}

/** The binary itself: `.bin/deno` is a Node script unless deno's install script was allowed to run. */
function findDeno() {
  const scope = join(packagesDir, '@deno')
  const platform = `${process.platform}-${process.arch}`
  const folders = existsSync(scope) ? readdirSync(scope).filter((name) => name.startsWith(platform)) : []
  for (const folder of folders) {
    const binary = join(scope, folder, 'deno')
    if (!existsSync(binary)) continue
    try {
      accessSync(binary, constants.X_OK)
    } catch {
      chmodSync(binary, 0o755)
    }
    return binary
  }
  const linked = join(packagesDir, '.bin', 'deno')
  return existsSync(linked) ? linked : undefined
}

function run(deno, script, args, launchedAt) {
  const child = spawn(deno, ['run', '-A', script, ...args], {
    cwd: root,
    env: {
      ...process.env,
      DENO_DIR: process.env.DENO_DIR || join(localDir, 'deno'),
      DENO_NO_UPDATE_CHECK: '1',
      HOLDFAST_LAUNCHED_AT: String(launchedAt),
    },
    // The commands of the local stack read no keyboard: progress.ts says why they must not have one.
    stdio: [script === 'local/main.ts' ? 'ignore' : 'inherit', 'inherit', 'inherit'],
  })
  const forward = forwardSignals(child)
  const watch = endWithNpm(child)
  return new Promise((settle) => {
    child.on('error', (error) => settle(fail(`Cannot run Deno: ${error.message}`, deno, 'Run npm ci.')))
    child.on('exit', (code, signal) => {
      clearInterval(watch)
      forward.stop()
      settle(code ?? 128 + (signalNumbers[signal] ?? 1))
    })
  })
}

/** We wait for the child to end by itself. Ctrl-C reaches it twice, from the terminal and from us: it takes both for one. */
function forwardSignals(child) {
  const handlers = ['SIGINT', 'SIGTERM', 'SIGHUP'].map((name) => {
    const handler = () => child.kill(name)
    process.on(name, handler)
    return [name, handler]
  })
  return { stop: () => handlers.forEach(([name, handler]) => process.off(name, handler)) }
}

/** An npm that was killed cannot pass a signal on: without it we are nobody's, and end in order. */
function endWithNpm(child) {
  if (process.env.npm_lifecycle_event === undefined) return undefined
  const launchers = currentLaunchers()
  return setInterval(() => {
    if (currentLaunchers() !== launchers) child.kill('SIGTERM')
  }, 1000)
}

/** Our parent, which may be npm's shell, and (where /proc tells) the parent of that. */
function currentLaunchers() {
  try {
    const stat = readFileSync(`/proc/${process.ppid}/stat`, 'utf8')
    return `${process.ppid} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]}`
  } catch {
    return String(process.ppid)
  }
}

function fail(message, where, fix, code = 1) {
  process.stderr.write(`\nError: ${message}\n  where: ${where}\n  fix:   ${fix}\n`)
  return code
}

/** Imports the files it is given and says which of them have an effect. Started by importEffects.ts. */
import process from 'node:process'
import { pathToFileURL } from 'node:url'

let importing = ''
let effects = 0

for (const name of ['setTimeout', 'setInterval', 'fetch']) watch(globalThis, name)
hideEnvironment()
for (const name of ['log', 'info', 'warn', 'error', 'debug']) watch(globalThis.console, name)

for (const file of Deno.args) {
  importing = file
  try {
    await import(pathToFileURL(file).href)
  } catch (error) {
    report(
      `cannot be imported with the right to read files alone: ${
        error instanceof Error ? error.message : error
      }`,
    )
  }
}
Deno.exit(effects > 0 ? 1 : 0)

function watch(owner: object, name: string): void {
  const original: unknown = Reflect.get(owner, name)
  if (typeof original !== 'function') return
  Reflect.set(owner, name, (...args: unknown[]) => {
    report(`calls ${name} when it is imported`)
    return original.apply(owner, args)
  })
}

/** Packages may ask where they run, and find nothing; a file of ours that asks is told on. */
function hideEnvironment(): void {
  const value = new Proxy({}, {
    get(_empty, name) {
      if (!new Error().stack?.includes('/node_modules/')) {
        report(`reads ${String(name)} from process.env when it is imported`)
      }
      return undefined
    },
  })
  Object.defineProperty(process, 'env', { value })
}

function report(what: string): void {
  effects++
  process.stderr.write(`${importing} ${what}\n`)
}

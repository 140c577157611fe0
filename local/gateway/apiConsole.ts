/**
 * `@supabase/lite` prints the whole error object for each statement that PostgreSQL refuses, be it a mere 403.
 * What is printed on behalf of an API request becomes one line of the log instead; all other printing is untouched.
 */
import { AsyncLocalStorage } from 'node:async_hooks'

const methods = ['error', 'warn', 'log'] as const

const sinks = new AsyncLocalStorage<(line: string) => void>()
let users = 0
let restore = () => {}

/** Runs `work`; what it prints goes to `sink`. Needs {@linkcode interceptConsole} to be in force. */
export function printingTo<Result>(
  sink: (line: string) => void,
  work: () => Promise<Result>,
): Promise<Result> {
  return sinks.run(sink, work)
}

/** In force until the returned function is called; several stacks in one process share it. */
export function interceptConsole(): () => void {
  if (users++ === 0) restore = replaceMethods()
  let released = false
  return () => {
    if (released) return
    released = true
    if (--users === 0) restore()
  }
}

function replaceMethods(): () => void {
  const target = globalThis.console
  const originals = methods.map((name) => [name, target[name]] as const)
  for (const [name, original] of originals) {
    target[name] = (...values: unknown[]) => {
      const sink = sinks.getStore()
      if (sink === undefined) original.apply(target, values)
      else sink(values.map(summary).join(' '))
    }
  }
  return () => {
    for (const [name, original] of originals) target[name] = original
  }
}

function summary(value: unknown): string {
  if (!(value instanceof Error)) {
    return typeof value === 'string' ? value : Deno.inspect(value, { compact: true })
  }
  const code = 'code' in value && typeof value.code === 'string' ? ` (${value.code})` : ''
  return `${value.message}${code}`
}

/** How a tool ends: one line that says what it did, or the reason why it could not and exit code 1. */
import process from 'node:process'
import { LocalError } from '../local/errors.ts'

export async function runCommand(work: () => Promise<string>): Promise<void> {
  try {
    process.stdout.write(`${await work()}\n`)
  } catch (error) {
    process.stderr.write(`${describe(error)}\n`)
    process.exitCode = 1
  }
}

function describe(error: unknown): string {
  if (error instanceof LocalError) {
    return [error.message, error.where, error.fix].filter((line) => line !== undefined).join('\n')
  }
  return error instanceof Error ? error.message : Deno.inspect(error)
}

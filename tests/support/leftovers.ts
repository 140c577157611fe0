/**
 * What a test file opens through the support modules ends with the file, and what is open after that was opened by
 * the tests themselves and forgotten: it fails the file. tests/support/afterFile.ts calls this after each file.
 */
import { descendantsOf } from './processes.ts'
import { waitFor } from './wait.ts'

/** Something that ends with the file at the latest. Closing twice must do no harm. */
export interface Leftover {
  /** For error messages: `database test_81_2`. */
  name: string
  close(): Promise<void>
  /** Looks for what tests have forgotten, once everything that was opened later is closed; throws saying what. */
  check?(): Promise<void>
}

const opened: Leftover[] = []

/** Closes `leftover` when the file ends, before those that were opened earlier. */
export function closeAfterFile(leftover: Leftover): void {
  opened.push(leftover)
}

/** Closes everything, last opened first, and throws one error that lists all that was found open or failed. */
export async function closeLeftovers(): Promise<void> {
  const problems: unknown[] = []
  const attempt = async (what: string, work: () => Promise<void>) => {
    try {
      await work()
    } catch (cause) {
      problems.push(new Error(`${what}: ${cause instanceof Error ? cause.message : cause}`, { cause }))
    }
  }
  for (const leftover of opened.splice(0).reverse()) {
    if (leftover.check) await attempt(`After this file ${leftover.name} is still in use`, leftover.check)
    await attempt(`Cannot close ${leftover.name}`, leftover.close)
  }
  await attempt('After this file processes that it has started still run', noChildren)
  if (problems.length === 1) throw problems[0]
  if (problems.length > 1) {
    const list = problems.map((problem) => problem instanceof Error ? problem.message : String(problem))
    throw new AggregateError(problems, list.join('\n'))
  }
}

async function noChildren(): Promise<void> {
  let alive: string[] = []
  await waitFor(async () => {
    const children = await descendantsOf(Deno.pid)
    alive = children.map(({ pid, command }) => `${pid} ${command.slice(0, 200)}`)
    return alive.length === 0
  }, { what: 'the processes of this file to end', timeoutMs: 2_000, everyMs: 20 }).catch((error) => {
    if (alive.length === 0) throw error
    throw new Error(alive.join('; '))
  })
}

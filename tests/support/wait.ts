/** Waiting for a condition, with a bound and an error that says what was missing. */

export interface WaitOptions {
  /** What is waited for, as the end of "Waited 2000 ms for …". */
  what: string
  /** @default 5000 */
  timeoutMs?: number
  /** Pause between two looks. @default 10 */
  everyMs?: number
}

/**
 * Calls `condition` until it gives something truthy and returns that. A condition that throws counts as "not yet":
 * its last error, or its last value, is part of the message when the time is over, and a condition that never
 * answers does not outlast the bound either.
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  options: WaitOptions,
): Promise<NonNullable<T>> {
  const { what, timeoutMs = 5_000, everyMs = 10 } = options
  const deadlineAt = performance.now() + timeoutMs
  let seen: Seen<T> = { kind: 'nothing' }
  for (;;) {
    const look = await bounded(observe(condition), deadlineAt - performance.now())
    if (look !== undefined) seen = look
    if (seen.kind === 'value' && seen.value) return seen.value
    const leftMs = deadlineAt - performance.now()
    if (look === undefined || leftMs <= 0) {
      throw new Error(`Waited ${timeoutMs} ms for ${what}; ${describe(seen)}`, {
        cause: seen.kind === 'error' ? seen.error : undefined,
      })
    }
    await new Promise((resolve) => setTimeout(resolve, Math.min(everyMs, leftMs)))
  }
}

type Seen<T> = { kind: 'nothing' } | { kind: 'value'; value: T } | { kind: 'error'; error: unknown }

async function observe<T>(condition: () => T | Promise<T>): Promise<Seen<T>> {
  try {
    return { kind: 'value', value: await condition() }
  } catch (error) {
    return { kind: 'error', error }
  }
}

/** The promise's value, or undefined once the time is over; leaves no timer. */
async function bounded<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), Math.max(ms, 0))
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

function describe(seen: Seen<unknown>): string {
  switch (seen.kind) {
    case 'nothing':
      return 'the condition never answered'
    case 'value':
      return `last seen: ${Deno.inspect(seen.value, { depth: 6 })}`
    case 'error':
      return `last seen: ${seen.error instanceof Error ? seen.error.message : Deno.inspect(seen.error)}`
  }
}

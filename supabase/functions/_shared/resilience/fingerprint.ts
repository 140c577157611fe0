/** What a request comes down to, as a digest: the same intent gives the same one, any other gives another. */
import type { Caller } from '../core/caller.ts'
import { HoldfastError } from '../core/errors.ts'

/** Deeper values are refused rather than followed until the stack is full. */
const maxDepth = 500

/**
 * JSON with one text for each value (as RFC 8785): members sorted by name, no space. Takes what `JSON.parse` gives.
 * Throws `VALIDATION_ERROR` for a value nested deeper than 500 levels.
 */
export function canonicalJson(value: unknown): string {
  return write(value, 0)
}

function write(value: unknown, depth: number): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (depth === maxDepth) {
    throw new HoldfastError(
      'VALIDATION_ERROR',
      `The request is not valid: nested deeper than ${maxDepth} levels`,
    )
  }
  if (Array.isArray(value)) return `[${value.map((item) => write(item, depth + 1)).join(',')}]`
  const record = value as Record<string, unknown>
  const members = Object.keys(record).sort().map((name) =>
    `${JSON.stringify(name)}:${write(record[name], depth + 1)}`
  )
  return `{${members.join(',')}}`
}

/** SHA-256 of the value's canonical text, in hex. */
export async function digestOf(value: unknown): Promise<string> {
  const bytes = new TextEncoder().encode(canonicalJson(value))
  let text = ''
  for (const byte of new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))) {
    text += byte.toString(16).padStart(2, '0')
  }
  return text
}

/** Whose keys these are (IK6): the user, or all who show a key of that kind. */
export function identityOf({ kind, userId }: Caller): string[] {
  return userId === undefined ? [kind] : [kind, userId]
}

/** Takes secrets out of what is about to be logged, by the field's name and by the value's shape. */

const redacted = '[redacted]'
const secretName =
  /^(authorization|proxy-authorization|cookie|set-cookie|apikey|api[-_]?key|jwt|dsn|card(number)?|cvc|iban)$|password|passwd|secret|token|credential|private[-_]?key|signature/i
/** JWTs, Supabase and Stripe secret keys, webhook secrets, bearer credentials, passwords in URLs. */
const secretValue =
  /\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|\bsb_secret_[\w-]+|\b(?:sk|rk)_(?:live|test)_\w+|\bwhsec_[\w+/=-]+|(?<=\b(?:bearer|basic)\s)[\w.~+/=-]{8,}|(?<=\b[a-z][a-z0-9+.-]*:\/\/[^\s:@/]*:)[^\s@/]+(?=@)/gi
/** A part of whatever `secretValue` finds: most texts have none, and looking for that alone is far cheaper. */
const secretHint = /eyj|sb_secret_|_live_|_test_|whsec_|bearer|basic|:\/\//i

const maxDepth = 6
const maxEntries = 50
const maxText = 2_000

/** A copy fit for a log: secrets replaced, errors unfolded with their causes, depth and size bounded, cycles cut. */
export function redact(name: string, value: unknown): unknown {
  return copy(name, value, 0)
}

/** The text with whatever looks like a secret replaced. */
export function redactText(text: string): string {
  const short = text.length > maxText ? `${text.slice(0, maxText)}… (${text.length} characters)` : text
  return secretHint.test(short) ? short.replace(secretValue, redacted) : short
}

function copy(
  name: string,
  value: unknown,
  depth: number,
  seen?: Set<object>,
): unknown {
  if (value === null || value === undefined || typeof value === 'boolean') {
    return value
  }
  if (secretName.test(name)) return redacted
  if (typeof value === 'number') {
    return Number.isFinite(value) ? value : String(value)
  }
  if (typeof value === 'string') return redactText(value)
  if (typeof value !== 'object') return String(value)
  return copyObject(name, value, depth, seen ?? new Set())
}

function copyObject(
  name: string,
  value: object,
  depth: number,
  seen: Set<object>,
): unknown {
  if (seen.has(value)) return '[circular]'
  if (depth >= maxDepth) return '[deep]'
  seen.add(value)
  try {
    if (value instanceof Error) return copyError(value, depth, seen)
    if (value instanceof Date) {
      return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString()
    }
    if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`
    if (Array.isArray(value)) {
      const items = value.slice(0, maxEntries).map((item) => copy(name, item, depth + 1, seen))
      return value.length > maxEntries ? [...items, `… ${value.length - maxEntries} more`] : items
    }
    if (value instanceof Headers || value instanceof Map) {
      return copy(name, Object.fromEntries(value), depth, seen)
    }
    return copyRecord(value, depth, seen)
  } catch (error) {
    return `[unreadable: ${error instanceof Error ? error.message : typeof error}]`
  } finally {
    seen.delete(value)
  }
}

function copyRecord(
  value: object,
  depth: number,
  seen: Set<object>,
): Record<string, unknown> {
  const entries = Object.entries(value)
  const result: Record<string, unknown> = {}
  for (const [name, item] of entries.slice(0, maxEntries)) {
    result[name] = copy(name, item, depth + 1, seen)
  }
  if (entries.length > maxEntries) {
    result['…'] = `${entries.length - maxEntries} more`
  }
  return result
}

function copyError(
  error: Error,
  depth: number,
  seen: Set<object>,
): Record<string, unknown> {
  const result: Record<string, unknown> = {
    name: error.name,
    message: redactText(error.message),
  }
  for (const [name, value] of Object.entries(error)) {
    if (name !== 'name' && name !== 'query' && name !== 'parameters') {
      result[name] = copy(name, value, depth + 1, seen)
    }
  }
  if (error.stack !== undefined) result.stack = redactText(error.stack)
  if (error.cause !== undefined) {
    result.cause = copy('cause', error.cause, depth + 1, seen)
  }
  return result
}

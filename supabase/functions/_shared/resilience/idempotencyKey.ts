/** The idempotency key of a request: the client's name for one intended effect. */
import { HoldfastError } from '../core/errors.ts'

/** Longest key, in characters. */
export const maxKeyLength = 255

/** Where a key may stand in a JSON body, for clients that cannot set headers. */
export const keyField = 'idempotencyKey'

/** A structured-field string (RFC 9651), and parameters behind it, which mean nothing here. */
const quotedForm = (() => {
  const text = String.raw`"((?:[ !#-\[\]-~]|\\["\\])*)"`
  const parameter = String.raw`;[ ]*[a-z*][a-z0-9_.*-]*(?:=(?:"(?:[ !#-\[\]-~]|\\["\\])*"|[!#-+\--:<-~]+))?`
  return new RegExp(`^${text}(?:${parameter})*$`)
})()

/** Visible ASCII without what separates or quotes: two header lines arrive as one, with a comma between them. */
const bareForm = /^[!#-+\--:<-[\]-~]+$/

/**
 * IK1: the key that the header's value, as `Headers.get` gives it, means: a quoted string, or the same characters bare. Throws
 * `IDEMPOTENCY_KEY_INVALID` for anything else: two headers, no or too many characters, control characters, or such
 * as are not ASCII.
 */
export function parseKeyHeader(value: string): string {
  const quoted = quotedForm.exec(value)?.[1]
  const key = quoted === undefined ? bareForm.exec(value)?.[0] : quoted.replaceAll(/\\(.)/g, '$1')
  return checkedKey(key, 'the header must be one key, as a quoted string of visible ASCII')
}

/** The value of the body's field as a key, by the same rules. */
export function parseKeyField(value: unknown): string {
  const key = typeof value === 'string' && /^[ -~]*$/.test(value) ? value : undefined
  return checkedKey(key, `the field ${keyField} must be a string of visible ASCII`)
}

/** The header's value for a key: always the quoted form. `TypeError` for what is no key. */
export function formatKeyHeader(key: string): string {
  if (!/^[ -~]{1,255}$/.test(key)) {
    throw new TypeError(
      `Cannot send the idempotency key ${
        JSON.stringify(key.slice(0, 300))
      }: it must have 1 to ${maxKeyLength} visible ASCII characters`,
    )
  }
  return `"${key.replaceAll(/["\\]/g, String.raw`\$&`)}"`
}

/** Takes the field out of a parsed body and returns its value, so that no schema need know of it. */
export function takeKeyField(body: unknown): unknown {
  if (typeof body !== 'object' || body === null || !Object.hasOwn(body, keyField)) return undefined
  const record = body as Record<string, unknown>
  const value = record[keyField]
  delete record[keyField]
  return value
}

/**
 * The one key of a request that may name it in the header, in the body, or alike in both; undefined where it names
 * none.
 */
export function keyOf(header: string | null, field: unknown): string | undefined {
  const fromHeader = header === null ? undefined : parseKeyHeader(header)
  const fromField = field === undefined ? undefined : parseKeyField(field)
  if (fromHeader !== undefined && fromField !== undefined && fromHeader !== fromField) {
    throw invalid(`the header and the field ${keyField} of the body name different keys`)
  }
  return fromHeader ?? fromField
}

function checkedKey(key: string | undefined, otherwise: string): string {
  if (key === undefined) throw invalid(otherwise)
  if (key.length < 1 || key.length > maxKeyLength) {
    throw invalid(`it must have 1 to ${maxKeyLength} characters, received ${key.length}`)
  }
  return key
}

function invalid(found: string): HoldfastError {
  return new HoldfastError('IDEMPOTENCY_KEY_INVALID', `The idempotency key is not valid: ${found}`)
}

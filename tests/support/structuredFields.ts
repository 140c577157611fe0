/**
 * Structured fields (RFC 9651) as far as the `RateLimit` headers use them: a list of strings with parameters, each an
 * integer, a string or a byte sequence. Strict: what the grammar does not allow is an error, never a guess.
 */

export type FieldValue = number | string | Uint8Array

export interface FieldItem {
  name: string
  parameters: Record<string, FieldValue>
}

/** `SyntaxError`, saying where, for anything that is not such a list, and for an empty one. */
export function parseList(text: string): FieldItem[] {
  const reader = new Reader(text)
  const items = [item(reader)]
  while (!reader.isAtEnd) {
    reader.take(/[ \t]*,[ \t]*/y, 'a comma')
    items.push(item(reader))
  }
  return items
}

function item(reader: Reader): FieldItem {
  const name = string(reader)
  const parameters: Record<string, FieldValue> = {}
  while (reader.skip(/; */y)) {
    const key = reader.take(/[a-z*][a-z\d_.*-]*/y, 'a key')
    if (Object.hasOwn(parameters, key)) reader.fail(`another key than ${key} again`)
    reader.take(/=/y, '=')
    parameters[key] = value(reader)
  }
  return { name, parameters }
}

function value(reader: Reader): FieldValue {
  if (reader.sees('"')) return string(reader)
  if (reader.sees(':')) {
    const [, base64] = /^:(.*):$/.exec(reader.take(/:[a-z\d+/=]*:/iy, 'a byte sequence'))!
    return Uint8Array.from(atob(base64!), (char) => char.charCodeAt(0))
  }
  return Number(reader.take(/-?\d{1,15}(?![\d.])/y, 'an integer'))
}

function string(reader: Reader): string {
  return reader.take(/"(?:[ !#-[\]-~]|\\["\\])*"/y, 'a string').slice(1, -1).replace(/\\(.)/g, '$1')
}

class Reader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  get isAtEnd(): boolean {
    return this.#at === this.#text.length
  }

  sees(start: string): boolean {
    return this.#text.startsWith(start, this.#at)
  }

  skip(pattern: RegExp): boolean {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)
    if (found !== null) this.#at += found[0].length
    return found !== null
  }

  take(pattern: RegExp, what: string): string {
    const from = this.#at
    if (!this.skip(pattern)) this.fail(what)
    return this.#text.slice(from, this.#at)
  }

  fail(what: string): never {
    throw new SyntaxError(`Cannot read the field ${this.#text}: at ${this.#at} there should be ${what}`)
  }
}

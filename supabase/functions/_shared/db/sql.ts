/** SQL text with its values kept apart, so that no value can ever become text. */

/** A statement, or a piece of one. Make it with `sql`. */
export class SqlQuery {
  readonly strings: readonly string[]
  readonly parts: readonly unknown[]

  constructor(strings: readonly string[], parts: readonly unknown[]) {
    this.strings = strings
    this.parts = parts
  }

  /** The text with `$1, $2, …`, and the values for them, as the server takes them. */
  compile(): { text: string; values: (string | null)[] } {
    const values: (string | null)[] = []
    return { text: write(this, values), values }
  }
}

/**
 * `` sql`select * from public.orders where id = ${id}` ``: every value becomes a parameter, a nested `SqlQuery`
 * becomes part of the text.
 *
 * Values travel as text and take the type the statement asks for: strings, numbers, bigints, booleans, dates
 * (ISO 8601), bytes (`bytea`), null and undefined (null), and objects and arrays as JSON. For an SQL array use
 * `sqlArray`. `TypeError` for what has no text: functions, symbols, invalid dates.
 */
export function sql(
  strings: TemplateStringsArray,
  ...parts: unknown[]
): SqlQuery {
  return new SqlQuery(strings, parts)
}

/** A name (table, column, schema.table) as a quoted identifier. `TypeError` where PostgreSQL would cut or refuse it. */
export function identifier(...names: string[]): SqlQuery {
  const quoted = names.map((name) => {
    const bytes = new TextEncoder().encode(name).length
    if (bytes === 0 || bytes > 63 || name.includes('\0')) {
      throw new TypeError(
        `Cannot quote the identifier ${JSON.stringify(name)}: it must have 1 to 63 bytes and no NUL`,
      )
    }
    return `"${name.replaceAll('"', '""')}"`
  })
  return new SqlQuery([quoted.join('.')], [])
}

/** A list as an SQL array, for `= any(${sqlArray(ids)}::uuid[])`. */
export function sqlArray(values: readonly unknown[]): SqlQuery {
  const items = values.map((value) => {
    const text = encode(value)
    return text === null ? 'null' : `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
  })
  return new SqlQuery(['', ''], [`{${items.join(',')}}`])
}

/** Pieces one after the other, with commas between them: columns, expressions, rows. */
export function sqlList(pieces: readonly SqlQuery[]): SqlQuery {
  const between = pieces.slice(1).map(() => ', ')
  return new SqlQuery(['', ...between, ''], pieces)
}

function write(query: SqlQuery, values: (string | null)[]): string {
  let text = query.strings[0] ?? ''
  query.parts.forEach((part, index) => {
    if (part instanceof SqlQuery) text += write(part, values)
    else text += `$${values.push(encode(part))}`
    text += query.strings[index + 1] ?? ''
  })
  return text
}

function encode(value: unknown): string | null {
  switch (typeof value) {
    case 'undefined':
      return null
    case 'string':
      return value
    case 'number':
    case 'bigint':
    case 'boolean':
      return String(value)
    case 'object':
      if (value === null) return null
      if (value instanceof Date) return value.toISOString()
      if (value instanceof Uint8Array) return `\\x${hex(value)}`
      return JSON.stringify(value)
    default:
      throw new TypeError(
        `Cannot send a ${typeof value} to PostgreSQL as a parameter`,
      )
  }
}

function hex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0')
  return text
}

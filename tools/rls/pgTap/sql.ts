/** The little SQL that generated files are made of: texts, lists, rows. */
import { literal } from '../../../tests/rls/support/rows.ts'
import type { Values } from '../../../tests/rls/support/fixture.ts'

/** Backslashes stay what they are: `standard_conforming_strings` is on. */
export function quoted(text: string): string {
  return literal(text)
}

/** An array of texts, on one line where it fits; else `indent` is that of the line it begins on. */
export function textArray(items: readonly string[], indent = ''): string {
  if (items.length === 0) return "'{}'::text[]"
  const inLine = `array[${items.map(quoted).join(', ')}]`
  if (inLine.length <= 80) return inLine
  return `array[\n${items.map((item) => `${indent}    ${quoted(item)}`).join(',\n')}\n${indent}]`
}

/** `insert into … values …` for rows that need not name the same columns. */
export function insertRows(table: string, rows: readonly Values[], ending = ''): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))]
  const lines = rows.map((row) => {
    const values = columns.map((column) => column in row ? literal(row[column]!) : 'default')
    return `(${values.join(', ')})`
  })
  const into = `insert into ${table} (${columns.join(', ')})`
  if (lines.length === 1 && ending === '') return `${into} values ${lines[0]}`
  return `${into}\nvalues\n    ${lines.join(',\n    ')}${ending}`
}

/** JSON whose numbers come out as they went in: JavaScript would round 12345678901234567890 and make 1.10 of it 1.1. */

interface RawJson {
  /** A value that `JSON.stringify` writes as this very text. */
  rawJSON(text: string): unknown
}

/** As `JSON.parse`, for values that are only passed on: a number JavaScript cannot hold as it is written stays text. */
export function parseExactly(text: string): unknown {
  return JSON.parse(text, (_key, value, context?: { source?: string }) => {
    const { source } = context ?? {}
    if (typeof value !== 'number' || source === undefined || String(value) === source) return value
    return (JSON as unknown as RawJson).rawJSON(source)
  })
}

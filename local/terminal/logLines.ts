/** A line of a function's log as people like to read it. */
import { type Style, styled } from './output.ts'

const levelStyles: Record<string, Style> = {
  debug: 'dim',
  info: 'green',
  warn: 'yellow',
  error: 'red',
  fatal: 'red',
}
/** Fields of a structured line that the prefix or the message says already, or that only programs care for. */
const quietFields = new Set([
  ...['level', 'message', 'msg', 'time', 'timestamp', 'function', 'isolate', 'ip', 'userAgent', 'userId'],
  ...['method', 'route', 'status', 'traceId', 'spanId'],
])

/** `12:30:05 orders  info  POST /orders 201 durationMs=14`: structured lines are laid out, others are left as they are. */
export function readableLine(name: string, at: Date, text: string): string {
  const time = styled('dim', at.toTimeString().slice(0, 8))
  return `${time} ${styled('cyan', name.padEnd(8))} ${readableText(text)}`
}

function readableText(text: string): string {
  const fields = structured(text)
  if (fields === undefined) return text
  const level = String(fields['level'])
  const message = fields['message'] ?? fields['msg'] ?? ''
  const rest = Object.entries(fields)
    .filter(([key, value]) => !quietFields.has(key) && value !== null && value !== undefined)
    .map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
  const label = styled(levelStyles[level] ?? 'dim', level.padEnd(5))
  return `${label} ${message} ${styled('dim', rest.join(' '))}`.trimEnd()
}

function structured(text: string): Record<string, unknown> | undefined {
  if (!text.startsWith('{')) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && 'level' in value ? { ...value } : undefined
  } catch {
    return undefined
  }
}

/** The arguments of a command, checked, with an answer that helps whoever mistyped one. */
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { LocalError } from '../errors.ts'

type OptionsConfig = NonNullable<ParseArgsConfig['options']>

/** Every command takes these. */
const commonOptions = {
  debug: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const satisfies OptionsConfig

/** As `parseArgs`, but a mistake is a `LocalError` that shows how the command is used. */
export function parseOptions<const T extends OptionsConfig>(o: {
  args: string[]
  options: T
  /** How many arguments that are no options it takes. @default 0 */
  positionals?: number
  usage: string
}) {
  try {
    const options = { ...o.options, ...commonOptions }
    const { values, positionals } = parseArgs({ args: o.args, options, allowPositionals: true, strict: true })
    const extra = positionals[o.positionals ?? 0]
    if (extra !== undefined) throw new Error(`Unexpected argument "${extra}"`)
    return { values, positionals }
  } catch (cause) {
    const [message] = (cause instanceof Error ? cause.message : String(cause)).split('. To specify')
    throw new LocalError(`Cannot understand the arguments: ${message}`, {
      where: o.args.join(' '),
      fix: `Usage: ${o.usage.trim().split('\n')[0]}`,
      cause,
    })
  }
}

/** A whole number within bounds; undefined when the option was not given. */
export function wholeNumber(
  name: string,
  text: string | undefined,
  bounds: { minimum: number; maximum: number },
): number | undefined {
  if (text === undefined) return undefined
  const number = Number(text)
  if (/^\d+$/.test(text) && number >= bounds.minimum && number <= bounds.maximum) return number
  throw new LocalError(`Cannot use --${name} ${text}`, {
    where: `--${name}`,
    fix: `Give a whole number from ${bounds.minimum} to ${bounds.maximum}.`,
  })
}

/** The arguments of `npm run rls`, checked. */
import { parseOptions } from '../../local/commands/options.ts'
import { LocalError } from '../../local/errors.ts'
import { type Command, commands } from './explanation.ts'

export const usage = `
npm run rls -- --explain TABLE [COMMAND] --as WHO [--row KEY] [--values JSON] [--json] [--db-url URL]

Shows which grant or policy lets a command through, or stops it. Writes nothing.

  --explain TABLE  public.orders, or "Schema"."Table"
  COMMAND          select, insert, update, delete or all (the default)
  --as WHO         the e-mail or id of a user, or a role: anon, authenticated, service_role, ...
  --row KEY        asks about one row: its primary key, or JSON: '{"order_id":"...","product_id":"..."}'
  --values JSON    the columns that an insert or update sets: '{"status":"paid"}'
  --claims JSON    claims on top of those that the user has: '{"aal":"aal2"}'
  --json           the answer for programs (npm run -s hides npm's own lines)
  --db-url URL     another database than the one of npm start

npm run rls -- --write   writes docs/rls-matrix.md and supabase/tests from the declaration in tests/rls/matrix.ts
npm run rls -- --check   exit code 1 when one of them is not current
`

export interface ExplainRequest {
  table: string
  commands: readonly Command[]
  as: string
  /** A primary key, or a JSON object of columns. */
  row?: string
  values?: Record<string, unknown>
  claims?: Record<string, unknown>
}

export type Task =
  | { kind: 'usage' }
  | { kind: 'write' }
  | { kind: 'check' }
  | { kind: 'explain'; request: ExplainRequest; json: boolean; databaseUrl?: string }

const flag = { type: 'boolean', default: false } as const
const text = { type: 'string' } as const

/** What is to be done; a mistake is a `LocalError` that says how it is meant. */
export function readTask(args: string[]): Task {
  const { values, positionals } = parseOptions({
    args,
    usage,
    positionals: 1,
    options: {
      explain: text,
      as: text,
      row: text,
      values: text,
      claims: text,
      'db-url': text,
      json: flag,
      write: flag,
      check: flag,
    },
  })
  const asked = ['explain', 'write', 'check'].filter((name) => args.some((arg) => isOption(arg, name)))
  if (asked.length > 1) throw misuse(`--${asked.join(' and --')} are two questions`, 'Ask one at a time.')
  if (values.help) return { kind: 'usage' }
  if (values.explain === undefined) {
    const stray = positionals[0] ??
      Object.entries(values).find(([name, value]) => explainOnly.has(name) && value !== false)?.[0]
    if (stray !== undefined) {
      throw misuse(`${stray} is part of no question`, 'Name the table: --explain public.orders.')
    }
    return { kind: values.write ? 'write' : values.check ? 'check' : 'usage' }
  }
  if (values.explain === '') throw misuse('--explain names no table', 'Name it: --explain public.orders.')
  if (!values.as) {
    throw misuse(
      'nobody is named to explain it for',
      'Add --as with an e-mail, a user id or a role: --as ada@example.com, --as anon.',
    )
  }
  return {
    kind: 'explain',
    json: values.json,
    databaseUrl: values['db-url'],
    request: {
      table: values.explain,
      commands: commandsOf(positionals[0]),
      as: values.as,
      row: values.row,
      values: jsonObject('values', values.values),
      claims: jsonObject('claims', values.claims),
    },
  }
}

const explainOnly = new Set(['as', 'row', 'values', 'claims', 'db-url', 'json'])

function isOption(arg: string, name: string): boolean {
  return arg === `--${name}` || arg.startsWith(`--${name}=`)
}

function commandsOf(name = 'all'): readonly Command[] {
  const lower = name.toLowerCase()
  if (lower === 'all') return commands
  const command = commands.find((known) => known === lower)
  if (command !== undefined) return [command]
  throw misuse(`there is no command "${name}"`, `Use one of ${[...commands, 'all'].join(', ')}.`)
}

function jsonObject(name: string, given: string | undefined): Record<string, unknown> | undefined {
  if (given === undefined) return undefined
  try {
    const value: unknown = JSON.parse(given)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value }
  } catch {
    // Said below, as for JSON of another kind.
  }
  throw misuse(`--${name} is no JSON object`, `Quote it for the shell: --${name} '{"column":"value"}'.`)
}

function misuse(found: string, fix: string): LocalError {
  return new LocalError(`Cannot explain: ${found}`, { where: 'npm run rls', fix })
}

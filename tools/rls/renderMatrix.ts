/** docs/rls-matrix.md, written from the declaration that the tests prove. */
import {
  type Command,
  functions,
  generatedFunctions,
  type Reach,
  type RoleName,
  roles,
  routes,
  schemas,
  sequences,
  type TableRules,
  tables,
  type Uses,
} from '../../tests/rls/matrix.ts'

const head =
  `<!-- Written by \`npm run rls -- --write\` from tests/rls/matrix.ts. Change that file, not this one. -->

# Who may do what?

Every cell of this page is run against a real database on every push: through SQL with the role and the claims
of a caller, through REST, and through the edge functions. A table, view, sequence, function or route that is
not on it fails the tests. [rls](rls.md) says how a policy is written, tried and explained.

| Role           | Who                                                                          |
| -------------- | ---------------------------------------------------------------------------- |
| \`anon\`         | a guest, with the publishable key alone                                      |
| owner          | a signed-in customer (\`authenticated\`), the one whose rows are spoken of     |
| other          | another signed-in customer (\`authenticated\`)                                 |
| admin          | signed in (\`authenticated\`) with \`app_metadata.role = "admin"\` in the token  |
| \`service_role\` | the secret key, which bypasses row level security and is held by its grants  |

In the cells of tables:

| Word              | Means                                                                                   |
| ----------------- | --------------------------------------------------------------------------------------- |
| \`read\`, \`insert\`, \`update\`, \`delete\` | the command runs; \`write\` is the last three together             |
| \`own\`             | the caller's own rows that are not soft-deleted; an insert must name the caller as owner |
| \`visible\`         | every row that is not soft-deleted                                                      |
| \`all\`             | every row                                                                               |
| \`no row\`          | the command runs and reaches nothing                                                    |
| -                 | refused with \`42501\`, and nothing is changed or told                                    |
`

/** The whole page, formatted as `deno fmt` would. */
export function renderMatrix(): string {
  const sections = [
    formatTables(head),
    ...schemas.filter((schema) => namesIn(schema).length > 0).map(section),
    routesSection(),
  ]
  return `${sections.join('\n').trimEnd()}\n`
}

function namesIn(schema: string): string[] {
  const names = [tables, sequences, functions, generatedFunctions].flatMap((list) => Object.keys(list))
  return names.filter((name) => name.startsWith(`${schema}.`))
}

function section(schema: string): string {
  const parts = [`## Schema \`${schema}\``]
  const tableRows = inSchema(tables, schema)
  if (tableRows.length > 0) {
    parts.push(table(
      ['Table or view', ...headings(), 'In a sentence'],
      tableRows.map((
        [name, rules],
      ) => [code(bare(name)), ...roles.map((role) => cell(rules, role)), rules.about]),
    ))
  }
  parts.push(...usesPart('Sequences', 'Sequence', inSchema(sequences, schema), 'draw from'))
  parts.push(
    ...usesPart('Functions', 'Function', inSchema({ ...functions, ...generatedFunctions }, schema), 'call'),
  )
  return `${parts.join('\n\n')}\n`
}

/** What some role may use gets a table; what no role may use is only named. */
function usesPart(title: string, heading: string, uses: [string, Uses][], verb: string): string[] {
  if (uses.length === 0) return []
  const open = uses.filter(([, use]) => roles.some((role) => use[role] === 'may'))
  const closed = uses.filter((entry) => !open.includes(entry))
  const parts = [`### ${title}`]
  if (open.length > 0) {
    parts.push(table(
      [heading, ...headings()],
      open.map((
        [name, use],
      ) => [code(bare(name)), ...roles.map((role) => use[role] === 'may' ? 'may' : '-')]),
    ))
  }
  if (closed.length > 0) {
    parts.push(
      `No role may ${verb} these; \`postgres\` and what runs with its rights do:`,
      closed.map(([name]) => `- ${code(bare(name))}`).join('\n'),
    )
  }
  return parts
}

function routesSection(): string {
  const rows = Object.entries(routes).map(([name, { about, status }]) => [
    code(name),
    ...roles.map((role) => String(status[role])),
    about,
  ])
  return [
    '## Edge functions',
    "The status that each role gets: of a route with `:id` for the owner's row. What is no success changes no row.",
    table(['Route', ...headings(), 'In a sentence'], rows),
  ].join('\n\n')
}

function cell(rules: TableRules, role: RoleName): string {
  const writes = (['insert', 'update', 'delete'] as const).map((command) =>
    [command, rules[command][role]] as const
  )
  const [first] = writes
  const together = writes.every(([, reach]) => reach === first?.[1])
  const commands: (readonly [Command | 'read' | 'write', Reach])[] = [
    ['read', rules.select[role]],
    ...(together && first ? [['write', first[1]] as const] : writes),
  ]
  const words = commands.filter(([, reach]) => reach !== 'denied').map(([word, reach]) =>
    `${word} ${reach === 'none' ? 'no row' : reach}`
  )
  return words.length === 0 ? '-' : words.join(', ')
}

function headings(): string[] {
  return roles.map((role) => role === 'anon' || role === 'service_role' ? code(role) : role)
}

function inSchema<T>(list: Record<string, T>, schema: string): [string, T][] {
  return Object.entries(list).filter(([name]) => name.startsWith(`${schema}.`))
}

function bare(name: string): string {
  return name.slice(name.indexOf('.') + 1).replaceAll(',', ', ')
}

function code(text: string): string {
  return `\`${text}\``
}

function table(header: string[], rows: string[][]): string {
  const all = [header, ...rows].map((row) => row.map((text) => text.replaceAll('|', '\\|')))
  const widths = header.map((_, column) => Math.max(3, ...all.map((row) => row[column]?.length ?? 0)))
  const line = (row: string[]) =>
    `| ${row.map((text, column) => text.padEnd(widths[column] ?? 0)).join(' | ')} |`
  const [first = [], ...others] = all
  return [line(first), line(widths.map((width) => '-'.repeat(width))), ...others.map(line)].join('\n')
}

/** Lines up the tables of a text. */
function formatTables(text: string): string {
  return text.replace(/(?:^\|.*\|\n)+/gm, (block) => {
    const [header = [], , ...rows] = block.trimEnd().split('\n').map((line) =>
      line.slice(1, -1).split('|').map((cell) => cell.trim())
    )
    return `${table(header, rows)}\n`
  })
}

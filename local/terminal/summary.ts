/** What runs, for a person to read: addresses, keys and users as `supabase start` tells them, and how to place an order. */
import type { StackReport } from '../state.ts'
import { styled } from './output.ts'
import { snippets } from './snippets.ts'

/** The table of `npm start` and `npm run status`. */
export function summary(report: StackReport): string {
  const rows: [label: string, value: string][] = [
    ['API URL', report.apiUrl],
    ['Functions URL', report.functionsUrl],
    ['Payments URL', report.paymentsUrl],
    ['Database URL', report.databaseUrl],
    ['Publishable key', report.publishableKey],
    ['Secret key', report.secretKey],
    ['JWT secret', report.jwtSecret],
  ]
  return [
    ...table(rows.map(([label, value]) => [styled('dim', label.padEnd(15)), value])),
    `  ${styled('dim', 'Database'.padEnd(15))}  ${report.database}`,
    ...demoUserTable(report),
  ].join('\n')
}

/** The snippets under their titles, flush left so that they can be copied. */
export function snippetText(report: StackReport): string {
  return snippets(report).map(({ title, code }) => `${styled('bold', title)}\n\n${code}\n`).join('\n')
}

function demoUserTable({ demoUsers }: StackReport): string[] {
  if (demoUsers.length === 0) return []
  const width = Math.max(...demoUsers.map(({ email }) => email.length))
  const rows = demoUsers.map(({ email, password }) => [email.padEnd(width), styled('dim', password)])
  return ['', styled('bold', 'Demo users and their passwords'), ...table(rows)]
}

function table(rows: string[][]): string[] {
  return rows.map((cells) => `  ${cells.join('  ')}`)
}

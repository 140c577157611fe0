/** What a statement does to reach its rows, read from `explain (analyze)`. */
import type { Queries } from './sql.ts'

export interface QueryPlan {
  /** Tables that are read from beginning to end. */
  wholeTables: string[]
  indexes: string[]
  /** Rows that are fetched from a table and thrown away again. */
  rowsInVain: number
  /** Conditions that ask for the caller once a row, and not once a statement. */
  askedPerRow: string[]
  executionMs: number
}

interface Node {
  'Node Type': string
  'Relation Name'?: string
  'Index Name'?: string
  'Actual Loops'?: number
  'Rows Removed by Filter'?: number
  'Rows Removed by Index Recheck'?: number
  Filter?: string
  'Index Cond'?: string
  'Recheck Cond'?: string
  Plans?: Node[]
}

/** Runs the statement, and takes a refusal for what it is. */
export async function explainQuery(sql: Queries, statement: string): Promise<QueryPlan> {
  const [row] = await sql.unsafe(`explain (analyze, format json) ${statement}`)
  const { Plan: root, 'Execution Time': executionMs } = row!['QUERY PLAN'][0]
  const nodes = withAllBelow(root)
  const inVain = nodes.map((node) =>
    ((node['Rows Removed by Filter'] ?? 0) + (node['Rows Removed by Index Recheck'] ?? 0)) *
    (node['Actual Loops'] ?? 1)
  )
  return {
    wholeTables: nodes.filter((node) => /Seq Scan$/.test(node['Node Type'])).map((node) =>
      node['Relation Name']!
    ),
    indexes: nodes.flatMap((node) => node['Index Name'] ?? []),
    rowsInVain: inVain.reduce((sum, rows) => sum + rows, 0),
    askedPerRow: nodes.filter((node) => node['Relation Name'] !== undefined)
      .flatMap((node) => [node.Filter, node['Index Cond'], node['Recheck Cond']])
      .filter((condition) => condition !== undefined && /current_setting|auth\.|is_admin/.test(condition))
      .map(String),
    executionMs,
  }
}

function withAllBelow(node: Node): Node[] {
  return [node, ...(node.Plans ?? []).flatMap(withAllBelow)]
}

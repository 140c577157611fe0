/** What a run of the matrix finds: how many cells were run, and what was wrong with which. */
import {
  commands,
  functions,
  generatedFunctions,
  roles,
  type RouteRules,
  routes,
  sequences,
  type TableRules,
  tables,
  type Uses,
} from '../matrix.ts'

export interface Declaration {
  tables: Record<string, TableRules>
  sequences: Record<string, Uses>
  functions: Record<string, Uses>
  generatedFunctions: Record<string, Uses>
  routes: Record<string, RouteRules>
}

export const declared: Declaration = { tables, sequences, functions, generatedFunctions, routes }

export interface Failure {
  /** `public.orders select as other`, or the name of the table or function alone. */
  cell: string
  problem: string
}

export class Report {
  readonly failures: Failure[] = []
  readonly #cells = new Set<string>()

  /** Counts a cell as run, once. */
  ran(cell: string): void {
    this.#cells.add(cell)
  }

  fail(cell: string, problem: string): void {
    this.failures.push({ cell, problem })
  }

  get cells(): number {
    return this.#cells.size
  }
}

/** One line a failure, for an assertion to show. */
export function lines(failures: Failure[]): string[] {
  return failures.map(({ cell, problem }) => `${cell}: ${problem}`)
}

/** The name by which a function is declared, if it is. */
export function declaredName(
  { functions, generatedFunctions }: Declaration,
  name: string,
): string | undefined {
  if (name in functions) return name
  const generated = name.replace(/\d+/, '*')
  return generated in generatedFunctions ? generated : undefined
}

/** Every cell of tables, sequences and functions. What the database makes by itself counts as one. */
export function cellCount({ tables, sequences, functions, generatedFunctions }: Declaration): number {
  const count = (names: object) => Object.keys(names).length
  return roles.length *
    (count(tables) * commands.length + count(sequences) + count(functions) + count(generatedFunctions))
}

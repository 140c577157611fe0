/** What `npm run rls -- --explain` finds out, as plain data: for people it becomes lines, for programs JSON. */

export const commands = ['select', 'insert', 'update', 'delete'] as const
export type Command = typeof commands[number]

/** Whom the question is about, and what their requests bring along. */
export interface Caller {
  /** As it was asked for: an e-mail, a user id or a role. */
  named: string
  role: string
  userId?: string
  /** What `request.jwt.claims` holds, as the API would set it. */
  claims: Record<string, unknown>
}

/** One thing that can stop a command before any policy is asked. */
export interface Layer {
  name: 'role' | 'schema' | 'grant' | 'columns' | 'sequence' | 'rls' | 'view'
  /** `warns` stops nothing by itself, but somebody will wonder. */
  state: 'passes' | 'stops' | 'warns'
  text: string
}

/** How many of the rows that were asked about. `of` counts the rows there are, or those of the sample. */
export interface Count {
  passed: number
  of: number
}

/** One policy, asked alone. */
export interface PolicyAnswer {
  name: string
  kind: 'permissive' | 'restrictive'
  /** The command that it was created for. */
  for: Command | 'all'
  roles: string[]
  expression: string
  /** Absent when there was no row to ask it about, or when it raised an error. */
  rows?: Count
  /** What the expression raised. The command fails of it as well. */
  error?: string
}

/**
 * Policies that are asked together: one permissive must hold, and every restrictive. `using` decides which rows a
 * command reaches, `select` which of them it may name in WHERE and RETURNING, `check` which rows it may write.
 */
export interface Gate {
  name: 'using' | 'select' | 'check'
  policies: PolicyAnswer[]
  /** Names of policies for this command that are for other roles. */
  forOthers: string[]
  rows?: Count
}

export interface Verdict {
  /**
   * `refused`: an error, 42501 if nothing else is said. `none`: it runs, and reaches no row. `fails`: a policy raises
   * an error. `depends`: on the row that is inserted, which was not given. `unknown`: a policy cannot be asked by itself.
   */
  outcome: 'refused' | 'none' | 'some' | 'all' | 'fails' | 'depends' | 'unknown'
  /** One sentence for people, without a final period. */
  text: string
  /** The layer, or the policy, that stopped all rows or some. */
  stoppedBy?: string
  /** Names of the permissive policies that let rows through. */
  letThroughBy: string[]
  rows?: Count
  /** Statements that would let more through. Nobody says that they should be run. */
  toAllow: string[]
}

export interface CommandExplanation {
  command: Command
  layers: Layer[]
  /** Empty where row level security is off or does not hold this role. */
  gates: Gate[]
  notes: string[]
  verdict: Verdict
}

export interface Explanation {
  /** Schema and name, quoted where SQL needs it. */
  table: string
  caller: Caller
  /** The row that was asked about, as it was given. */
  row?: string
  /** Rows in the table; an estimate where only a sample of them was asked about. */
  rows: { total: number; sampled?: number }
  commands: CommandExplanation[]
}

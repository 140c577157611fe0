/** The statements by which a command would reach more. */
import { isDecisive } from './explainGates.ts'
import type { Facts } from './explainLayers.ts'
import { quoteName } from './explainSession.ts'
import type { Target } from './explainTarget.ts'
import type { Caller, Command } from './explanation.ts'

/** The statements that are missing. Policies are only begun: which rows are meant nobody but the reader knows. */
export function toAllow(command: Command, { target, caller, rights, gates, values }: Facts): string[] {
  const statements: string[] = []
  const role = quoteIfNeeded(caller.role)
  if (!rights.schemaUsage) {
    statements.push(`grant usage on schema ${quoteIfNeeded(target.schema)} to ${role};`)
  }
  const { table, columns } = rights.privileges[command]
  const given = Object.keys(values ?? {})
  const needed = command === 'insert' || command === 'update' ? given : []
  if (!table && (columns.length === 0 || needed.some((name) => !columns.includes(name)))) {
    statements.push(`grant ${command} on ${target.name} to ${role};`)
  }
  const closed = target.columns.filter(({ name, sequence }) =>
    sequence !== undefined && rights.closedSequences.includes(sequence) && !given.includes(name)
  )
  if (command === 'insert') {
    statements.push(...closed.map(({ sequence }) => `grant usage on sequence ${sequence} to ${role};`))
  }
  for (const gate of gates?.gates ?? []) {
    // A policy that says false denies aloud; it opens nothing.
    const opens = gate.policies.some(({ kind, expression }) =>
      kind === 'permissive' && expression !== 'false'
    )
    if (!isDecisive(command, gate) || opens) continue
    statements.push(policyStatement(gate.name === 'select' ? 'select' : command, target, caller))
  }
  return statements
}

function policyStatement(command: Command, target: Target, caller: Caller): string {
  const own = target.userColumn !== undefined && caller.role === 'authenticated'
    ? `${quoteIfNeeded(target.userColumn)} = (select auth.uid())`
    : '...'
  const name = own === '...' ? `Say who may ${command} which rows` : `Users ${command} their own rows`
  const clause = command === 'insert' ? 'with check' : 'using'
  return `create policy "${name}" on ${target.name} for ${command} to ${
    quoteIfNeeded(caller.role)
  } ${clause} (${own});`
}

function quoteIfNeeded(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : quoteName(name)
}

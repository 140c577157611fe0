/** What all that was found comes to: what stops the command, and what lets it through. */
import { type Gates, isDecisive } from './explainGates.ts'
import { type Facts, layersOf } from './explainLayers.ts'
import { toAllow } from './explainMissing.ts'
import type { Command, CommandExplanation, Count, Gate, Layer, Verdict } from './explanation.ts'

export function conclude(command: Command, facts: Facts): CommandExplanation {
  const layers = layersOf(command, facts)
  const { gates } = facts
  const stop = layers.find(({ state }) => state === 'stops')
  const verdict = stop === undefined
    ? gates === undefined ? withoutPolicies(command, facts) : withPolicies(command, facts, gates)
    : refusedBy(stop)
  return {
    command,
    layers,
    gates: gates?.gates ?? [],
    notes: notesOf(command, facts),
    verdict: { ...verdict, toAllow: toAllow(command, facts) },
  }
}

type Finding = Omit<Verdict, 'toAllow'>

function refusedBy(layer: Layer): Finding {
  const code = layer.name === 'view' ? '' : ' with 42501'
  return {
    outcome: 'refused',
    text: `Refused${code}: ${layer.text}`,
    stoppedBy: layer.name,
    letThroughBy: [],
  }
}

function withoutPolicies(command: Command, { asked, row, target, seen }: Facts): Finding {
  if (seen?.error !== undefined) {
    return { outcome: 'fails', text: `Fails: ${seen.error}`, stoppedBy: 'view', letThroughBy: [] }
  }
  const rows = { passed: asked, of: asked }
  if (seen !== undefined) {
    const text = command === 'select'
      ? `Allowed: ${plural(asked, 'row')} can be seen`
      : 'Allowed by the grant; the rows are decided by the tables below'
    return { outcome: 'all', text, letThroughBy: [], rows: command === 'select' ? rows : undefined }
  }
  const whom = command === 'insert'
    ? 'any row'
    : row === undefined
    ? `all ${plural(asked, 'row')}`
    : 'this row'
  const how = target.rls ? 'no policy is asked' : 'row level security is off'
  return { outcome: 'all', text: `Allowed for ${whom}: ${how}`, letThroughBy: [], rows }
}

function withPolicies(command: Command, facts: Facts, { gates, rows, refused, error }: Gates): Finding {
  if (error !== undefined || rows === undefined) {
    const outcome = error?.cannotBeAsked ? 'unknown' : 'fails'
    const head = outcome === 'unknown' ? 'Nobody can say' : 'Fails'
    const text = `${head}: ${error?.policy ? `policy "${error.policy}": ` : ''}${error?.message}`
    return { outcome, text, stoppedBy: error?.policy, letThroughBy: [] }
  }
  const noun = facts.sampled ? 'sampled row' : 'row'
  const deciding = gates[0]!
  const closed = gates.find((gate) => isDecisive(command, gate) && !hasPermissive(gate))
  const letThroughBy = deciding.policies
    .filter((policy) => policy.kind === 'permissive' && (policy.rows?.passed ?? 0) > 0)
    .map(({ name }) => name)
  const by = letThroughBy.length === 0 ? '' : `, by ${letThroughBy.map(quote).join(' and ')}`
  if (command === 'insert') {
    if (closed) return refusedInsert(`no policy lets ${facts.caller.role} insert`, 'policies', rows)
    if (facts.values === undefined) {
      const text = 'Depends on the row: give one with --values'
      return { outcome: 'depends', text, letThroughBy, rows: facts.asked > 0 ? rows : undefined }
    }
    if (rows.passed > 0) return { outcome: 'all', text: `Allowed for this row${by}`, letThroughBy, rows }
    const { why, stoppedBy } = blame(command, deciding, true)
    return refusedInsert(why, stoppedBy, rows)
  }
  const isNone = rows.passed === 0
  if (closed !== undefined || isNone) {
    const { why, stoppedBy } = closed
      ? { why: noPolicy(closed, command, facts), stoppedBy: 'policies' }
      : rows.of === 0
      ? { why: 'the table is empty, so no policy could be asked', stoppedBy: undefined }
      : blame(
        command,
        gates.find((gate) => isDecisive(command, gate) && gate.rows?.passed === 0),
        facts.row !== undefined,
      )
    const reach = facts.row === undefined ? `reaches no ${noun}` : 'does not reach this row'
    return {
      outcome: 'none',
      text: `Runs without an error and ${reach}: ${why}`,
      stoppedBy,
      letThroughBy: [],
      rows,
    }
  }
  const failing = refused?.byCheck || refused?.bySelect
  if (refused && failing) {
    const gate = refused.byCheck ? 'WITH CHECK does' : 'the policies for SELECT do'
    const which = facts.row === undefined
      ? `${failing} of the ${plural(rows.passed, noun)} it reaches`
      : 'this row'
    const text =
      `Refused with 42501: ${gate} not accept ${which} with these values, and so the whole statement fails`
    return {
      outcome: 'refused',
      text,
      stoppedBy: refused.byCheck ? 'check' : 'select',
      letThroughBy: [],
      rows,
    }
  }
  const isAll = rows.passed === rows.of
  const which = facts.row === undefined ? `${number(rows.passed)} of ${plural(rows.of, noun)}` : 'this row'
  return { outcome: isAll ? 'all' : 'some', text: `Allowed for ${which}${by}`, letThroughBy, rows }
}

function refusedInsert(why: string, stoppedBy: string | undefined, rows: Count): Finding {
  return { outcome: 'refused', text: `Refused with 42501: ${why}`, stoppedBy, letThroughBy: [], rows }
}

function hasPermissive(gate: Gate): boolean {
  return gate.policies.some(({ kind }) => kind === 'permissive')
}

function noPolicy(gate: Gate, command: Command, { caller }: Facts): string {
  return gate.name === 'select' && command !== 'select'
    ? `no policy lets ${caller.role} select, and ${command} meets the policies for SELECT as well`
    : `no policy lets ${caller.role} ${command}`
}

/** Why nothing passes a gate that has a permissive policy. Without a gate none is at fault alone. */
function blame(
  command: Command,
  gate: Gate | undefined,
  isOne: boolean,
): { why: string; stoppedBy?: string } {
  if (gate === undefined) return { why: 'no row passes the policies for it and those for SELECT' }
  const passes = ({ rows }: { rows?: Count }) => (rows?.passed ?? 0) > 0
  const permissive = gate.policies.filter(({ kind }) => kind === 'permissive')
  if (!permissive.some(passes)) {
    const names = permissive.map(({ name }) => quote(name)).join(' and ')
    const hidden = gate.name === 'select' && command !== 'select' ? ', which SELECT needs' : ''
    return {
      why: `${names} ${permissive.length > 1 ? 'do' : 'does'} not hold for ${
        isOne ? 'it' : 'any row'
      }${hidden}`,
      stoppedBy: permissive[0]?.name,
    }
  }
  const restrictive = gate.policies.filter(({ kind }) => kind === 'restrictive')
  const stopping = restrictive.find((policy) => !passes(policy)) ?? restrictive[0]
  return stopping === undefined
    ? { why: 'no row passes all policies' }
    : { why: `the restrictive policy ${quote(stopping.name)} stops it`, stoppedBy: stopping.name }
}

function notesOf(command: Command, { target, values, gates }: Facts): string[] {
  const notes: string[] = []
  if (target.parent !== undefined) {
    notes.push(
      `A partition that is asked directly; through ${target.parent} the policies of that table decide.`,
    )
  }
  const triggers = command === 'insert' || command === 'update' ? target.rowTriggers[command] : []
  if (gates !== undefined && triggers.length > 0) {
    notes.push(`Triggers may change the row before WITH CHECK sees it: ${triggers.join(', ')}.`)
  }
  const generated = target.columns.filter((column) => column.generated).map(({ name }) => name)
  if (gates !== undefined && values !== undefined && generated.length > 0) {
    notes.push(`Generated columns are not computed again: ${generated.join(', ')}.`)
  }
  const returning = command === 'insert' ? gates?.gates.find(({ name }) => name === 'select') : undefined
  if (returning !== undefined) {
    const passes = values === undefined || returning.rows === undefined
      ? 'the row has to pass the policies for SELECT as well'
      : returning.rows.passed > 0
      ? 'the row passes the policies for SELECT as well'
      : 'the row does not pass the policies for SELECT, and so is refused with 42501'
    notes.push(`With RETURNING (supabase-js: .select()) ${passes}.`)
  }
  return notes
}

function quote(name: string): string {
  return `"${name}"`
}

export function plural(count: number, noun: string): string {
  return `${number(count)} ${noun}${count === 1 ? '' : 's'}`
}

export function number(count: number): string {
  return count.toLocaleString('en-US')
}

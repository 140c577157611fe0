/** What PostgreSQL asks before any policy: the role, the schema, the grants, and whether policies decide at all. */
import type { Gates } from './explainGates.ts'
import type { Policy, Rights } from './explainRights.ts'
import type { Target } from './explainTarget.ts'
import type { Caller, Command, Layer } from './explanation.ts'

/** What was found out of one table and one caller. */
export interface Facts {
  target: Target
  caller: Caller
  rights: Rights
  policies: readonly Policy[]
  /** Row level security decides for this caller. */
  held: boolean
  /** How many rows were asked about. */
  asked: number
  /** They are a part of the table. */
  sampled?: boolean
  /** The row that was asked about, if it was one. */
  row?: string
  values?: Record<string, unknown>
  /** Absent where row level security does not decide. */
  gates?: Gates
  /** Of a view: what the caller sees through it. */
  seen?: { rows?: number; error?: string }
}

export function layersOf(command: Command, facts: Facts): Layer[] {
  const { target, caller, rights } = facts
  const layers: Layer[] = [
    { name: 'role', state: 'passes', text: caller.role },
    rights.schemaUsage
      ? { name: 'schema', state: 'passes', text: `may use ${target.schema}` }
      : { name: 'schema', state: 'stops', text: `may not use schema ${target.schema}` },
    grantLayer(command, facts),
  ]
  if (command === 'update' || command === 'delete') {
    const { table, columns } = rights.privileges.select
    if (!table && columns.length === 0) {
      layers.push({ name: 'grant', state: 'warns', text: 'no select: refused with a WHERE or RETURNING' })
    }
  }
  const given = Object.keys(facts.values ?? {})
  const closed = target.columns.find(({ name, sequence }) =>
    sequence !== undefined && rights.closedSequences.includes(sequence) && !given.includes(name)
  )
  if (command === 'insert' && closed !== undefined) {
    const text = `may not use ${closed.sequence}, the default of ${closed.name}`
    layers.push({ name: 'sequence', state: 'stops', text })
  }
  layers.push(securityLayer(command, facts))
  return layers
}

function grantLayer(command: Command, { target, caller, rights, values }: Facts): Layer {
  const { table, columns, through } = rights.privileges[command]
  if (table) {
    const others = through.filter((grantee) => grantee !== caller.role)
    const how = through.includes(caller.role)
      ? ''
      : others.length > 0
      ? `, through ${others.join(', ')}`
      : rights.superuser
      ? ', as a superuser'
      : ', through a role it belongs to'
    return { name: 'grant', state: 'passes', text: `${command} on ${target.name}${how}` }
  }
  if (columns.length === 0) return { name: 'grant', state: 'stops', text: `no ${command} on ${target.name}` }
  const isWritten = command === 'insert' || command === 'update'
  const missing = isWritten ? Object.keys(values ?? {}).filter((name) => !columns.includes(name)) : []
  return missing.length > 0
    ? { name: 'columns', state: 'stops', text: `no ${command} of ${missing.join(', ')}` }
    : { name: 'columns', state: 'warns', text: `${command} of ${columns.join(', ')} alone` }
}

function securityLayer(command: Command, { target, caller, rights, held }: Facts): Layer {
  if (target.kind !== 'table') {
    if (command !== 'select' && !target.writable[command]) {
      return { name: 'view', state: 'stops', text: `a ${target.kind} that takes no ${command}` }
    }
    const whose = target.kind === 'view'
      ? target.invoker
        ? 'has no policies: those of the tables below decide, for the caller'
        : `has no policies: the tables below are read in the name of its owner, ${target.owner}`
      : 'has no policies: the grant alone decides'
    return { name: 'view', state: 'warns', text: `a ${target.kind} ${whose}` }
  }
  if (!target.rls) return { name: 'rls', state: 'warns', text: 'off: the grant alone decides' }
  if (held) {
    return {
      name: 'rls',
      state: 'passes',
      text: `on${rights.owner ? ', and forced on its owner' : ''}: policies decide`,
    }
  }
  const why = rights.superuser
    ? `${caller.role} is a superuser`
    : rights.bypassRls
    ? `${caller.role} bypasses it (BYPASSRLS)`
    : `${caller.role} owns the table, and it is not forced`
  return { name: 'rls', state: 'passes', text: `on, but ${why}` }
}

/** Cells of the matrix as pgTAP assertions: each ends with the sentence that pg_prove says when it does not hold. */
import {
  type Command,
  commands,
  type Reach,
  type RoleName,
  roles,
  type TableRules,
  type Uses,
} from '../../../tests/rls/matrix.ts'
import { calls, fixture, personOf } from '../../../tests/rls/support/fixture.ts'
import { freshName, insertFor, reachedNames } from './rows.ts'
import { quoted, textArray } from './sql.ts'

export interface Assertions {
  /** How many lines of TAP they print. */
  count: number
  sql: string
}

/** A table or view: what each role reaches by each command. */
export function tableCells(table: string, rules: TableRules): Assertions {
  const cell = Object.hasOwn(fixture, table) ? cellWithRows : cellWithoutRows
  const lines = commands.flatMap((command) =>
    roles.flatMap((role) => cell({ table, command, role, reach: rules[command][role] }))
  )
  return { count: lines.length, sql: `-- ${table}: ${rules.about}\n${lines.join('\n')}` }
}

interface Cell {
  table: string
  command: Command
  role: RoleName
  reach: Reach
}

function cellWithRows(cell: Cell): string[] {
  const { table, command, role, reach } = cell
  const call = `pg_temp.reach(${[role, command, table].map(quoted).join(', ')})`
  if (reach === 'denied') return [throwsOk(call, sentence(cell))]
  if (command !== 'insert') return [isNames(call, reachedNames(table, role, reach), sentence(cell))]
  if (reach === 'own') return ownInsert(cell)
  return [isNames(call, reach === 'none' ? [] : [freshName], sentence(cell))]
}

/** The row of oneself goes in, the row of somebody else does not. */
function ownInsert(cell: Cell): string[] {
  const { table, role } = cell
  const self = personOf(role)
  const somebodyElse = personOf(role === 'owner' ? 'other' : 'owner')
  if (self === undefined || somebodyElse === undefined) {
    throw new RangeError(`Cannot try that ${role} inserts own rows into ${table}: the role has no user`)
  }
  const call = (owner: string) =>
    `pg_temp.reach(${[role, 'insert', table, insertFor(table, owner)].map(quoted).join(', ')})`
  return [
    isNames(call(self), [freshName], sentence(cell)),
    throwsOk(call(somebodyElse), `${role} may not insert somebody else's rows into ${table}`),
  ]
}

/** A view's rows are those of its tables: here it is only asked who is let near it. */
function cellWithoutRows(cell: Cell): string[] {
  const { table, command, role, reach } = cell
  if (command === 'select') {
    const call = `pg_temp.run_as(${quoted(role)}, ${quoted(`select from ${table}`)})`
    if (reach === 'denied') return [throwsOk(call, sentence(cell))]
    return [`select lives_ok($q$ select ${call} $q$, ${quoted(sentence(cell))});`]
  }
  const may = `has_table_privilege(${[databaseRole(role), table, command].map(quoted).join(', ')})`
  return [`select ok(${reach === 'denied' ? 'not ' : ''}${may}, ${quoted(sentence(cell))});`]
}

function sentence({ table, command, role, reach }: Cell): string {
  if (reach === 'denied') {
    return `${role} may not ${
      { select: 'read', insert: 'insert into', update: 'update', delete: 'delete from' }[command]
    } ${table}`
  }
  if (command === 'insert') {
    return `${role} inserts ${
      { none: 'nothing', own: 'own rows', visible: 'rows', all: 'rows' }[reach]
    } into ${table}`
  }
  const verb = { select: 'reads', update: 'updates', delete: 'deletes' }[command]
  const what = {
    none: 'no row of',
    own: 'own rows alone of',
    visible: 'every row that is not soft-deleted of',
    all: 'every row of',
  }[reach]
  return `${role} ${verb} ${what} ${table}`
}

/** Functions or sequences by who may use them, together where the same roles may. */
export function usesCells(uses: Record<string, Uses>, kind: 'function' | 'sequence'): Assertions {
  const groups = new Map<string, { may: RoleName[]; names: string[] }>()
  for (const [name, cells] of Object.entries(uses)) {
    const may = roles.filter((role) => cells[role] === 'may')
    const group = groups.get(may.join()) ?? { may, names: [] }
    group.names.push(name)
    groups.set(may.join(), group)
  }
  const parts = [...groups.values()].flatMap(({ may, names }) => {
    const mayNot = roles.filter((role) => !may.includes(role))
    return [
      ...(may.length > 0 ? [allowed(kind, may, names)] : []),
      ...(mayNot.length > 0 ? [refused(kind, mayNot, names)] : []),
    ]
  })
  return { count: Object.keys(uses).length * roles.length, sql: parts.join('\n\n') }
}

function allowed(kind: 'function' | 'sequence', may: RoleName[], names: string[]): string {
  const right = kind === 'function' ? 'execute' : 'usage'
  const pairs = may.map((role) => `(${quoted(role)}, ${quoted(databaseRole(role))})`)
  return `select ok(
    has_schema_privilege(role, split_part(name, '.', 1), 'usage') and has_${kind}_privilege(role, name, '${right}'),
    format('%s may use %s', who, name)
)
from (values ${pairs.join(', ')}) as may (who, role)
cross join unnest(${textArray(names)}) as name;`
}

/** Really called: a function that everybody signed in may execute may still turn away whoever is no admin. */
function refused(kind: 'function' | 'sequence', who: RoleName[], names: string[]): string {
  const calls = names.map((name) => {
    const call = kind === 'function' ? callOf(name) : `nextval('${name}')`
    return `(${quoted(name)}, ${quoted(`select ${call}`)})`
  })
  return `select throws_ok(
    format('select pg_temp.run_as(%L, %L)', who, call), '42501', null, format('%s may not use %s', who, name)
)
from unnest(${textArray(who)}) as who
cross join (values
    ${calls.join(',\n    ')}
) as refused (name, call);`
}

/** With the arguments that the fixture has for it, else with nulls: `f(uuid,text)` as `f(null::uuid, null::text)`. */
function callOf(signature: string): string {
  const [, name = '', types = ''] = /^([^(]+)\((.*)\)$/.exec(signature) ?? []
  const nulls = types === '' ? [] : types.split(',').map((type) => `null::${type.trim()}`)
  return `${name}(${calls[signature]?.args ?? nulls.join(', ')})`
}

function isNames(call: string, names: string[], sentence: string): string {
  return `select is(${call}, ${textArray(names)}, ${quoted(sentence)});`
}

function throwsOk(call: string, sentence: string): string {
  return `select throws_ok($q$ select ${call} $q$, '42501', null, ${quoted(sentence)});`
}

/** What the role is to the database. */
export function databaseRole(role: RoleName): string {
  return role === 'anon' || role === 'service_role' ? role : 'authenticated'
}

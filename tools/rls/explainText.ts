/** An explanation as lines for a person: what each layer says, and then what it comes to. */
import { type Style, styled } from '../../local/terminal/output.ts'
import { number, plural } from './explainVerdict.ts'
import type { CommandExplanation, Explanation, Gate, Layer, PolicyAnswer, Verdict } from './explanation.ts'

export function explanationText(explanation: Explanation): string {
  const { table, caller, row, commands } = explanation
  const who = caller.userId === undefined ? '' : ` ${styled('dim', `(${caller.role}, ${caller.userId})`)}`
  const which = row === undefined ? rowsText(explanation) : `row ${row}`
  return [
    '',
    `${styled('bold', table)} as ${styled('bold', caller.named)}${who}, ${which}`,
    ...commands.flatMap((command) => ['', ...commandLines(command, row !== undefined)]),
    '',
  ].join('\n')
}

function rowsText({ rows }: Explanation): string {
  if (rows.sampled === undefined) return plural(rows.total, 'row')
  return `a sample of ${number(rows.sampled)} of about ${plural(rows.total, 'row')}`
}

const layerMarks: Record<Layer['state'], [Style, string]> = {
  passes: ['green', '✓'],
  stops: ['red', '✗'],
  warns: ['yellow', '!'],
}

function commandLines(
  { command, layers, gates, notes, verdict }: CommandExplanation,
  isOneRow: boolean,
): string[] {
  const isOne = isOneRow ||
    (command === 'insert' && gates.some(({ name, rows }) => name === 'check' && rows?.of === 1))
  return [
    styled('bold', command),
    ...layers.map(({ name, state, text }) => line(layerMarks[state], name, text)),
    ...gates.filter((gate) => !(gate.name === 'check' && isSaidByUsing(gates)))
      .flatMap((gate) => gateLines(gate, command, isOne)),
    ...notes.map((note) => line(['dim', '·'], 'note', note)),
    ...verdictLines(verdict),
  ]
}

/** An update without any policy says so once. */
function isSaidByUsing(gates: Gate[]): boolean {
  return gates.some(({ name, policies }) =>
    name === 'using' && !policies.some(({ kind }) => kind === 'permissive')
  )
}

function gateLines(gate: Gate, command: string, isOne: boolean): string[] {
  const lines = gate.policies.flatMap((policy) => policyLines(gate, policy, isOne))
  if (!gate.policies.some(({ kind }) => kind === 'permissive')) {
    const [about, mark]: [string, [Style, string]] = gate.name === 'select' && command === 'insert'
      ? ['select', ['yellow', '!']]
      : [gate.name === 'select' ? 'select' : command, ['red', '✗']]
    lines.unshift(line(mark, gate.name, `no policy for ${about}: no row passes`))
  }
  if (gate.forOthers.length > 0) {
    lines.push(
      line(
        ['dim', '·'],
        gate.name,
        styled('dim', `for other roles: ${gate.forOthers.map(quote).join(', ')}`),
      ),
    )
  }
  return lines
}

function policyLines(gate: Gate, policy: PolicyAnswer, isOne: boolean): string[] {
  const roles = `for ${policy.for} to ${policy.roles.join(', ')}`
  const kind = policy.kind === 'restrictive' ? 'restrictive, ' : ''
  const clause = gate.name === 'check' ? 'check' : 'using'
  return [
    line(policyMark(policy), gate.name, `${quote(policy.name)}  ${answerText(policy, isOne)}`),
    line(['dim', ' '], '', styled('dim', `${kind}${roles}, ${clause} (${readable(policy.expression)})`)),
  ]
}

/** As somebody would have written it, where the server writes more: `( SELECT auth.uid() AS uid)`. */
function readable(expression: string): string {
  const short = expression.replace(/\( SELECT ([\w.]+\([^()]*\)) AS \w+\)/g, '(select $1)')
  return isInBrackets(short) ? short.slice(1, -1) : short
}

/** The first bracket is closed by the last one, and not before. */
function isInBrackets(text: string): boolean {
  let depth = 0
  for (const [nth, letter] of [...text].entries()) {
    if (letter === '(') depth++
    if (letter === ')') depth--
    if (depth === 0) return nth > 0 && nth === [...text].length - 1
  }
  return false
}

/** One policy that lets nothing through stops nothing yet, as long as it is permissive. */
function policyMark({ kind, rows, error }: PolicyAnswer): [Style, string] {
  if (error !== undefined) return ['red', '✗']
  if (rows === undefined || rows.of === 0) return ['dim', '·']
  if (rows.passed > 0) return ['green', '✓']
  return kind === 'restrictive' ? ['red', '✗'] : ['yellow', '-']
}

function answerText({ rows, error }: PolicyAnswer, isOne: boolean): string {
  if (error !== undefined) return styled('red', `raises: ${error}`)
  if (rows === undefined) return ''
  if (isOne) return rows.passed > 0 ? 'passes' : 'does not pass'
  return `${number(rows.passed)} of ${number(rows.of)}`
}

const verdictMarks: Record<Verdict['outcome'], [Style, string]> = {
  all: ['green', '✓'],
  some: ['green', '✓'],
  depends: ['yellow', '?'],
  unknown: ['yellow', '?'],
  none: ['red', '✗'],
  refused: ['red', '✗'],
  fails: ['red', '✗'],
}

function verdictLines({ outcome, text, toAllow }: Verdict): string[] {
  const [style, mark] = verdictMarks[outcome]
  return [
    `  ${styled(style, `${mark} ${text}.`)}`,
    ...toAllow.map((statement, nth) => `    ${nth === 0 ? 'To allow it:' : '            '} ${statement}`),
  ]
}

function line([style, mark]: [Style, string], name: string, text: string): string {
  return `  ${styled(style, mark)} ${name.padEnd(8)}  ${text}`.trimEnd()
}

function quote(name: string): string {
  return `"${name}"`
}

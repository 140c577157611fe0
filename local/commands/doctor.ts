/** `npm run doctor`: looks at everything a stack and a deployment need, and says how to mend what is wrong. */
import { checkDatabase } from '../doctor/database.ts'
import type { Finding } from '../doctor/finding.ts'
import { checkProjectFunctions } from '../doctor/functions.ts'
import { checkPooler } from '../doctor/pooler.ts'
import { checkPorts, checkPrerequisites } from '../doctor/prerequisites.ts'
import type { Command } from '../main.ts'
import { readState } from '../state.ts'
import { print, styled } from '../terminal/output.ts'
import { parseOptions } from './options.ts'

const usage = `
npm run doctor -- [--json]

Checks prerequisites, ports, functions (modules, import maps, verify_jwt), the database that runs (extensions, grants,
row level security) and pooler settings. Changes nothing. Exit code 1 when there is a problem.

  --json  { "problems": n, "findings": [{ area, name, state, detail, fix }] }
`

const command: Command = {
  usage,
  async run(project, args) {
    const { values } = parseOptions({ args, usage, options: { json: { type: 'boolean', default: false } } })
    const state = await readState(project.localDir)
    const url = state?.report?.databaseUrl ?? (Deno.env.get('DATABASE_URL') || undefined)
    const found = (await Promise.all([
      checkPrerequisites(project),
      checkPorts(state),
      checkProjectFunctions(project),
      checkDatabase(project, url, state?.report?.privateDatabase ?? false),
      checkPooler(project),
    ])).flat()
    const problems = found.filter((finding) => finding.state === 'problem').length
    print(values.json ? JSON.stringify({ problems, findings: found }, null, 2) : report(found, problems))
    return problems === 0 ? 0 : 1
  },
}
export default command

function report(found: Finding[], problems: number): string {
  const width = Math.max(...found.map(({ name }) => name.length))
  const lines: string[] = []
  let area: Finding['area'] | undefined
  for (const finding of found) {
    if (finding.area !== area) lines.push('', styled('bold', finding.area))
    area = finding.area
    const detail = finding.detail.replaceAll('\n', `\n       ${' '.repeat(width)}  `)
    lines.push(`  ${marks[finding.state]()}  ${finding.name.padEnd(width)}  ${detail}`)
    if (finding.fix !== undefined) {
      lines.push(`       ${' '.repeat(width)}  ${styled('yellow', 'fix:')} ${finding.fix}`)
    }
  }
  const end = problems === 0
    ? styled('green', 'No problem found.')
    : styled('red', `${count(problems)} found.`)
  return [...lines, '', end, ''].join('\n')
}

/** Words rather than colours alone, and all of one width. */
const marks: Record<Finding['state'], () => string> = {
  ok: () => styled('green', 'ok '),
  problem: () => styled('red', 'BAD'),
  skipped: () => styled('dim', '-  '),
}

function count(problems: number): string {
  return problems === 1 ? '1 problem' : `${problems} problems`
}

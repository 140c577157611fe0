/** `npm run logs`: what the functions, the stack itself and the database server have written. */
import { LocalError } from '../errors.ts'
import type { Command } from '../main.ts'
import type { Project } from '../project.ts'
import { logFile, logNames, parseLogLine } from '../running/logFiles.ts'
import { databaseLog } from '../running/remains.ts'
import { readableLine } from '../terminal/logLines.ts'
import { print } from '../terminal/output.ts'
import { parseOptions, wholeNumber } from './options.ts'

const usage = `
npm run logs -- [NAME] [--follow] [--lines N]

  NAME       a function, "stack" (the local stack itself) or "postgres"; without it all functions and the stack
  --follow   go on as lines are written, until Ctrl-C
  --lines N  the last N lines (200)
`

/** How often a followed file is looked at. */
const lookMs = 200

const command: Command = {
  usage,
  async run(project, args) {
    const { values, positionals } = parseOptions({
      args,
      usage,
      positionals: 1,
      options: {
        follow: { type: 'boolean', short: 'f', default: false },
        lines: { type: 'string', short: 'n' },
      },
    })
    const lines = wholeNumber('lines', values.lines, { minimum: 0, maximum: 1_000_000 }) ?? 200
    const sources = await sourcesOf(project, positionals[0], values.follow)
    await show(sources, lines)
    if (values.follow) await follow(sources)
    return 0
  },
}
export default command

interface Source {
  name: string
  path: string
  /** Up to where the file has been shown. */
  offset: number
  /** The beginning of a line whose end has not been written yet. */
  rest: string
  /** When the last line was written. */
  at: Date
}

interface Line {
  name: string
  at: Date
  text: string
  /** Not in our format: PostgreSQL's own log, or a crash that went to the stack's stderr. */
  foreign: boolean
}

async function sourcesOf(project: Project, name: string | undefined, follow: boolean): Promise<Source[]> {
  const source = (one: string, path = logFile(project.localDir, one)): Source => ({
    name: one,
    path,
    offset: 0,
    rest: '',
    at: new Date(0),
  })
  const names = await logNames(project.localDir)
  if (name === undefined) return names.map((one) => source(one))
  if (name === 'postgres') {
    const path = await databaseLog(project)
    if (path !== undefined) return [source(name, path)]
  } else if (names.includes(name) || follow) return [source(name)]
  throw new LocalError(`There is no log of "${name}"`, {
    where: project.localDir,
    fix: `It begins when ${name} first writes something. There are: ${[...names, 'postgres'].join(', ')}.`,
  })
}

async function show(sources: Source[], limit: number): Promise<void> {
  const lines = (await Promise.all(sources.map(readNew))).flat()
  if (sources.length > 1) lines.sort((a, b) => a.at.getTime() - b.at.getTime())
  for (const line of limit === 0 ? [] : lines.slice(-limit)) printLine(line)
}

async function follow(sources: Source[]): Promise<never> {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, lookMs))
    for (const source of sources) for (const line of await readNew(source)) printLine(line)
  }
}

/** The whole lines that were written since the last look. A file that has become shorter is a new one. */
async function readNew(source: Source): Promise<Line[]> {
  const size = await Deno.stat(source.path).then((found) => found.size, () => 0)
  if (size < source.offset) Object.assign(source, { offset: 0, rest: '' })
  if (size === source.offset) return []
  using file = await Deno.open(source.path)
  await file.seek(source.offset, Deno.SeekMode.Start)
  const text = source.rest + await new Response(file.readable).text()
  source.offset = size
  const lines = text.split('\n')
  source.rest = lines.pop() ?? ''
  return lines.map((line) => {
    const { at, text } = parseLogLine(line)
    // A line that something else wrote into the file belongs to the moment of the one before it.
    source.at = at ?? source.at
    return { name: source.name, at: source.at, text, foreign: at === undefined }
  })
}

/** Ends the command in silence when nobody reads any more. */
function printLine({ name, at, text, foreign }: Line): void {
  const plain = `${at.toISOString()} ${name} ${text}`
  const line = foreign ? text : Deno.stdout.isTerminal() ? readableLine(name, at, text) : plain
  if (!print(line)) Deno.exit(0)
}

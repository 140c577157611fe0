/** The same limits from six processes at once, as isolates have them: four decisions on their way in each. */
import { fileURLToPath } from 'node:url'
import { readLines } from '../../local/functions/outputLines.ts'
import { startDatabase } from '../support/database.ts'
import { denoCommand } from '../support/denoCommand.ts'
import { interleaved, median } from '../support/statistics.ts'
import type { Bench, Measure } from '../support/suite.ts'
import { type Keys, peers, type PostgresSubject, subjectsOn } from './postgresSubjects.ts'
import type { Hammered } from './hammer.ts'
import type { Task } from './process.ts'

const name = 'six processes'
const count = 6
const lanes = 4
const rounds = 4
const seconds = 1
const script = fileURLToPath(new URL('./process.ts', import.meta.url))

const aims: Record<Keys, string> = { 'hot key': '>=6', '10,000 keys': '>=3' }

export const processes: Measure = {
  name,
  async run(bench) {
    const database = await startDatabase(bench)
    const started = Array.from({ length: count }, () => {
      const process = startProcess(bench, database.url())
      return bench.resources.adopt(process, (process) => process.end())
    })
    const perSecond = async (task: Task) => {
      bench.signal.throwIfAborted()
      const done = await Promise.all(started.map(({ carryOut }) => carryOut(task)))
      return done.reduce((sum, { decisions, seconds }) => sum + decisions / seconds, 0)
    }
    // Makes the tables and the rows, before all open their connections.
    for (const subject of subjectsOn['hot key']) {
      await started[0]!.carryOut({ subject, keys: '10,000 keys', lanes, seconds: 0 })
    }
    for (const keys of ['hot key', '10,000 keys'] as const) {
      const measureOne = (subject: PostgresSubject, seconds: number) =>
        perSecond({ subject, keys, lanes, seconds })
      const subjects = subjectsOn[keys]
      for (const subject of subjects) await measureOne(subject, 0.5)
      const results = await interleaved(
        subjects,
        rounds,
        (subject) => measureOne(subject, seconds),
      )
      tell(bench, keys, (subject) => median(results.get(subject)!))
    }
  },
}

function tell({ report }: Bench, keys: Keys, speed: (subject: PostgresSubject) => number): void {
  const measure = `${name}, ${keys}`
  for (const subject of subjectsOn[keys]) {
    report.figure({ measure, subject, value: speed(subject), unit: '1/s' })
  }
  for (const against of peers) {
    for (const ours of ['holdfast', 'holdfast, unnamed'] as const) {
      report.verdict({
        measure: ours === 'holdfast' ? measure : `${measure}, unnamed`,
        against,
        ratio: speed(ours) / speed(against),
        aim: aims[keys],
      })
    }
  }
}

function startProcess({ project }: Bench, url: string) {
  const [program, ...args] = denoCommand({ project, script, args: [url, String(lanes)] })
  const child = new Deno.Command(program, {
    args,
    cwd: project.root,
    stdin: 'piped',
    stdout: 'piped',
    stderr: 'inherit',
  }).spawn()
  const input = child.stdin.getWriter()
  const waiting: PromiseWithResolvers<Hammered>[] = []
  const reading = readLines(child.stdout, (line) => waiting.shift()?.resolve(JSON.parse(line)))
  // Whoever waits for it hears that it has ended.
  void reading.then(() => {
    for (const { reject } of waiting) reject(new Error('Cannot measure: one of the processes has ended'))
  })
  return {
    async carryOut(task: Task): Promise<Hammered> {
      const answer = Promise.withResolvers<Hammered>()
      waiting.push(answer)
      await input.write(new TextEncoder().encode(`${JSON.stringify(task)}\n`))
      return await answer.promise
    },
    async end(): Promise<void> {
      try {
        child.kill('SIGKILL')
      } catch {
        // It has ended by itself.
      }
      await child.status
      await reading
      await input.close().catch(() => {})
    },
  }
}

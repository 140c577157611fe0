/**
 * One of the processes that take from the same limits: `process.ts URL CONNECTIONS`. Each line of standard input is a
 * `Task`; each is answered by a line with its `Hammered` on standard output.
 */
import { createInterface } from 'node:readline'
import process from 'node:process'
import { hammer, type Hammered } from './hammer.ts'
import { type Keys, type PostgresSubject, postgresSubjects } from './postgresSubjects.ts'
import { type Subject, touchAll } from './subject.ts'

export interface Task {
  subject: PostgresSubject
  keys: Keys
  lanes: number
  /** 0 takes one from each key there is. */
  seconds: number
}

const [url = '', connections = ''] = Deno.args
const opened = new Map<PostgresSubject, Subject>()

for await (const line of createInterface({ input: process.stdin })) {
  const done = await carryOut(JSON.parse(line))
  process.stdout.write(`${JSON.stringify(done)}\n`)
}
for (const subject of opened.values()) await subject.close()
Deno.exit(0)

async function carryOut({ subject: name, keys, lanes, seconds }: Task): Promise<Hammered> {
  const subject = opened.get(name) ?? await postgresSubjects[name](url, Number(connections))
  opened.set(name, subject)
  if (seconds > 0) return await hammer(subject, { keys, lanes, seconds })
  await touchAll(subject)
  return { decisions: 0, seconds: 0 }
}

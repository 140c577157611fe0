/** Processes that hammer one key of a limit, all at once. */
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { closeAfterFile } from '../../support/leftovers.ts'
import { waitFor } from '../../support/wait.ts'
import type { LimitTask } from './limitClient.ts'

export interface Tally {
  calls: number
  admitted: number
}

export interface Hammering {
  /** What each process has said last. */
  tallies(): Tally[]
  admitted(): number
  /** Resolves when each process has made that many more calls. */
  goOn(calls: number): Promise<void>
  /** They finish what is under way and leave. Rejects when one fails. */
  stop(): Promise<void>
}

const program = fileURLToPath(new URL('./limitClient.ts', import.meta.url))
const said = z.object({ calls: z.int(), admitted: z.int() })

/** Starts a process for each task, and lets them begin together once all are ready. */
export async function hammer(tasks: LimitTask[]): Promise<Hammering> {
  const processes = tasks.map(start)
  closeAfterFile({
    name: 'the processes at the limit',
    close: async () => void await Promise.all(processes.map((each) => each.end())),
  })
  await waitFor(() => processes.every(({ ready }) => ready()), {
    what: `${tasks.length} processes to be ready`,
    timeoutMs: 30_000,
  })
  await Promise.all(processes.map((each) => each.begin()))
  const tallies = () => processes.map(({ tally }) => tally())
  return {
    tallies,
    admitted: () => tallies().reduce((sum, { admitted }) => sum + admitted, 0),
    async goOn(calls) {
      const before = tallies()
      await waitFor(() => tallies().every((tally, index) => tally.calls >= before[index]!.calls + calls), {
        what: `${calls} more calls of each process`,
        timeoutMs: 30_000,
      })
    },
    async stop() {
      for (const { status, text } of await Promise.all(processes.map((each) => each.end()))) {
        if (!status.success) throw new Error(`A process at the limit ended with ${status.code}: ${text}`)
      }
    },
  }
}

function start(task: LimitTask) {
  const child = new Deno.Command(Deno.execPath(), {
    args: ['run', '-A', '--quiet', program, JSON.stringify(task)],
    stdin: 'piped',
    stdout: 'piped',
    stderr: 'piped',
  }).spawn()
  const input = child.stdin.getWriter()
  const errors = new Response(child.stderr).text()
  let ready = false
  let last: Tally = { calls: 0, admitted: 0 }
  const reading = read(child.stdout, (line) => {
    const what: unknown = JSON.parse(line)
    if (what === 'ready') ready = true
    else last = said.parse(what)
  })
  let ended: Promise<{ status: Deno.CommandStatus; text: string }> | undefined
  async function end() {
    await input.close().catch(() => {})
    const [status, text] = await Promise.all([child.status, errors, reading])
    return { status, text }
  }
  return {
    ready: () => ready,
    tally: () => last,
    begin: () => input.write(new Uint8Array([10])),
    end: () => ended ??= end(),
  }
}

async function read(stream: ReadableStream<Uint8Array>, onLine: (line: string) => void): Promise<void> {
  let text = ''
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (text + chunk).split('\n')
    text = lines.pop() ?? ''
    lines.forEach(onLine)
  }
}

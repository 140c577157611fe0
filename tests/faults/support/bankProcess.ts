/** A client of the bank as its own process, to be killed. */
import { fileURLToPath } from 'node:url'
import type { BankTask } from './bankClient.ts'

export interface BankProcess {
  readonly logFile: string
  /** Ends it between two instructions. Resolves when it is gone; rejects when it had gone by itself. */
  kill(): Promise<void>
  /** It stands still, its connections stay open. */
  freeze(): void
  thaw(): void
  /** It finishes what is under way and leaves. Rejects when it fails. */
  stop(): Promise<void>
}

const program = fileURLToPath(new URL('./bankClient.ts', import.meta.url))

export function startBankProcess(task: BankTask): BankProcess {
  const child = new Deno.Command(Deno.execPath(), {
    args: ['run', '-A', '--quiet', program, JSON.stringify(task)],
    stdin: 'piped',
    stdout: 'null',
    stderr: 'piped',
  }).spawn()
  const said = new Response(child.stderr).text()
  const gone = async () => {
    const [status, text] = await Promise.all([child.status, said])
    await child.stdin.close().catch(() => {})
    return { status, text }
  }
  const ended = gone()
  const signal = (name: Deno.Signal) => {
    try {
      child.kill(name)
    } catch (error) {
      // It has ended by itself: whoever waits for its end is told why.
      if (!(error instanceof TypeError)) throw error
    }
  }
  return {
    logFile: task.logFile,
    async kill() {
      signal('SIGKILL')
      const { status, text } = await ended
      if (status.signal !== 'SIGKILL') throw failed(status, text)
    },
    freeze: () => signal('SIGSTOP'),
    thaw: () => signal('SIGCONT'),
    async stop() {
      await child.stdin.close()
      const { status, text } = await ended
      if (!status.success) throw failed(status, text)
    },
  }
}

function failed(status: Deno.CommandStatus, text: string): Error {
  const how = status.signal === null ? `with code ${status.code}` : `by ${status.signal}`
  return new Error(`A client of the bank ended by itself, ${how}: ${text.slice(-2_000)}`)
}

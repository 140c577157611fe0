/** The work of one client of the bank: several workers over one pool of connections, each in the name of its own user. */
import { isHoldfastError } from '../../../supabase/functions/_shared/core/errors.ts'
import { createDb } from '../../../supabase/functions/_shared/db/client.ts'
import { createTransactionManager } from '../../../supabase/functions/_shared/db/transactionManager.ts'
import type { BankTask } from './bankClient.ts'
import { openBankLog } from './bankLog.ts'
import { SecondThoughts, type Teller, ways } from './bankWays.ts'
import { seeded } from './random.ts'

/** Fewer than workers: they take turns on connections that others have used. */
const connections = 6

export async function moveMoney(task: BankTask, stop: AbortSignal): Promise<void> {
  const random = seeded(task.seed)
  const db = createDb({ url: task.url, max: connections, applicationName: 'bank' })
  const manager = createTransactionManager(db, { functionName: 'bank' })
  const log = openBankLog(task.logFile)
  const common = Object.keys(ways).filter((way) => way !== 'forgotten')

  async function work(): Promise<void> {
    const by = crypto.randomUUID()
    const teller: Teller = {
      manager,
      actor: { caller: { kind: 'user', role: 'authenticated', userId: by, claims: { sub: by } } },
      timeoutMs: task.timeoutMs,
      after: (id) => log({ event: 'after', id }),
    }
    while (!stop.aborted) {
      const source = random.between(1, task.accounts)
      const target = (source + random.between(0, task.accounts - 2)) % task.accounts + 1
      const transfer = { id: crypto.randomUUID(), source, target, amount: random.between(1, 200), by }
      const way = random.chance(0.01) ? 'forgotten' : random.pick(common)
      log({ event: 'started', way, ...transfer })
      try {
        const transactionId = await ways[way]!(teller, transfer)
        log({ event: 'committed', id: transfer.id, transactionId })
      } catch (error) {
        const code = codeOf(error)
        if (code === 'COMMIT_UNKNOWN') log({ event: 'unknown', id: transfer.id })
        else log({ event: 'refused', id: transfer.id, code, text: String(error) })
        if (code === 'SERVICE_UNAVAILABLE') await pause(50)
      }
    }
  }

  await Promise.all(Array.from({ length: task.workers }, work))
  await db.close()
}

/** Anything else ends the process, and with it the test. */
function codeOf(error: unknown): string {
  if (isHoldfastError(error)) return error.code
  if (error instanceof SecondThoughts) return 'SECOND_THOUGHTS'
  throw error
}

/** As a client that obeys `Retry-After`, only more eager. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

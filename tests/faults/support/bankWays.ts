/** The ways in which money is moved: each uses the transaction manager as an application might. */
import type { Actor } from '../../../supabase/functions/_shared/core/caller.ts'
import { sql, type Tx } from '../../../supabase/functions/_shared/db/client.ts'
import type {
  ManagedTx,
  RunOptions,
  TransactionManager,
} from '../../../supabase/functions/_shared/db/transactionManager.ts'
import type { Transfer } from './bankLog.ts'

export interface Teller {
  manager: TransactionManager
  actor: Actor
  timeoutMs: number
  /** Notes that its afterCommit has run. */
  after(id: string): void
}

/** Resolves to the id of its transaction once the transfer is committed. */
type Way = (teller: Teller, transfer: Transfer) => Promise<string>

/** What an application throws when it does not like what it sees. */
export class SecondThoughts extends Error {}

export const ways: Record<string, Way> = {
  locked: running({}, async (tx, transfer) => {
    await tx.lock(`account ${transfer.source}`, `account ${transfer.target}`)
    await move(tx, transfer)
    await book(tx, tx.id, transfer)
  }),

  /** Two of these in opposite directions are a deadlock. */
  unlocked: running({ attempts: 5 }, async (tx, transfer) => {
    await move(tx, transfer)
    await book(tx, tx.id, transfer)
  }),

  pipelined: running({ attempts: 5 }, async (tx, transfer) => {
    await Promise.all([move(tx, transfer), book(tx, tx.id, transfer)])
  }),

  withTheCommit: running({}, async (tx, transfer) => {
    await tx.lock(`account ${transfer.source}`, `account ${transfer.target}`)
    await move(tx, transfer)
    tx.atCommit(bookingOf(tx.id, transfer)).catch(() => {})
  }),

  executed: running({ attempts: 5 }, async (tx, transfer) => {
    const { source, target, amount } = transfer
    await tx.query(sql`select from public.accounts where id in (${source}, ${target}) order by id for update`)
    await readAndWrite(tx, source, -amount)
    await readAndWrite(tx, target, amount)
    await bookByExecute(tx, transfer)
  }),

  /** Reads, computes and writes without a lock: the server has to notice. */
  serializable: running({ isolation: 'serializable', attempts: 8 }, async (tx, transfer) => {
    await readAndWrite(tx, transfer.source, -transfer.amount)
    await readAndWrite(tx, transfer.target, transfer.amount)
    await bookByExecute(tx, transfer)
  }),

  /** Moves the wrong amount first, and takes it back. */
  corrected: running({ attempts: 5 }, async (tx, transfer) => {
    const { source, amount } = transfer
    await tx.query(sql`update public.accounts set balance = balance - ${amount} where id = ${source}`)
    const point = await tx.savepoint()
    const wrong = { ...transfer, source: transfer.target, target: source, amount: 1 }
    await move(tx, wrong)
    await book(tx, tx.id, wrong)
    await tx.rollbackTo(point)
    await tx.query(
      sql`update public.accounts set balance = balance + ${amount} where id = ${transfer.target}`,
    )
    await book(tx, tx.id, transfer)
  }),

  /** One of its operations fails, and it goes on. */
  stumbling: running({ attempts: 5 }, async (tx, transfer) => {
    await move(tx, transfer)
    const refused = await bookByExecute(tx, { ...transfer, amount: -1 })
    if (refused) throw new Error('A transfer of a negative amount was accepted')
    await book(tx, tx.id, transfer)
  }),

  /** Changes its mind when all is written. */
  withdrawn: running({}, async (tx, transfer) => {
    await move(tx, transfer)
    await book(tx, tx.id, transfer)
    throw new SecondThoughts()
  }),

  /** More than there is: a check of the database refuses it when all else is written. */
  overdrawn: running({}, async (tx, transfer) => {
    const { source, target } = transfer
    await book(tx, tx.id, transfer)
    await tx.query(sql`update public.accounts set balance = balance + 1000000000 where id = ${target}`)
    await tx.query(sql`update public.accounts set balance = balance - 1000000000 where id = ${source}`)
  }),

  async stepwise({ manager, actor, timeoutMs }, transfer) {
    const id = await manager.begin({ as: actor, timeoutMs })
    try {
      await move({ query: (query) => manager.query(id, query) }, transfer)
      const { error } = await manager.execute(id, 'transfers', 'insert', rowOf(id, transfer))
      if (error !== null) throw error
    } catch (error) {
      await manager.rollback(id).catch(() => {})
      throw error
    }
    await manager.commit(id)
    return id
  },

  /** Begun, used, and never ended by whoever began it. */
  async forgotten({ manager, actor, timeoutMs }, transfer) {
    const id = await manager.begin({ as: actor, timeoutMs })
    await manager.execute(id, 'transfers', 'insert', rowOf(id, transfer))
    throw new SecondThoughts()
  },
}

function running(
  options: Omit<RunOptions, 'as' | 'timeoutMs'>,
  work: (tx: ManagedTx, transfer: Transfer) => Promise<void>,
): Way {
  return ({ manager, actor, timeoutMs, after }, transfer) =>
    manager.run({ as: actor, timeoutMs, ...options }, async (tx) => {
      tx.afterCommit(() => after(transfer.id))
      await work(tx, transfer)
      return tx.id
    })
}

async function move(tx: Tx, { source, target, amount }: Transfer): Promise<void> {
  await Promise.all([
    tx.query(sql`update public.accounts set balance = balance - ${amount} where id = ${source}`),
    tx.query(sql`update public.accounts set balance = balance + ${amount} where id = ${target}`),
  ])
}

async function book(tx: Tx, transactionId: string, transfer: Transfer): Promise<void> {
  await tx.query(bookingOf(transactionId, transfer))
}

function bookingOf(transactionId: string, { id, source, target, amount }: Transfer) {
  return sql`insert into public.transfers (id, source, target, amount, transaction_id)
    values (${id}, ${source}, ${target}, ${amount}, ${transactionId})`
}

async function bookByExecute(tx: ManagedTx, transfer: Transfer): Promise<boolean> {
  const { success, error } = await tx.execute('transfers', 'insert', rowOf(tx.id, transfer))
  if (error !== null && !('constraint' in error && error.constraint === 'amount_is_positive')) throw error
  return success
}

async function readAndWrite(tx: ManagedTx, id: number, change: number): Promise<void> {
  const found = await tx.execute('accounts', 'select', { where: { id } })
  if (found.error !== null) throw found.error
  const balance = Number(found.data[0]?.balance) + change
  const written = await tx.execute('accounts', 'update', { balance }, { where: { id } })
  if (written.error !== null) throw written.error
}

function rowOf(transactionId: string, { id, source, target, amount }: Transfer) {
  return { id, source, target, amount, transaction_id: transactionId }
}

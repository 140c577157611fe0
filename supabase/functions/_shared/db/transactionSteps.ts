/** Restore points of one transaction, and the operations that each bring one along. */
import { DatabaseError } from './databaseError.ts'
import type { RestorePoint } from './managedTx.ts'
import { identifier, sql } from './sql.ts'
import type { TableCatalog } from './tableCatalog.ts'
import { compileOperation, type OperationArguments } from './tableOperations.ts'
import type { Tx } from './transaction.ts'

export class Steps {
  readonly #transactionId: string
  readonly #tx: Tx
  readonly #onGoneBack: () => void
  /** Those that can be gone back to, oldest first. */
  readonly #points: RestorePoint[] = []
  #count = 0
  #running: Promise<void> | undefined

  /** `tx` sends as it is. `onGoneBack` is called when settings and failures since a point are undone. */
  constructor(transactionId: string, tx: Tx, onGoneBack: () => void) {
    this.#transactionId = transactionId
    this.#tx = tx
    this.#onGoneBack = onGoneBack
  }

  /** A step whose failure may still have to be undone; whatever is sent meanwhile waits for it. Never rejects. */
  get running(): Promise<void> | undefined {
    return this.#running
  }

  newPoint(): RestorePoint {
    return { transactionId: this.#transactionId, name: `holdfast_${++this.#count}` }
  }

  savepoint(): Promise<RestorePoint> {
    return this.alone(async () => {
      const point = this.newPoint()
      await this.#save(point)
      return point
    })
  }

  rollbackTo(point: RestorePoint): Promise<void> {
    return this.alone(() => this.#goBack(point))
  }

  /** One step after the other, each when the one before it is over and undone. */
  alone<T>(step: () => Promise<T>): Promise<T> {
    const result = this.#running === undefined ? step() : this.#running.then(step)
    const running = result.then(() => {}, () => {}).then(() => {
      if (this.#running === running) this.#running = undefined
    })
    this.#running = running
    return result
  }

  /** Sends an operation together with its restore point, and takes it back when it fails. To be called in `alone`. */
  async operate(
    point: RestorePoint,
    catalog: TableCatalog,
    reference: string,
    args: OperationArguments,
  ): Promise<unknown> {
    const saved = this.#save(point)
    saved.catch(() => {})
    for (let again = true;; again = false) {
      try {
        const { query, single } = await compileOperation(this.#tx, catalog, reference, args)
        const rows = query === undefined ? [] : await this.#tx.query(query)
        await saved
        return single ? rows[0] ?? null : rows
      } catch (error) {
        await saved
        // What was refused before it was sent has left nothing to take back.
        if (!(error instanceof DatabaseError)) throw error
        await this.#goBack(point).catch(() => {
          throw error
        })
        // The schema changed since it was looked up: once more, with what it is now.
        if (!again || !isStale(error)) throw error
        catalog.forget(reference)
      }
    }
  }

  async #save(point: RestorePoint): Promise<void> {
    await this.#tx.query(sql`savepoint ${identifier(point.name)}`)
    this.#points.push(point)
  }

  async #goBack(point: RestorePoint): Promise<void> {
    const index = this.#points.findIndex(({ transactionId, name }) =>
      transactionId === point?.transactionId && name === point.name
    )
    if (index < 0) {
      throw new RangeError(
        `Cannot go back to the restore point ${JSON.stringify(point?.name)}: it is of another transaction, ` +
          'or was undone with what came before it',
      )
    }
    await this.#tx.query(sql`rollback to savepoint ${identifier(point.name)}`)
    this.#points.length = index + 1
    this.#onGoneBack()
  }
}

/** A table or a column that is not there (any more). */
function isStale({ sqlState }: DatabaseError): boolean {
  return sqlState === '42703' || sqlState === '42P01'
}

/** One statement in the name of a role, what it gave and changed, and as if it had never been. */
import type postgres from 'postgres'
import type { RoleName } from '../matrix.ts'
import type { Queries } from '../../support/sql.ts'
import { type Caller, user } from '../../support/sql.ts'
import { personOf } from './fixture.ts'

export interface Attempt<T = undefined> {
  rows: postgres.Row[]
  /** The refusal; then `rows` is empty. */
  error?: SqlError
  /** What `look` saw afterwards, as the superuser, before all was taken back. */
  seen: T
}

export interface SqlError {
  code: string
  message: string
  detail?: string
  hint?: string
}

/** A role as PostgREST presents it to the database. */
export function callerOf(role: RoleName): Caller {
  const id = personOf(role)
  if (id === undefined) return { role: role as 'anon' | 'service_role' }
  return user(id, {
    aud: 'authenticated',
    app_metadata: { role: role === 'admin' ? 'admin' : 'customer' },
    // Everybody may write this about themselves, so it must mean nothing.
    user_metadata: { role: 'admin' },
  })
}

/**
 * Runs the statement with the role and claims of a caller below a savepoint of `tx`, then `look` as the superuser
 * who opened `tx`, and takes all of it back.
 */
export async function attempt<T = undefined>(
  tx: Queries,
  role: RoleName,
  statement: string,
  options: { before?: string; look?: (tx: Queries, error?: SqlError) => Promise<T> } = {},
): Promise<Attempt<T>> {
  const { before = 'select', look } = options
  const caller = callerOf(role)
  const claims = JSON.stringify({ ...caller.claims, role: caller.role })
  // There are thousands of attempts, so what need not wait for an answer is sent at once, in this order.
  const setUp = tx.unsafe(`
    savepoint cell;
    ${before};
    set local role ${caller.role};
    set local request.jwt.claims = '${claims}'`).execute()
  const tried: Promise<Outcome> = tx.unsafe(statement)
    .then((rows) => ({ rows: [...rows] }), (error) => ({ rows: [], error: asSqlError(error) }))
  const [, outcome] = await Promise.all([setUp, tried])
  // A refused statement leaves nothing but the way back.
  const back = tx.unsafe(outcome.error ? 'rollback to savepoint cell' : 'reset role').execute()
  const [, seen] = await Promise.all([back, look?.(tx, outcome.error)])
  await tx.unsafe('rollback to savepoint cell; release savepoint cell')
  return { ...outcome, seen: seen as T }
}

interface Outcome {
  rows: postgres.Row[]
  error?: SqlError
}

function asSqlError(error: unknown): SqlError {
  if (error instanceof Error && 'code' in error && /^[0-9A-Z]{5}$/.test(String(error.code))) {
    return error as Error & SqlError
  }
  throw error
}
